//! Compiled under `#[cfg(test)]` only.
//!
//! The error for each kind of file that is mistaken for another.

use std::fs;
use std::path::PathBuf;

use insta::assert_snapshot;
use tempfile::TempDir;

use super::super::{Identity, testing::certificate};
use super::*;
use crate::config::{FileCache, TlsFault};

/// The folder of files made by OpenSSL; README.md in it lists the commands.
const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls-files");

/// A temporary folder with a certificate and its private key.
struct Folder {
    dir: TempDir,
    certificate: PathBuf,
    key: PathBuf,
}

impl Folder {
    fn new() -> Self {
        let dir = TempDir::new().expect("a folder");
        let pair = rcgen::KeyPair::generate().expect("a key");
        let (certificate_file, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        fs::write(&certificate_file, certificate(&pair).pem()).expect("write");
        fs::write(&key, pair.serialize_pem()).expect("write");
        Self { dir, certificate: certificate_file, key }
    }

    /// Returns the faults of `bytes` as certificate and as private key, each followed by its remedy.
    fn both(&self, name: &str, bytes: &[u8]) -> String {
        let file = self.dir.path().join(name);
        fs::write(&file, bytes).expect("write");
        format!("{}\n{}", self.said(&file, &self.key), self.said(&self.certificate, &file))
    }

    /// Returns the faults of a file in `FILES` as private key.
    fn key_of(&self, name: &str) -> String {
        self.said(&self.certificate, &PathBuf::from(FILES).join(name))
    }

    fn said(&self, certificate: &Path, key: &Path) -> String {
        let errors = Identity::faults(certificate, key, &FileCache::default()).expect_err("refused");
        let faults = errors.iter().map(TlsFault::from).map(|fault| {
            let TlsFault { role, what, help, .. } = fault;
            format!("{role:?}: {what}\n    {}", help.expect("a remedy"))
        });
        let said = faults.collect::<Vec<_>>().join("\n");
        said.replace(&self.dir.path().display().to_string(), "DIR").replace(FILES, "DIR")
    }
}

fn file(name: &str) -> Vec<u8> {
    fs::read(PathBuf::from(FILES).join(name)).expect(name)
}

fn pem(label: &str) -> Vec<u8> {
    format!("-----BEGIN {label}-----\naGVsbG8=\n-----END {label}-----\n").into_bytes()
}

#[test]
fn a_pair_that_is_swapped_is_asked_about() {
    let folder = Folder::new();
    assert_snapshot!(folder.said(&folder.key, &folder.certificate), @"
    Certificate: DIR/tls.key: no certificate in this file: this is a private key
        are the two swapped? `certificate` names the chain, `private_key` its key
    PrivateKey: DIR/tls.crt: no private key in this file: this is a certificate
        are the two swapped? `certificate` names the chain, `private_key` its key
    ");
}

#[test]
fn binary_files_come_with_the_command_that_makes_pem_of_them() {
    let folder = Folder::new();
    assert_snapshot!(folder.both("tls.der", &file("certificate.der")), @"
    Certificate: DIR/tls.der: no certificate in this file: this is a certificate in DER, and PEM is expected
        convert it: openssl x509 -inform DER -in DIR/tls.der -out tls.crt
    PrivateKey: DIR/tls.der: no private key in this file: this is a certificate in DER, and PEM is expected
        are the two swapped? `certificate` names the chain, `private_key` its key
    ");
    assert_snapshot!(folder.both("key.der", &file("key.der")), @"
    Certificate: DIR/key.der: no certificate in this file: this is a private key in DER, and PEM is expected
        are the two swapped? `certificate` names the chain, `private_key` its key
    PrivateKey: DIR/key.der: no private key in this file: this is a private key in DER, and PEM is expected
        convert it: openssl pkey -inform DER -in DIR/key.der -out tls.key
    ");
    assert_snapshot!(folder.both("old-key.der", &file("sec1-key.der")), @"
    Certificate: DIR/old-key.der: no certificate in this file: this is a private key in DER, and PEM is expected
        are the two swapped? `certificate` names the chain, `private_key` its key
    PrivateKey: DIR/old-key.der: no private key in this file: this is a private key in DER, and PEM is expected
        convert it: openssl pkey -inform DER -in DIR/old-key.der -out tls.key
    ");
    assert_snapshot!(folder.both("rsa-key.der", &file("pkcs1-key.der")), @"
    Certificate: DIR/rsa-key.der: no certificate in this file: this is a private key in DER, and PEM is expected
        are the two swapped? `certificate` names the chain, `private_key` its key
    PrivateKey: DIR/rsa-key.der: no private key in this file: this is a private key in DER, and PEM is expected
        convert it: openssl pkey -inform DER -in DIR/rsa-key.der -out tls.key
    ");
    assert_snapshot!(folder.both("encrypted.der", &file("encrypted-key.der")), @"
    Certificate: DIR/encrypted.der: no certificate in this file: this is an encrypted private key in DER, and PEM is expected
        are the two swapped? `certificate` names the chain, `private_key` its key
    PrivateKey: DIR/encrypted.der: no private key in this file: this is an encrypted private key in DER, and PEM is expected
        decrypt it: openssl pkey -inform DER -in DIR/encrypted.der -out tls.key
    ");
    assert_snapshot!(folder.both("tls.p12", &file("archive.p12")), @"
    Certificate: DIR/tls.p12: no certificate in this file: this is a PKCS#12 archive, and PEM is expected
        convert it: openssl pkcs12 -in DIR/tls.p12 -nokeys -out tls.crt
    PrivateKey: DIR/tls.p12: no private key in this file: this is a PKCS#12 archive, and PEM is expected
        convert it: openssl pkcs12 -in DIR/tls.p12 -nocerts -nodes -out tls.key
    ");
    assert_snapshot!(folder.both("tls.p7b", &file("chain.p7b.der")), @r#"
    Certificate: DIR/tls.p7b: no certificate in this file: this is a PKCS#7 file, and PEM is expected
        convert it: openssl pkcs7 -inform DER -print_certs -in DIR/tls.p7b -out tls.crt
    PrivateKey: DIR/tls.p7b: no private key in this file: this is a PKCS#7 file, and PEM is expected
        a "BEGIN PRIVATE KEY" section is expected (PKCS#8, PKCS#1 or SEC1)
    "#);
    assert_snapshot!(folder.both("request.der", &file("request.der")), @"
    Certificate: DIR/request.der: no certificate in this file: this is a certificate signing request in DER, and PEM is expected
        name the certificate that the authority returned for this request
    PrivateKey: DIR/request.der: no private key in this file: this is a certificate signing request in DER, and PEM is expected
        name the key that was made with this request
    ");
    assert_snapshot!(folder.both("public.der", &file("public-key.der")), @r#"
    Certificate: DIR/public.der: no certificate in this file: this is a public key in DER, and PEM is expected
        one or more "BEGIN CERTIFICATE" sections are expected, the server's own first
    PrivateKey: DIR/public.der: no private key in this file: this is a public key in DER, and PEM is expected
        name the file of the private half
    "#);
}

#[test]
fn text_of_another_kind_is_named() {
    let folder = Folder::new();
    assert_snapshot!(folder.both("encrypted.key", &pem("ENCRYPTED PRIVATE KEY")), @"
    Certificate: DIR/encrypted.key: no certificate in this file: this is an encrypted private key
        are the two swapped? `certificate` names the chain, `private_key` its key
    PrivateKey: DIR/encrypted.key: the private key is encrypted
        decrypt it: openssl pkey -in DIR/encrypted.key -out tls.key
    ");
    assert_snapshot!(folder.both("tls.csr", &pem("CERTIFICATE REQUEST")), @"
    Certificate: DIR/tls.csr: no certificate in this file: this is a certificate signing request
        name the certificate that the authority returned for this request
    PrivateKey: DIR/tls.csr: no private key in this file: this is a certificate signing request
        name the key that was made with this request
    ");
    assert_snapshot!(folder.both("public.key", &pem("PUBLIC KEY")), @r#"
    Certificate: DIR/public.key: no certificate in this file: this is a public key
        one or more "BEGIN CERTIFICATE" sections are expected, the server's own first
    PrivateKey: DIR/public.key: no private key in this file: this is a public key
        name the file of the private half
    "#);
    assert_snapshot!(folder.both("id_ed25519", &pem("OPENSSH PRIVATE KEY")), @"
    Certificate: DIR/id_ed25519: no certificate in this file: this is a key in OpenSSH's form
        it is for SSH; for TLS make a key and a request for its certificate: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls.key -out tls.csr
    PrivateKey: DIR/id_ed25519: no private key in this file: this is a key in OpenSSH's form
        it is for SSH; for TLS make a key and a request for its certificate: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls.key -out tls.csr
    ");
    assert_snapshot!(folder.both("trusted.crt", &pem("TRUSTED CERTIFICATE")), @"
    Certificate: DIR/trusted.crt: no certificate in this file: this is a certificate in OpenSSL's own form
        convert it: openssl x509 -in DIR/trusted.crt -out tls.crt
    PrivateKey: DIR/trusted.crt: no private key in this file: this is a certificate in OpenSSL's own form
        are the two swapped? `certificate` names the chain, `private_key` its key
    ");
    assert_snapshot!(folder.both("tls.p7b", &pem("PKCS7")), @r#"
    Certificate: DIR/tls.p7b: no certificate in this file: this is a PKCS#7 file
        convert it: openssl pkcs7 -print_certs -in DIR/tls.p7b -out tls.crt
    PrivateKey: DIR/tls.p7b: no private key in this file: this is a PKCS#7 file
        a "BEGIN PRIVATE KEY" section is expected (PKCS#8, PKCS#1 or SEC1)
    "#);
    assert_snapshot!(folder.both("empty", b" \n"), @"
    Certificate: DIR/empty: no certificate in this file: the file is empty
        write it again, and check that the disk is not full
    PrivateKey: DIR/empty: no private key in this file: the file is empty
        write it again, and check that the disk is not full
    ");
    assert_snapshot!(folder.both("hello.txt", b"hello"), @r#"
    Certificate: DIR/hello.txt: no certificate in this file: this is not PEM
        one or more "BEGIN CERTIFICATE" sections are expected, the server's own first
    PrivateKey: DIR/hello.txt: no private key in this file: this is not PEM
        a "BEGIN PRIVATE KEY" section is expected (PKCS#8, PKCS#1 or SEC1)
    "#);
    let wide: Vec<u8> = "\u{feff}-----BEGIN".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_snapshot!(folder.both("wide.txt", &wide), @"
    Certificate: DIR/wide.txt: no certificate in this file: this is text in UTF-16, and PEM is ASCII
        save it as plain ASCII
    PrivateKey: DIR/wide.txt: no private key in this file: this is text in UTF-16, and PEM is ASCII
        save it as plain ASCII
    ");
}

#[test]
fn keys_that_are_not_supported_are_named_by_kind_size_and_curve() {
    let folder = Folder::new();
    assert_snapshot!(folder.key_of("rsa-1024.key"), @"
    PrivateKey: DIR/rsa-1024.key: the private key is RSA with 1024 bits; 2048 to 8192 bits are supported
        make a key and a request for its certificate: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls.key -out tls.csr
    ");
    assert_snapshot!(folder.key_of("rsa-1024-pkcs1.key"), @"
    PrivateKey: DIR/rsa-1024-pkcs1.key: the private key is RSA with 1024 bits; 2048 to 8192 bits are supported
        make a key and a request for its certificate: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls.key -out tls.csr
    ");
    assert_snapshot!(folder.key_of("secp256k1.key"), @"
    PrivateKey: DIR/secp256k1.key: the private key is on the curve secp256k1; the curves P-256, P-384 and P-521 are supported
        make a key and a request for its certificate: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls.key -out tls.csr
    ");
    assert_snapshot!(folder.key_of("secp256k1-sec1.key"), @"
    PrivateKey: DIR/secp256k1-sec1.key: the private key is on the curve secp256k1; the curves P-256, P-384 and P-521 are supported
        make a key and a request for its certificate: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls.key -out tls.csr
    ");
    assert_snapshot!(folder.key_of("ed448.key"), @"
    PrivateKey: DIR/ed448.key: the private key is Ed448; RSA, ECDSA and Ed25519 are supported
        make a key and a request for its certificate: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls.key -out tls.csr
    ");
    assert_snapshot!(folder.key_of("x25519.key"), @"
    PrivateKey: DIR/x25519.key: the private key is X25519, which signs nothing; RSA, ECDSA and Ed25519 are supported
        make a key and a request for its certificate: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls.key -out tls.csr
    ");
}

#[test]
fn other_faults_have_a_remedy_too() {
    let folder = Folder::new();
    let other = Folder::new();
    let missing = folder.dir.path().join("none.pem");
    assert_snapshot!(folder.said(&missing, &missing), @"
    Certificate: DIR/none.pem: cannot be read: No such file or directory (os error 2)
        check the path; relative ones start from the configuration's folder
    PrivateKey: DIR/none.pem: cannot be read: No such file or directory (os error 2)
        check the path; relative ones start from the configuration's folder
    ");
    assert_snapshot!(folder.said(folder.dir.path(), &folder.key), @"
    Certificate: DIR: cannot be read: Is a directory (os error 21)
        name the file, not its folder
    ");
    assert_snapshot!(folder.said(&folder.certificate, &other.key).replace(&other.dir.path().display().to_string(), "OTHER"), @"
    PrivateKey: OTHER/tls.key: this private key does not belong to the certificate in DIR/tls.crt
        compare the public keys: openssl x509 -in DIR/tls.crt -noout -pubkey, and openssl pkey -in OTHER/tls.key -pubout
    ");
    let both = fs::read_to_string(&folder.key).expect("a key") + &fs::read_to_string(&other.key).expect("a key");
    assert_snapshot!(folder.both("several.key", both.as_bytes()), @"
    Certificate: DIR/several.key: no certificate in this file: this is a private key
        are the two swapped? `certificate` names the chain, `private_key` its key
    PrivateKey: DIR/several.key: 2 private keys in this file
        keep the one that belongs to the certificate
    ");
    let cut = fs::read(&folder.certificate).expect("a certificate");
    assert_snapshot!(folder.both("cut.pem", &cut[..cut.len() / 2]), @r#"
    Certificate: DIR/cut.pem: damaged PEM: the line "-----END CERTIFICATE-----" is missing
        copy the file again: each section ends with its "-----END …-----" line
    PrivateKey: DIR/cut.pem: damaged PEM: the line "-----END CERTIFICATE-----" is missing
        copy the file again: each section ends with its "-----END …-----" line
    "#);
    assert_snapshot!(folder.both("bad.pem", &[pem("CERTIFICATE"), pem("PRIVATE KEY")].concat()), @"
    Certificate: DIR/bad.pem: the first certificate cannot be used: it is not valid X.509
        look at it: openssl x509 -in DIR/bad.pem -noout -text
    PrivateKey: DIR/bad.pem: the private key cannot be used: it is damaged, or of an unknown kind
        look at it: openssl pkey -in DIR/bad.pem -noout -check
    ");
}

#[test]
fn bytes_of_any_kind_are_classified_without_a_panic() {
    for name in ["certificate.der", "key.der", "archive.p12", "request.der"] {
        let bytes = file(name);
        for length in 0..bytes.len() {
            let _ = (Contents::of(&bytes[..length]), unusable_key(&bytes[..length]));
        }
        for at in 0..bytes.len().min(64) {
            for value in [0, 1, 0x30, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = (Contents::of(&changed), unusable_key(&changed));
            }
        }
    }
}
