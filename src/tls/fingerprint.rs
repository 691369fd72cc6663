//! The identifying values of a certificate: its hash, the pin of its public key and its subject.

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use crate::config::Pin;

/// Returns the SHA-256 hash of the certificate's DER encoding.
pub(super) fn sha256(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, certificate).as_ref());
    hash
}

/// Returns the pin of the certificate's public key: the SHA-256 hash of its `SubjectPublicKeyInfo`; `None` if the
/// certificate cannot be parsed.
pub(super) fn pin(certificate: &CertificateDer<'_>) -> Option<Pin> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let key = certificate.tbs_certificate().subject_public_key_info().to_der().ok()?;
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &key).as_ref());
    Some(Pin::new(hash))
}

/// Returns the certificate's subject as text (RFC 4514), the most specific part first; `None` if the certificate cannot
/// be parsed.
pub(super) fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    Some(Certificate::from_der(certificate).ok()?.tbs_certificate().subject().to_string())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(parts: &[(DnType, &str)]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["client".to_owned()]).expect("a valid name");
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.self_signed(&KeyPair::generate().expect("key")).expect("certificate").der().clone()
    }

    #[test]
    fn the_subject_is_spelt_as_rfc_4514_has_it() {
        let plain = certificate(&[
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Acme"),
            (DnType::CommonName, "ann"),
        ]);
        assert_eq!(subject(&plain).as_deref(), Some("CN=ann,O=Acme,C=DE"));
        let odd = certificate(&[(DnType::CommonName, " a\"b,c;d=e\r\nf#")]);
        assert_eq!(subject(&odd).as_deref(), Some(r#"CN=\ a\"b\,c\;d=e\0d\0af#"#));
        assert_eq!(subject(&certificate(&[])).as_deref(), Some(""));
        assert_eq!(subject(&CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])), None);
    }

    #[test]
    fn the_pin_is_that_of_the_key_and_the_same_in_every_certificate_of_it() {
        let key = KeyPair::generate().expect("key");
        let of = |name: &str| {
            let params = CertificateParams::new(vec![name.to_owned()]).expect("a valid name");
            pin(params.self_signed(&key).expect("certificate").der()).expect("readable")
        };
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &rcgen::PublicKeyData::subject_public_key_info(&key)).as_ref());
        assert_eq!(of("a.example"), Pin::new(hash));
        assert_eq!(of("b.example"), Pin::new(hash));
        assert_eq!(pin(&CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])), None);
    }

    #[test]
    fn the_hash_is_that_of_the_whole_certificate() {
        let hash = sha256(&CertificateDer::from(b"abc".to_vec()));
        assert_eq!(hash[..4], [0xba, 0x78, 0x16, 0xbf], "FIPS 180-4's example");
    }
}
