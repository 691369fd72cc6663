//! Settings of certificates that are ordered from an authority by ACME (RFC 8555), and the places of its files.

use std::collections::BTreeSet;
use std::hash::Hasher;
use std::path::{Path, PathBuf};

use fnv::FnvHasher;

/// The certificates that are ordered from an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeSettings {
    /// DNS names in lower case, never none and no wildcard; one certificate is for all of them.
    pub domains: Vec<Box<str>>,
    /// URLs at which the authority reaches the operator, such as `mailto:ops@app.example`.
    pub contact: Vec<Box<str>>,
    /// URL of the authority's directory (RFC 8555 §7.1.1); https.
    pub directory: Box<str>,
    /// PEM file of the authorities that may have signed the certificate of the directory; `None` is those of the system.
    pub ca: Option<PathBuf>,
    /// The folder of account, certificate and challenges, which the replicas of one host may share.
    pub storage: PathBuf,
    /// The proof of control over the names.
    pub challenge: AcmeChallenge,
    /// The account that the operator already has with the authority (RFC 8555 §7.3.4).
    pub external_account: Option<ExternalAccount>,
}

/// The way in which the authority sees that a name leads here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// A TLS handshake with the ALPN protocol `acme-tls/1`, on port 443 of the name (RFC 8737).
    #[default]
    TlsAlpn01,
    /// A plain HTTP request, on port 80 of the name (RFC 8555 §8.3).
    Http01,
}

impl AcmeChallenge {
    /// Returns its name in the protocol and in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }

    /// Returns the port to which the authority connects.
    pub const fn port(self) -> u16 {
        match self {
            Self::TlsAlpn01 => 443,
            Self::Http01 => 80,
        }
    }
}

/// The key that binds a new account to one outside of ACME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccount {
    /// The identifier that the authority gave.
    pub key_id: Box<str>,
    /// The file with the MAC key, in base64url.
    pub key_file: PathBuf,
}

impl AcmeSettings {
    /// The directory of Let's Encrypt.
    pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
    /// The default folder of its files.
    pub const STORAGE: &str = "/var/lib/pulsegate/acme";

    /// Returns a certificate for `domains` from Let's Encrypt.
    pub fn of(domains: Vec<Box<str>>) -> Self {
        Self {
            domains,
            contact: Vec::new(),
            directory: Self::LETS_ENCRYPT.into(),
            ca: None,
            storage: Self::STORAGE.into(),
            challenge: AcmeChallenge::default(),
            external_account: None,
        }
    }

    /// Returns the folder of the files of this authority.
    pub fn folder(&self) -> PathBuf {
        let url = self.directory.split_once("://").map_or(&*self.directory, |(_, rest)| rest);
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '-' };
        // Never "." or "..": a host stands in front.
        self.storage.join(url.trim_matches(['/', '.']).chars().map(plain).collect::<String>())
    }

    /// Returns the PEM file of the certificate chain and its key. Its name belongs to the whole set of domains, so that two
    /// sites which share a folder and some domains never replace each other's certificate. One domain is its own name.
    pub fn certificate(&self) -> PathBuf {
        let names: BTreeSet<&str> = self.domains.iter().map(|domain| &**domain).collect();
        let first = names.first().copied().unwrap_or("none");
        let file = match names.len() {
            0 | 1 => format!("{first}.pem"),
            _ => format!("{first}+{:08x}.pem", digest(&names)),
        };
        self.folder().join(file)
    }

    /// Returns the file of the account: its URL and key.
    pub fn account(&self) -> PathBuf {
        self.folder().join("account.json")
    }

    /// Returns the file that is locked during an order.
    pub fn lock(&self) -> PathBuf {
        self.folder().join("lock")
    }

    /// Returns the file of the response to the http-01 challenge `token`; `None` for text that is no token
    /// (RFC 8555 §8.1).
    pub fn http_challenge(&self, token: &str) -> Option<PathBuf> {
        let is_token = (1..=200).contains(&token.len())
            && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        is_token.then(|| self.folder().join(format!("http-01.{token}")))
    }

    /// Returns the PEM file of the certificate and key for the tls-alpn-01 challenge of `domain`.
    pub fn tls_challenge(&self, domain: &str) -> PathBuf {
        self.folder().join(format!("tls-alpn-01.{domain}"))
    }

    /// Returns the files that are read and not written.
    pub fn read_files(&self) -> impl Iterator<Item = &Path> {
        let external = self.external_account.as_ref().map(|account| account.key_file.as_path());
        self.ca.as_deref().into_iter().chain(external)
    }
}

/// Returns a number of 32 bits that belongs to these names. It is part of a file's name, and must never change.
fn digest(names: &BTreeSet<&str>) -> u64 {
    let mut hasher = FnvHasher::default();
    for name in names {
        hasher.write(name.as_bytes());
        hasher.write(b"\n");
    }
    let digest = hasher.finish();
    (digest ^ (digest >> 32)) & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_a_set_of_domains() {
        let file = |domains: &[&str]| {
            let settings = AcmeSettings::of(domains.iter().map(|domain| (*domain).into()).collect());
            settings.certificate().file_name().and_then(|name| name.to_str()).expect("a name").to_owned()
        };
        assert_eq!(file(&["app.example"]), "app.example.pem");
        assert_eq!(file(&["app.example", "app.example"]), "app.example.pem");
        let both = file(&["app.example", "www.app.example"]);
        assert_eq!(both, "app.example+1505d748.pem", "the name in storage of earlier versions");
        assert_eq!(file(&["www.app.example", "app.example"]), both);
        assert_ne!(file(&["app.example", "api.example"]), file(&["app.example", "www.example"]));
        let many: Vec<String> = (0..100).map(|n| format!("{}.{n}.example", "a".repeat(63))).collect();
        assert!(file(&many.iter().map(String::as_str).collect::<Vec<_>>()).len() < 100, "file systems allow 255 bytes");
    }

    #[test]
    fn each_authority_has_a_folder_of_its_own() {
        let of = |directory: &str| AcmeSettings {
            directory: directory.into(),
            storage: "/s".into(),
            ..AcmeSettings::of(vec!["a.example".into()])
        };
        for (directory, folder) in [
            (AcmeSettings::LETS_ENCRYPT, "/s/acme-v02.api.letsencrypt.org-directory"),
            ("https://127.0.0.1:14000/dir", "/s/127.0.0.1-14000-dir"),
            ("https://[::1]/../../etc", "/s/---1--..-..-etc"),
        ] {
            assert_eq!(of(directory).folder(), Path::new(folder));
        }
        assert_eq!(of("https://ca/d").certificate(), Path::new("/s/ca-d/a.example.pem"));
    }

    #[test]
    fn a_token_never_leaves_the_folder() {
        let settings = AcmeSettings::of(vec!["a.example".into()]);
        for token in ["", "..", "a/b", "../account.json", "a.b", "%2e", "tok\0en", &"a".repeat(201)] {
            assert_eq!(settings.http_challenge(token), None, "{token:?}");
        }
        let file = settings.http_challenge("LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0").expect("a token");
        assert_eq!(file.parent(), Some(&*settings.folder()));
    }
}
