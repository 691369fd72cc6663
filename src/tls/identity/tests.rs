//! Tests of the reading of certificates and keys.

use std::fs;

use rcgen::{CertificateParams, KeyPair};

use super::super::testing::certificate;
use super::*;

/// A folder of one test, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pulsegate-identity-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("write");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns a private key's certificate and the key, both as PEM.
fn pair() -> (String, String) {
    let key = KeyPair::generate().expect("key");
    (certificate(&key).pem(), key.serialize_pem())
}

/// Loads a chain and a key with these contents; the error must name the file `blamed` and contain `reason`.
#[track_caller]
fn assert_refused(test: &str, chain: &str, key: &str, blamed: &str, reason: &str) {
    let folder = Folder::new(test);
    let (chain, key) = (folder.write("chain.pem", chain), folder.write("key.pem", key));
    let error = Identity::from_pem_files(&chain, &key, &FileCache::default()).expect_err("refused").to_string();
    let blamed = folder.0.join(blamed).display().to_string();
    assert!(error.starts_with(&format!("{blamed}: ")), "{error:?} does not begin with the file {blamed}");
    assert!(error.contains(reason), "{error:?} does not say {reason:?}");
}

#[test]
fn a_matching_pair_is_taken_in_every_key_form() {
    let (chain, key) = pair();
    let folder = Folder::new("forms");
    let certificate = folder.write("chain.pem", &chain);
    let private_key = folder.write("key.pem", &key);
    let identity = Identity::from_pem_files(&certificate, &private_key, &FileCache::default()).expect("a pair");
    assert_eq!(identity.key.cert.len(), 1);

    // One file that holds both, as some tools write it, with comments between the sections.
    let both = folder.write("both.pem", &format!("Bag Attributes\n{key}\nsubject=localhost\n{chain}"));
    Identity::from_pem_files(&both, &both, &FileCache::default()).expect("a pair in one file");
}

#[test]
fn a_missing_file_is_named() {
    let (chain, key) = pair();
    let folder = Folder::new("missing");
    let there = folder.write("chain.pem", &chain);
    let missing = folder.0.join("nowhere.pem");
    let error =
        Identity::from_pem_files(&missing, &there, &FileCache::default()).expect_err("no certificate").to_string();
    assert!(error.contains("nowhere.pem") && error.contains("No such file"), "{error}");
    let error = Identity::from_pem_files(&there, &missing, &FileCache::default()).expect_err("no key").to_string();
    assert!(error.contains("nowhere.pem") && error.contains("No such file"), "{error}");
    drop(key);
}

#[test]
fn an_unreadable_file_is_named() {
    // A folder cannot be read as a file, not even by root.
    let folder = Folder::new("unreadable");
    let error =
        Identity::from_pem_files(&folder.0, &folder.0, &FileCache::default()).expect_err("a folder").to_string();
    assert!(error.starts_with(&folder.0.display().to_string()) && error.contains("cannot be read"), "{error}");
}

#[test]
fn a_chain_file_without_certificate_is_refused() {
    let (_, key) = pair();
    assert_refused("no-cert", &key, &key, "chain.pem", "no certificate");
    assert_refused("empty", "", &key, "chain.pem", "no certificate");
}

#[test]
fn a_key_file_without_key_is_refused() {
    let (chain, _) = pair();
    assert_refused("no-key", &chain, &chain, "key.pem", "no private key");
}

#[test]
fn damaged_pem_is_refused() {
    let (chain, key) = pair();
    let cut = &chain[..chain.len() / 2];
    assert_refused("cut", cut, &key, "chain.pem", "\"-----END CERTIFICATE-----\" is missing");
    let mangled = key.replacen("\nM", "\n*", 1);
    assert_ne!(mangled, key);
    assert_refused("base64", &chain, &mangled, "key.pem", "base64");
}

#[test]
fn a_certificate_that_is_none_is_refused() {
    let (_, key) = pair();
    let nonsense = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    assert_refused("no-x509", nonsense, &key, "chain.pem", "the first certificate cannot be used");
}

#[test]
fn a_key_that_is_none_is_refused() {
    let (chain, _) = pair();
    let nonsense = "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n";
    assert_refused("bad-key", &chain, nonsense, "key.pem", "the private key cannot be used");
}

#[test]
fn an_encrypted_key_is_refused_in_both_forms() {
    let (chain, _) = pair();
    let pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\naGVsbG8=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert_refused("pkcs8", &chain, pkcs8, "key.pem", "is encrypted");
    let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\naGVsbG8=\n\
                  -----END RSA PRIVATE KEY-----\n";
    assert_refused("legacy", &chain, legacy, "key.pem", "is encrypted");
}

#[test]
fn several_keys_are_refused() {
    let (chain, key) = pair();
    assert_refused("several", &chain, &format!("{key}{}", pair().1), "key.pem", "2 private keys");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (chain, key) = pair();
    let other = pair().1;
    assert_ne!(key, other);
    assert_refused("mismatch", &chain, &other, "key.pem", "does not belong to the certificate in");
    assert_refused("mismatch-named", &chain, &other, "key.pem", "chain.pem");
}

#[test]
fn a_chain_in_the_wrong_order_is_distinguished_from_a_mismatch() {
    let (leaf, key) = pair();
    let issuer = KeyPair::generate().expect("key");
    let issuer = CertificateParams::default().self_signed(&issuer).expect("certificate").pem();
    assert_refused("order", &format!("{issuer}{leaf}"), &key, "chain.pem", "certificate 2 of this file");
}

#[test]
fn what_is_made_in_memory_must_match_too() {
    let key = KeyPair::generate().expect("key");
    let other = KeyPair::generate().expect("key");
    let leaf = certificate(&key).der().to_vec();
    Identity::from_der(vec![leaf.clone()], key.serialize_der()).expect("a pair");
    let error = Identity::from_der(vec![leaf], other.serialize_der()).expect_err("no pair");
    assert!(matches!(error, IdentityError::Mismatch { .. }), "{error}");
    let error = Identity::from_der(Vec::new(), key.serialize_der()).expect_err("no chain");
    assert!(matches!(error, IdentityError::NoCertificate { .. }), "{error}");
}
