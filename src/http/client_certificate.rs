//! The certificate of a client, as the app gets it.

use std::fmt::Write;

use hyper::header::{HeaderName, HeaderValue};

/// The field in which an app gets the certificate, in the form that Envoy gave it.
pub(super) const CLIENT_CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Bytes of a subject that are passed on at most; real ones are far shorter.
const SUBJECT_MAX: usize = 1024;

/// The certificate of a client, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    sha256: [u8; 32],
    subject: Option<Box<str>>,
}

impl ClientCertificate {
    /// A certificate with the hash of its DER, and its subject as RFC 4514 spells it, if that could be read.
    pub fn new(sha256: [u8; 32], subject: Option<String>) -> Self {
        Self { sha256, subject: subject.map(String::into_boxed_str) }
    }

    /// Its subject (RFC 4514), or nothing if that could not be read.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// `X-Forwarded-Client-Cert` in the form that Envoy gave it: `Hash=…;Subject="…"`.
    ///
    /// Whatever is in the subject, it stays within its quotes: RFC 4514 puts a backslash before a quote and before
    /// another backslash, and what is not plain ASCII goes as the hexadecimal pairs that it allows for any byte. A
    /// subject of absurd length is left out; the hash names the certificate all the same.
    pub(super) fn forwarded(&self) -> HeaderValue {
        let mut text = String::from("Hash=");
        for byte in self.sha256 {
            write!(text, "{byte:02x}").expect("writing to a String does not fail");
        }
        if let Some(subject) = self.subject().filter(|subject| subject.len() <= SUBJECT_MAX) {
            text.push_str(";Subject=\"");
            for byte in subject.bytes() {
                match byte {
                    b' '..=b'~' => text.push(char::from(byte)),
                    other => write!(text, "\\{other:02x}").expect("writing to a String does not fail"),
                }
            }
            text.push('"');
        }
        HeaderValue::try_from(text).expect("visible ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(subject: Option<&str>) -> String {
        let certificate = ClientCertificate::new([0xab; 32], subject.map(String::from));
        certificate.forwarded().to_str().expect("visible ASCII").to_owned()
    }

    #[test]
    fn it_is_told_in_envoys_form() {
        let hash = "ab".repeat(32);
        assert_eq!(forwarded(Some("CN=ann,O=Acme")), format!("Hash={hash};Subject=\"CN=ann,O=Acme\""));
        assert_eq!(forwarded(None), format!("Hash={hash}"));
        assert_eq!(forwarded(Some(&"a".repeat(SUBJECT_MAX + 1))), format!("Hash={hash}"));
    }

    #[test]
    fn no_subject_leaves_its_quotes() {
        let line = forwarded(Some("CN=a\\\"b\\\\,O=Zoë\r\n"));
        assert!(line.ends_with(";Subject=\"CN=a\\\"b\\\\,O=Zo\\c3\\ab\\0d\\0a\""), "{line}");
    }
}
