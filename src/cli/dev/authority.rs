//! A certificate authority for one run.
//!
//! Its key is generated in memory, signs one certificate and is dropped; it is never written to a disk. Even if a whole
//! machine trusts it, it is valid for loopback alone, by the name constraints of its certificate (RFC 5280 §4.2.1.10).

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
};

/// The validity of the certificates: longer than any run.
const VALIDITY: Duration = Duration::from_hours(30 * 24);
/// The tolerance for clocks that differ, as in containers and virtual machines.
const SKEW: Duration = Duration::from_hours(1);

/// The credentials of one run: a certificate for loopback, its key, and the authority to trust.
pub(super) struct Loopback {
    /// The authority's certificate in PEM.
    pub(super) authority: String,
    /// The certificate chain in DER, leaf first.
    pub(super) chain: Vec<Vec<u8>>,
    /// The leaf's key in PKCS#8 DER.
    pub(super) key: Vec<u8>,
}

impl Loopback {
    /// Generates an authority and a certificate for `localhost`, `127.0.0.1` and `::1`, valid from about `now`.
    pub(super) fn new(now: SystemTime) -> Result<Self, rcgen::Error> {
        let authority = CertifiedIssuer::self_signed(authority(now), KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let leaf = leaf(now)?.signed_by(&key, &authority)?;
        Ok(Self { authority: authority.pem(), chain: vec![leaf.der().to_vec()], key: key.serialize_der() })
    }
}

/// A file with the authority's certificate, for clients that should trust it.
#[derive(Debug)]
pub(super) struct Published {
    path: PathBuf,
    /// Set if the file is removed on drop.
    temporary: bool,
}

impl Published {
    /// Writes `pem` to `path` and leaves it there.
    pub(super) fn to(path: &Path, pem: &str) -> io::Result<Self> {
        replace(path, pem)?;
        Ok(Self { path: path.into(), temporary: false })
    }

    /// Writes `pem` to the machine's folder for temporary files until this is dropped. The name derives from the port,
    /// so that commands in a shell's history stay valid from one run to the next.
    pub(super) fn temporarily(port: u16, pem: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("pulsegate-dev-{port}.pem"));
        replace(&path, pem)?;
        Ok(Self { path, temporary: true })
    }

    /// Returns the path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        if self.temporary {
            // A file that is already gone counts as removed.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes `text` to `path` atomically. A symbolic link that another user left in a shared folder is replaced, not
/// followed.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:08x}", fastrand::u32(..)));
    let fresh = PathBuf::from(name);
    let written = File::create_new(&fresh).and_then(|mut file| file.write_all(text.as_bytes()));
    let placed = written.and_then(|()| fs::rename(&fresh, path));
    if placed.is_err() {
        // The first error is the one returned.
        let _ = fs::remove_file(&fresh);
    }
    placed
}

fn authority(now: SystemTime) -> CertificateParams {
    let mut params = dated(CertificateParams::default(), now);
    params.distinguished_name.push(DnType::CommonName, "pulsegate dev, one run only");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".into()),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(Ipv4Addr::LOCALHOST.into(), 8)),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(Ipv6Addr::LOCALHOST.into(), 128)),
        ],
        excluded_subtrees: Vec::new(),
    });
    params
}

fn leaf(now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut params = dated(CertificateParams::new(names)?, now);
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn dated(mut params: CertificateParams, now: SystemTime) -> CertificateParams {
    let now = date_time_ymd(1970, 1, 1) + now.duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = now - SKEW;
    params.not_after = now + VALIDITY;
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_replaces_a_link_and_is_taken_away_again() {
        let folder = std::env::temp_dir().join(format!("pulsegate-authority-{:016x}", fastrand::u64(..)));
        fs::create_dir(&folder).expect("a fresh folder");
        let (precious, path) = (folder.join("precious"), folder.join("ca.pem"));
        fs::write(&precious, "keep me").expect("written");
        std::os::unix::fs::symlink(&precious, &path).expect("linked");

        let published = Published::to(&path, "a certificate").expect("published");
        assert_eq!(fs::read_to_string(&precious).expect("still there"), "keep me");
        assert_eq!(fs::read_to_string(published.path()).expect("there"), "a certificate");
        drop(published);
        assert!(path.exists(), "what a person asked for stays");
        drop(Published { path: path.clone(), temporary: true });
        assert!(!path.exists(), "what nobody asked for goes");
        assert_eq!(fs::read_dir(&folder).expect("readable").count(), 1, "no half-written file is left");
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn a_folder_that_does_not_exist_is_an_error() {
        let path = Path::new("/nonexistent/folder/ca.pem");
        assert_eq!(Published::to(path, "").expect_err("no such folder").kind(), io::ErrorKind::NotFound);
    }
}
