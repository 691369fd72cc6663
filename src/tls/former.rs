//! The certificate that is presented while the first one for a changed set of names is ordered.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::SystemTime;

use super::Identity;
use crate::config::AcmeSettings;

/// Returns the certificate of `settings` that can be presented now, with its file: its own, or one that stands in for it.
/// Reads small local files.
pub fn presented_certificate(settings: &AcmeSettings) -> Option<(PathBuf, Identity)> {
    let own = settings.certificate();
    let text = std::fs::read(&own).ok();
    match text.and_then(|text| Identity::from_pem(&text, &own).ok()) {
        Some(identity) => Some((own, identity)),
        None => former_certificate(settings),
    }
}

/// Returns the certificate in the storage folder that stands in for the one of `settings`, which is missing or damaged: valid now,
/// for most of the names, and with the latest end. `None` if none is for any of them. Reads small local files.
pub fn former_certificate(settings: &AcmeSettings) -> Option<(PathBuf, Identity)> {
    let own = settings.certificate();
    let entries = std::fs::read_dir(settings.folder()).ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let others = paths.filter(|path| path.extension() == Some(OsStr::new("pem")) && *path != own);
    let fitting = others.filter_map(|path| {
        let identity = Identity::from_pem(&std::fs::read(&path).ok()?, &path).ok()?;
        let leaf = identity.leaf()?;
        let names = settings.domains.iter().filter(|domain| identity.is_for(domain)).count();
        let now = SystemTime::now();
        (names > 0 && leaf.not_before <= now && now < leaf.not_after).then_some((
            names,
            leaf.not_after,
            Reverse(path),
            identity,
        ))
    });
    let best = fitting.max_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));
    best.map(|(_, _, Reverse(path), identity)| (path, identity))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    /// Writes a certificate that ends in `days`, or has ended.
    fn put(settings: &AcmeSettings, file: &str, names: &[&str], days: i32) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        let now = SystemTime::now();
        let end = if days < 0 { now - DAY * days.unsigned_abs() } else { now + DAY * days.unsigned_abs() };
        (params.not_before, params.not_after) = ((now - DAY * 60).into(), end.into());
        let pem = params.self_signed(&key).expect("a certificate").pem() + &key.serialize_pem();
        fs::create_dir_all(settings.folder()).expect("a folder");
        fs::write(settings.folder().join(file), pem).expect("written");
    }

    #[test]
    fn the_certificate_for_most_of_the_names_stands_in() {
        let folder = TempDir::new().expect("a folder");
        let domains = ["a.example", "b.example", "c.example"].map(Box::from).to_vec();
        let settings = AcmeSettings { storage: folder.path().into(), ..AcmeSettings::of(domains) };
        let stands_in = || {
            let found = former_certificate(&settings)?;
            Some(found.0.file_name()?.to_string_lossy().into_owned())
        };
        assert_eq!(stands_in(), None, "no folder");
        put(&settings, "expired.pem", &["a.example", "b.example"], -1);
        put(&settings, "other.pem", &["d.example"], 10);
        fs::write(settings.folder().join("damaged.pem"), "half").expect("written");
        put(&settings, "tls-alpn-01.a.example", &["a.example"], 10);
        assert_eq!(stands_in(), None, "none is valid and for a name");
        put(&settings, "one.pem", &["a.example"], 30);
        assert_eq!(stands_in().as_deref(), Some("one.pem"));
        put(&settings, "two.pem", &["a.example", "b.example"], 10);
        assert_eq!(stands_in().as_deref(), Some("two.pem"), "more names");
        put(&settings, "later.pem", &["b.example", "a.example"], 20);
        assert_eq!(stands_in().as_deref(), Some("later.pem"), "a later end");
    }
}
