//! Classification of the contents of a file that should be PEM, so that an error can name the remedy.

use std::fmt;
use std::path::Path;

use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{Decode, Reader, SliceReader, Tag, Tagged};

/// The contents of a file, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// No bytes, or whitespace only.
    Nothing,
    /// PEM sections of this kind.
    Pem(PemKind),
    /// DER of this kind.
    Der(PemKind),
    /// Text in UTF-16, recognised by its byte order mark.
    Utf16,
    /// Anything else.
    Unknown,
}

/// The kinds of files that are mistaken for one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PemKind {
    /// An X.509 certificate.
    Certificate,
    /// A certificate in OpenSSL's own format, which adds trust settings.
    TrustedCertificate,
    /// A certificate signing request (RFC 2986).
    Request,
    /// A private key.
    PrivateKey,
    /// A private key that needs a passphrase.
    EncryptedPrivateKey,
    /// A private key in OpenSSH's format.
    OpenSshKey,
    /// A public key.
    PublicKey,
    /// A PKCS#7 file of certificates (RFC 2315).
    Pkcs7,
    /// A PKCS#12 archive of certificate and key (RFC 7292).
    Pkcs12,
}

/// The labels of PEM sections (RFC 7468) in order of precedence, searched in the whole file: in an EC key's file, for
/// instance, the parameters precede the key.
const LABELS: [(&str, PemKind); 12] = [
    ("ENCRYPTED PRIVATE KEY", PemKind::EncryptedPrivateKey),
    ("OPENSSH PRIVATE KEY", PemKind::OpenSshKey),
    ("PRIVATE KEY", PemKind::PrivateKey),
    ("RSA PRIVATE KEY", PemKind::PrivateKey),
    ("EC PRIVATE KEY", PemKind::PrivateKey),
    ("DSA PRIVATE KEY", PemKind::PrivateKey),
    ("CERTIFICATE", PemKind::Certificate),
    ("TRUSTED CERTIFICATE", PemKind::TrustedCertificate),
    ("CERTIFICATE REQUEST", PemKind::Request),
    ("NEW CERTIFICATE REQUEST", PemKind::Request),
    ("PUBLIC KEY", PemKind::PublicKey),
    ("PKCS7", PemKind::Pkcs7),
];

/// The PKCS#7 content type `signedData` (RFC 2315 §14), used for files of certificates.
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");

impl Contents {
    /// Returns the kind of `bytes`.
    pub(super) fn of(bytes: &[u8]) -> Self {
        if bytes.trim_ascii().is_empty() {
            return Self::Nothing;
        }
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            return Self::Utf16;
        }
        let begins = |label: &str| contains(bytes, format!("-----BEGIN {label}-----").as_bytes());
        if let Some((_, kind)) = LABELS.iter().find(|(label, _)| begins(label)) {
            return Self::Pem(*kind);
        }
        der(bytes).map_or(Self::Unknown, Self::Der)
    }

    /// Returns the command that converts `file` to PEM, or another remedy where one is known. `expected` is
    /// [`PemKind::Certificate`] or [`PemKind::PrivateKey`].
    pub(super) fn remedy(self, expected: PemKind, file: &Path) -> Option<String> {
        let file = file.display();
        let is_key = expected == PemKind::PrivateKey;
        let out = if is_key { "tls.key" } else { "tls.crt" };
        let made = |command: String| Some(format!("convert it: {command}"));
        match self {
            Self::Pem(kind) | Self::Der(kind) if kind.is_certificate() && is_key || kind.is_key() && !is_key => {
                Some("are the two swapped? `certificate` names the chain, `private_key` its key".to_owned())
            }
            Self::Der(PemKind::Certificate) => made(format!("openssl x509 -inform DER -in {file} -out {out}")),
            Self::Der(PemKind::PrivateKey) => made(format!("openssl pkey -inform DER -in {file} -out {out}")),
            Self::Pem(PemKind::TrustedCertificate) => made(format!("openssl x509 -in {file} -out {out}")),
            Self::Der(PemKind::Pkcs12) if is_key => {
                made(format!("openssl pkcs12 -in {file} -nocerts -nodes -out {out}"))
            }
            Self::Der(PemKind::Pkcs12) => made(format!("openssl pkcs12 -in {file} -nokeys -out {out}")),
            Self::Pem(PemKind::Pkcs7) if !is_key => made(format!("openssl pkcs7 -print_certs -in {file} -out {out}")),
            Self::Der(PemKind::Pkcs7) if !is_key => {
                made(format!("openssl pkcs7 -inform DER -print_certs -in {file} -out {out}"))
            }
            Self::Pem(PemKind::Request) | Self::Der(PemKind::Request) if is_key => {
                Some("name the key that was made with this request".to_owned())
            }
            Self::Pem(PemKind::Request) | Self::Der(PemKind::Request) => {
                Some("name the certificate that the authority returned for this request".to_owned())
            }
            Self::Pem(PemKind::EncryptedPrivateKey) => Some(format!("decrypt it: openssl pkey -in {file} -out {out}")),
            Self::Der(PemKind::EncryptedPrivateKey) => {
                Some(format!("decrypt it: openssl pkey -inform DER -in {file} -out {out}"))
            }
            Self::Pem(PemKind::OpenSshKey) => Some(format!("it is for SSH; for TLS {NEW_KEY}")),
            Self::Pem(PemKind::PublicKey) | Self::Der(PemKind::PublicKey) if is_key => {
                Some("name the file of the private half".to_owned())
            }
            Self::Utf16 => Some("save it as plain ASCII".to_owned()),
            Self::Nothing => Some("write it again, and check that the disk is not full".to_owned()),
            _ if is_key => Some("a \"BEGIN PRIVATE KEY\" section is expected (PKCS#8, PKCS#1 or SEC1)".to_owned()),
            _ => Some("one or more \"BEGIN CERTIFICATE\" sections are expected, the server's own first".to_owned()),
        }
    }
}

