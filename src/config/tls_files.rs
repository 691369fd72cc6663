//! Faults of the TLS files that a configuration names. Other modules read the files; here each fault gets the key of its
//! file.

use std::path::{Path, PathBuf};

use super::parse::Problem;
use super::reader::Table;
use super::settings::{ClientAuth, SniCertificate, TlsSettings, UpstreamSettings};

/// The part that a TLS file plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsRole {
    /// A certificate chain.
    Certificate,
    /// The key of its first certificate.
    PrivateKey,
    /// Certificates of trusted authorities.
    Authorities,
    /// The folder of certificates that are ordered.
    Storage,
    /// The MAC key of an external account.
    ExternalKey,
}

impl TlsRole {
    /// The key that names such a file.
    fn key(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::PrivateKey => "private_key",
            Self::Authorities => "ca",
            Self::Storage => "storage",
            Self::ExternalKey => "key_file",
        }
    }
}

/// A fault of one TLS file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFault {
    /// The part that the file plays.
    pub role: TlsRole,
    /// The file.
    pub file: PathBuf,
    /// The fault, beginning with the file.
    pub what: String,
    /// The remedy, as text.
    pub help: Option<String>,
}

impl TlsFault {
    fn problem(self) -> Problem {
        let problem = Problem::new(format!("cannot be used: {}", self.what));
        Problem { help: self.help, ..problem }
    }
}

/// Reports `faults` of the files in the section `t`, its table `client_auth` and its tables `[[tls.sni]]`.
pub(super) fn report<'a>([t, clients]: [&Table<'a>; 2], sni: &[Table<'a>], tls: &TlsSettings, faults: Vec<TlsFault>) {
    let mut places: Vec<(&Table<'a>, TlsRole, &Path)> = Vec::new();
    let mut pair = |t, certificate, private_key| {
        places.extend([(t, TlsRole::Certificate, certificate), (t, TlsRole::PrivateKey, private_key)]);
    };
    pair(t, tls.certificate.as_path(), tls.private_key.as_path());
    for (t, SniCertificate { certificate, private_key, .. }) in sni.iter().zip(&tls.sni) {
        pair(t, certificate, private_key);
    }
    if let ClientAuth::Optional(ca) | ClientAuth::Required(ca) = &tls.client_auth {
        places.push((clients, TlsRole::Authorities, ca));
    }
    let acme = t.table("acme");
    for fault in faults {
        if let Some(settings) = &tls.acme {
            if fault.role == TlsRole::Storage {
                acme.refuse(&["storage", "domains"], fault.problem());
                continue;
            }
            if fault.role == TlsRole::ExternalKey {
                acme.table("external_account").refuse(&["key_file"], fault.problem());
                continue;
            }
            if settings.ca.as_ref() == Some(&fault.file) && fault.role == TlsRole::Authorities {
                acme.refuse(&["ca"], fault.problem());
                continue;
            }
        }
        let place = places.iter().find(|(_, role, file)| (*role, *file) == (fault.role, fault.file.as_path()));
        let table = place.map_or(t, |(table, ..)| table);
        table.refuse(&[fault.role.key()], fault.problem());
    }
}

/// Reports `faults` of the files of `app`, which stands in `t` under one of `keys`, the first of which is set.
pub(super) fn report_app(t: &Table<'_>, keys: &[&str], app: &UpstreamSettings, faults: Vec<TlsFault>) {
    for fault in faults {
        let problem = Problem { what: format!("cannot be used: {app}: {}", fault.what), help: fault.help.clone() };
        // A route that names a URL alone has no table for the files.
        let files = keys.contains(&"tls").then(|| t.table("tls")).filter(|files| files.sets(fault.role.key()));
        match files {
            Some(files) => files.refuse(&[fault.role.key()], fault.problem()),
            None => t.refuse(keys, problem),
        }
    }
}
