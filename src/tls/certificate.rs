//! The names, the validity period and the fingerprint of one of the proxy's own certificates.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::Certificate as Parsed;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::fingerprint;
use crate::config::FileCache;

/// The time before `not_after` from which a certificate counts as expiring: 14 days.
pub const EXPIRY_NOTICE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The validity of a certificate at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Not valid yet; the duration is the time until `not_before`.
    NotYet(Duration),
    /// Valid for longer than [`EXPIRY_NOTICE`].
    Valid,
    /// Valid, and expiring within [`EXPIRY_NOTICE`]; the duration is the time until `not_after`.
    Expires(Duration),
    /// Expired; the duration is the time since `not_after`.
    Expired(Duration),
}

/// A certificate that the proxy presents to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The PEM file that it was read from; `None` if it was made in memory.
    pub file: Option<PathBuf>,
    /// The DNS names and IP addresses of its `subjectAltName` extension (RFC 5280 §4.2.1.6).
    pub names: Vec<String>,
    /// The start of its validity period.
    pub not_before: SystemTime,
    /// The end of its validity period.
    pub not_after: SystemTime,
    /// The SHA-256 hash of its DER encoding.
    pub fingerprint: [u8; 32],
    /// The names of its entry in `[[tls.sni]]`; empty for the default certificate.
    pub for_names: Vec<Box<str>>,
}

impl Certificate {
    /// Reads the fields of `leaf`; returns `None` if it is not a parsable X.509 certificate.
    pub(super) fn of(leaf: &CertificateDer<'_>, file: Option<PathBuf>, for_names: &[Box<str>]) -> Option<Self> {
        let parsed = Parsed::from_der(leaf).ok()?;
        let certificate = parsed.tbs_certificate();
        let names = certificate.get_extension::<SubjectAltName>().ok().flatten();
        let names = names.map(|(_, names)| names.0.iter().filter_map(name).collect()).unwrap_or_default();
        let validity = certificate.validity();
        Some(Self {
            file,
            names,
            not_before: validity.not_before.to_system_time(),
            not_after: validity.not_after.to_system_time(),
            fingerprint: fingerprint::sha256(leaf),
            for_names: for_names.into(),
        })
    }

    /// Reads the first certificate of a PEM file; returns `None` if the file cannot be read or its first certificate
    /// cannot be parsed.
    pub fn from_pem_file(file: &Path, cache: &FileCache) -> Option<Self> {
        let text = cache.read(file).ok()?;
        let leaf = CertificateDer::pem_slice_iter(&text).next()?.ok()?;
        Self::of(&leaf, Some(file.into()), &[])
    }

    /// Returns its validity at `now`.
    pub fn validity(&self, now: SystemTime) -> Validity {
        if let Ok(until) = self.not_before.duration_since(now)
            && !until.is_zero()
        {
            return Validity::NotYet(until);
        }
        match self.not_after.duration_since(now) {
            Ok(left) if left > EXPIRY_NOTICE => Validity::Valid,
            Ok(left) => Validity::Expires(left),
            Err(past) => Validity::Expired(past.duration()),
        }
    }

    /// Returns a short label for log lines and metrics: the name of its file, otherwise its first name, otherwise an
    /// empty string.
    pub fn label(&self) -> String {
        let file = self.file.as_deref().and_then(|file| file.file_name());
        file.map_or_else(|| self.names.first().cloned().unwrap_or_default(), |name| name.to_string_lossy().into_owned())
    }
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(octets) => {
            let octets = octets.as_bytes();
            let v4 = || <[u8; 4]>::try_from(octets).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(octets).map(IpAddr::from);
            v4().or_else(|_| v6()).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn two_weeks_before_its_end_a_certificate_is_worth_a_warning() {
        let mut certificate = Certificate {
            file: None,
            names: Vec::new(),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000),
            fingerprint: [0; 32],
            for_names: Vec::new(),
        };
        let second = Duration::from_secs(1);
        let at =
            |certificate: &Certificate, before_the_end| certificate.validity(certificate.not_after - before_the_end);
        assert_eq!(at(&certificate, EXPIRY_NOTICE + second), Validity::Valid);
        assert_eq!(at(&certificate, EXPIRY_NOTICE), Validity::Expires(EXPIRY_NOTICE));
        assert_eq!(at(&certificate, Duration::ZERO), Validity::Expires(Duration::ZERO));
        assert_eq!(certificate.validity(certificate.not_after + second), Validity::Expired(second));
        certificate.not_before = certificate.not_after - 2 * second;
        assert_eq!(at(&certificate, 5 * second), Validity::NotYet(3 * second));
        assert_eq!(at(&certificate, 2 * second), Validity::Expires(2 * second), "from its first second on");
    }

    #[test]
    fn names_and_dates_are_read() {
        let names = ["app.example", "*.app.example", "192.0.2.7", "2001:db8::7"];
        let mut params = CertificateParams::new(names.map(String::from)).expect("valid names");
        params.not_before = date_time_ymd(2001, 9, 9);
        params.not_after = date_time_ymd(2033, 5, 18);
        let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        let parsed = Certificate::of(certificate.der(), None, &[]).expect("readable");
        assert_eq!(parsed.names, names);
        let day = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400);
        assert_eq!((parsed.not_before, parsed.not_after), (day(11_574), day(23_148)));
        assert_eq!(parsed.label(), "app.example");
        let filed = Certificate::of(certificate.der(), Some("/etc/tls/tls.crt".into()), &[]).expect("readable");
        assert_eq!(filed.label(), "tls.crt");
        assert_eq!(Certificate::of(&CertificateDer::from(vec![0x30, 3, 1, 2, 3]), None, &[]), None);
    }
}