impl PemKind {
    fn is_certificate(self) -> bool {
        matches!(self, Self::Certificate | Self::TrustedCertificate)
    }

    /// Returns whether it is a private key, encrypted or not, of a kind that TLS may use.
    pub(super) fn is_key(self) -> bool {
        matches!(self, Self::PrivateKey | Self::EncryptedPrivateKey)
    }
}

/// The command that creates a private key and a certificate signing request for it.
pub(super) const NEW_KEY: &str = "make a key and a request for its certificate: openssl req -new -newkey ec -pkeyopt \
                                  ec_paramgen_curve:P-256 -nodes -keyout tls.key -out tls.csr";

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("the file is empty"),
            Self::Pem(kind) => write!(f, "this is {kind}"),
            Self::Der(kind @ (PemKind::Pkcs12 | PemKind::Pkcs7)) => write!(f, "this is {kind}, and PEM is expected"),
            Self::Der(kind) => write!(f, "this is {kind} in DER, and PEM is expected"),
            Self::Utf16 => f.write_str("this is text in UTF-16, and PEM is ASCII"),
            Self::Unknown => f.write_str("this is not PEM"),
        }
    }
}

impl fmt::Display for PemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "a certificate",
            Self::TrustedCertificate => "a certificate in OpenSSL's own form",
            Self::Request => "a certificate signing request",
            Self::PrivateKey => "a private key",
            Self::EncryptedPrivateKey => "an encrypted private key",
            Self::OpenSshKey => "a key in OpenSSH's form",
            Self::PublicKey => "a public key",
            Self::Pkcs7 => "a PKCS#7 file",
            Self::Pkcs12 => "a PKCS#12 archive",
        })
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    memchr::memmem::find(bytes, wanted).is_some()
}

/// Returns the kind of the DER structure in `bytes`, judged by the ASN.1 tags of its fields.
fn der(bytes: &[u8]) -> Option<PemKind> {
    let fields = fields(bytes)?;
    let tags: Vec<Tag> = fields.iter().map(Tagged::tag).collect();
    // A private key and a PKCS#12 archive are recognised by their first fields: the later ones are optional.
    Some(match tags.as_slice() {
        [Tag::Integer, Tag::Sequence, Tag::OctetString, ..] | [Tag::Integer, Tag::OctetString, ..] => {
            PemKind::PrivateKey
        }
        [Tag::Integer, Tag::Integer, ..] if tags.len() >= 9 => PemKind::PrivateKey,
        [Tag::Integer, Tag::Sequence, ..] => PemKind::Pkcs12,
        [Tag::Sequence, Tag::OctetString] => PemKind::EncryptedPrivateKey,
        [Tag::Sequence, Tag::BitString] => PemKind::PublicKey,
        [Tag::ObjectIdentifier, ..] if oid(&fields[0]) == Some(SIGNED_DATA) => PemKind::Pkcs7,
        [Tag::Sequence, Tag::Sequence, Tag::BitString] => {
            // The first fields: a version in a request; in a certificate a version in [0], or a serial number and an
            // algorithm.
            let inner: Vec<Tag> = inner(&fields[0])?.iter().map(Tagged::tag).collect();
            match inner.as_slice() {
                [Tag::Integer, Tag::Sequence, Tag::Sequence, Tag::ContextSpecific { .. }] => PemKind::Request,
                _ => PemKind::Certificate,
            }
        }
        _ => return None,
    })
}

/// Returns algorithm, size or curve of an unsupported private key in DER; `None` for any other key.
pub(super) fn unusable_key(der: &[u8]) -> Option<String> {
    const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
    const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
    let fields = fields(der)?;
    match fields.as_slice() {
        // PKCS#8 (RFC 5208 §5).
        [_, algorithm, key, ..] if algorithm.tag() == Tag::Sequence => {
            let algorithm = inner(algorithm)?;
            match oid(algorithm.first()?)? {
                RSA => rsa(key.value()),
                EC => curve(&oid(algorithm.get(1)?)?),
                other => Some(name(&other)),
            }
        }
        // PKCS#1 (RFC 8017 §A.1.2).
        [_, modulus, ..] if modulus.tag() == Tag::Integer => rsa(der),
        // SEC1 (RFC 5915 §3): the curve is in the field with tag [0].
        [_, _, parameters, ..] => curve(&ObjectIdentifier::from_der(parameters.value()).ok()?),
        _ => None,
    }
}

/// Returns the size of an RSA key (RFC 8017 §A.1.2) outside the supported range, as text; `None` within it.
fn rsa(der: &[u8]) -> Option<String> {
    let fields = fields(der)?;
    let modulus = fields.get(1)?.value();
    let significant = modulus.iter().skip_while(|byte| **byte == 0).count();
    let bits = significant * 8;
    (!(2048..=8192).contains(&bits)).then(|| format!("RSA with {bits} bits; 2048 to 8192 bits are supported"))
}

fn curve(oid: &ObjectIdentifier) -> Option<String> {
    const SUPPORTED: [&str; 3] = ["1.2.840.10045.3.1.7", "1.3.132.0.34", "1.3.132.0.35"];
    let oid = oid.to_string();
    let name = match oid.as_str() {
        "1.3.132.0.10" => "secp256k1",
        "1.3.132.0.33" => "P-224",
        "1.3.36.3.3.2.8.1.1.7" => "brainpoolP256r1",
        "1.3.36.3.3.2.8.1.1.11" => "brainpoolP384r1",
        "1.3.36.3.3.2.8.1.1.13" => "brainpoolP512r1",
        other => other,
    };
    (!SUPPORTED.contains(&oid.as_str()))
        .then(|| format!("on the curve {name}; the curves P-256, P-384 and P-521 are supported"))
}

fn name(oid: &ObjectIdentifier) -> String {
    let oid = oid.to_string();
    let name = match oid.as_str() {
        "1.2.840.10040.4.1" => "DSA",
        "1.3.101.110" => "X25519, which signs nothing",
        "1.3.101.111" => "X448, which signs nothing",
        "1.3.101.113" => "Ed448",
        "1.2.840.113549.1.1.10" => "RSA for PSS alone",
        other => other,
    };
    format!("{name}; RSA, ECDSA and Ed25519 are supported")
}

fn oid(field: &AnyRef<'_>) -> Option<ObjectIdentifier> {
    field.decode_as::<ObjectIdentifier>().ok()
}

/// Returns the fields of the SEQUENCE at the start of `bytes`; `None` if `bytes` start with anything else.
fn fields(bytes: &[u8]) -> Option<Vec<AnyRef<'_>>> {
    let mut reader = SliceReader::new(bytes).ok()?;
    let all = AnyRef::decode(&mut reader).ok()?;
    (x509_cert::der::Tagged::tag(&all) == Tag::Sequence).then(|| elements(all.value()))?
}

/// Returns the fields of a nested SEQUENCE.
fn inner<'a>(field: &AnyRef<'a>) -> Option<Vec<AnyRef<'a>>> {
    elements(field.value())
}

fn elements(bytes: &[u8]) -> Option<Vec<AnyRef<'_>>> {
    let mut reader = SliceReader::new(bytes).ok()?;
    let mut all = Vec::new();
    while !reader.is_finished() {
        all.push(AnyRef::decode(&mut reader).ok()?);
    }
    Some(all)
}

#[cfg(test)]
mod tests;
