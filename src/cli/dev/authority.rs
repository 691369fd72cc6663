//! The certificate authority (CA) of `dev`, and the certificates that it issues.
//!
//! Without `--trust` its key is generated in memory and never written to a disk. Even if a whole machine trusts it, it is
//! valid for servers of this machine and private addresses alone, by the name constraints and the extended key usage of
//! its certificate (RFC 5280 §4.2.1.10 and §4.2.1.12).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData, SerialNumber, date_time_ymd,
};
use x509_cert::der::Decode;

use crate::tls::Identity;

/// The validity of certificates that are made for one run: longer than any run.
const RUN_VALIDITY: Duration = Duration::from_hours(30 * 24);
/// The validity of an authority that is kept; certificates of longer-lived ones are refused by some systems.
const KEPT_VALIDITY: Duration = Duration::from_hours(820 * 24);
/// The tolerance for clocks that differ, as in containers and virtual machines.
const SKEW: Duration = Duration::from_hours(1);

/// The extensions by which a certificate is limited: key usage, basic constraints, name constraints, extended key usage
/// (RFC 5280 §4.2.1).
const LIMITS: [&str; 4] = ["2.5.29.15", "2.5.29.19", "2.5.29.30", "2.5.29.37"];

/// The domain below which every name leads to the machine itself (RFC 6761 §6.3).
const LOCALHOST: &str = "localhost";

/// The addresses of a machine itself.
const LOOPBACK: [(IpAddr, u8); 2] = [(IpAddr::V4(Ipv4Addr::LOCALHOST), 8), (IpAddr::V6(Ipv6Addr::LOCALHOST), 128)];
/// The addresses that exist in local networks only (RFC 1918, RFC 3927, RFC 4193, RFC 4291 §2.5.6).
const PRIVATE: [(IpAddr, u8); 6] = [
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
];

/// An authority with its key.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The certificate in PEM.
    pem: String,
    /// The key of every certificate that it issues.
    leaf_key: KeyPair,
}

impl Authority {
    /// Generates an authority for one run, valid from about `now` for loopback and for `lan`.
    ///
    /// # Errors
    ///
    /// The system provides no random numbers.
    pub(super) fn for_one_run(now: SystemTime, lan: Option<Ipv4Addr>) -> Result<Self, rcgen::Error> {
        let lan = lan.map(|address| (IpAddr::V4(address), 32));
        let params = authority("pulsegate dev, one run only", LOOPBACK.into_iter().chain(lan));
        Self::new(dated(params, now, RUN_VALIDITY), KeyPair::generate()?)
    }

    /// Generates an authority that is to be kept, valid from about `now` for loopback and for private addresses.
    ///
    /// # Errors
    ///
    /// The system provides no random numbers.
    pub(super) fn to_keep(now: SystemTime) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let params = kept(&key);
        Self::new(dated(params, now, KEPT_VALIDITY), key)
    }

    /// Returns the authority with this key, which [`to_keep`](Self::to_keep) generated, and this certificate.
    ///
    /// # Errors
    ///
    /// The key cannot be parsed.
    pub(super) fn from_kept(key: &str, pem: String) -> Result<Self, rcgen::Error> {
        let key = KeyPair::from_pem(key)?;
        Ok(Self { issuer: Issuer::new(kept(&key), key), pem, leaf_key: KeyPair::generate()? })
    }

    fn new(params: CertificateParams, key: KeyPair) -> Result<Self, rcgen::Error> {
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem, leaf_key: KeyPair::generate()? })
    }

    /// Returns whether the certificate `der` has the limits that [`to_keep`](Self::to_keep) sets: its basic constraints,
    /// key usages and name constraints are those of a certificate that is made now.
    pub(super) fn is_limited(&self, der: &[u8]) -> bool {
        let ours = kept(self.issuer.key()).self_signed(self.issuer.key());
        ours.is_ok_and(|ours| limits(ours.der()).is_some_and(|ours| limits(der) == Some(ours)))
    }

    /// Returns its certificate in PEM.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns its key in PEM.
    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Issues a certificate for `localhost`, `127.0.0.1`, `::1` and `lan`.
    ///
    /// # Errors
    ///
    /// The certificate cannot be signed.
    pub(super) fn issue_for_machine(&self, now: SystemTime, lan: Option<Ipv4Addr>) -> anyhow::Result<Identity> {
        let names = [LOCALHOST, "127.0.0.1", "::1"].map(str::to_owned);
        self.issue(now, LOCALHOST, names.into_iter().chain(lan.map(|address| address.to_string())).collect())
    }

    /// Issues a certificate for `name`, if that is a name below `localhost`. A wildcard for all of them would not do:
    /// browsers refuse one directly below a top-level domain.
    pub(super) fn issue_below_localhost(&self, now: SystemTime, name: &str) -> Option<Identity> {
        let label = name.strip_suffix(LOCALHOST)?.strip_suffix('.')?;
        (!label.is_empty()).then(|| self.issue(now, name, vec![name.to_owned()]).ok()).flatten()
    }

    fn issue(&self, now: SystemTime, common_name: &str, names: Vec<String>) -> anyhow::Result<Identity> {
        let mut params = dated(CertificateParams::new(names)?, now, RUN_VALIDITY);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        // Derived from the key by default; browsers refuse two certificates of one authority with the same number.
        params.serial_number = Some(SerialNumber::from_slice(&fastrand::u128(1 << 120..1 << 126).to_be_bytes()));
        let leaf = params.signed_by(&self.leaf_key, &self.issuer)?;
        Identity::from_der(vec![leaf.der().to_vec()], self.leaf_key.serialize_der()).context("cannot use it")
    }
}

/// Returns whether an authority that is kept is valid for `address`.
pub(super) fn is_private(address: Ipv4Addr) -> bool {
    address.is_private() || address.is_link_local() || address.is_loopback()
}

/// Returns the certificate of an authority that is kept, without dates. Its name follows from its key, so that two of
/// them in one store can be told apart.
fn kept(key: &KeyPair) -> CertificateParams {
    let hash = digest(&SHA256, &key.subject_public_key_info());
    let name = data_encoding::HEXLOWER.encode(&hash.as_ref()[..4]);
    authority(&format!("pulsegate dev CA {name}"), LOOPBACK.into_iter().chain(PRIVATE))
}

/// Returns the extensions of a certificate that limit its use, each with its identifier and whether it is critical.
fn limits(der: &[u8]) -> Option<Vec<(String, bool, Vec<u8>)>> {
    let certificate = x509_cert::Certificate::from_der(der).ok()?;
    let extensions = certificate.tbs_certificate().extensions()?;
    let limits = extensions.iter().map(|it| (it.extn_id.to_string(), it.critical, it.extn_value.as_bytes().to_vec()));
    let mut limits: Vec<_> = limits.filter(|(id, ..)| LIMITS.contains(&id.as_str())).collect();
    limits.sort();
    Some(limits)
}

fn authority(name: &str, addresses: impl Iterator<Item = (IpAddr, u8)>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Of mail, code and clients it certifies nothing.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let names = GeneralSubtree::DnsName(LOCALHOST.into());
    let addresses =
        addresses.map(|(address, prefix)| GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, prefix)));
    let permitted_subtrees = std::iter::once(names).chain(addresses).collect();
    params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    params
}

fn dated(mut params: CertificateParams, now: SystemTime, validity: Duration) -> CertificateParams {
    let now = date_time_ymd(1970, 1, 1) + now.duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = now - SKEW;
    params.not_after = now + validity;
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_below_localhost_gets_a_certificate_and_no_other_name_does() {
        let authority = Authority::for_one_run(SystemTime::now(), None).expect("made");
        let issued = |name: &str| authority.issue_below_localhost(SystemTime::now(), name);
        for name in ["app.localhost", "a.b.localhost"] {
            assert!(issued(name).expect("issued").is_for(name), "{name}");
        }
        for name in ["localhost", ".localhost", "notlocalhost", "app.localhost.example.com", "example.com"] {
            assert!(issued(name).is_none(), "{name}");
        }
        let serial = |name: &str| issued(name).and_then(|identity| identity.renewal_id()).expect("it has one").1;
        assert_ne!(serial("a.localhost"), serial("b.localhost"), "browsers refuse a serial number that returns");
    }

    #[test]
    fn the_machine_s_certificate_has_the_address_of_the_lan_on_request() {
        let lan = Ipv4Addr::new(192, 168, 7, 5);
        for lan in [None, Some(lan)] {
            let authority = Authority::for_one_run(SystemTime::now(), lan).expect("made");
            let identity = authority.issue_for_machine(SystemTime::now(), lan).expect("issued");
            assert!(["localhost", "127.0.0.1", "::1"].iter().all(|name| identity.is_for(name)));
            assert_eq!(identity.is_for("192.168.7.5"), lan.is_some());
        }
    }

    #[test]
    fn a_kept_authority_is_the_same_after_a_restart() {
        let first = Authority::to_keep(SystemTime::now()).expect("made");
        let second = Authority::from_kept(&first.key_pem(), first.pem().to_owned()).expect("read");
        let issued = [&first, &second].map(|authority| {
            let identity = authority.issue_for_machine(SystemTime::now(), None).expect("issued");
            identity.renewal_id().expect("it names its authority").0
        });
        assert_eq!(issued[0], issued[1]);
    }

    #[test]
    fn an_authority_is_for_servers_and_its_limits_are_compared() {
        let authority = Authority::to_keep(SystemTime::now()).expect("made");
        let key = authority.issuer.key();
        let limits_of = |params: &CertificateParams| limits(params.self_signed(key).expect("signed").der());
        let ours = limits_of(&kept(key)).expect("it has limits");
        assert_eq!(ours.iter().map(|(id, ..)| id.as_str()).collect::<Vec<_>>(), LIMITS);
        let is_limited = |change: fn(&mut CertificateParams)| {
            let mut params = kept(key);
            change(&mut params);
            authority.is_limited(params.self_signed(key).expect("signed").der())
        };
        assert!(is_limited(|_| {}));
        assert!(!is_limited(|params| params.name_constraints = None));
        assert!(!is_limited(|params| params.extended_key_usages.clear()));
        assert!(!is_limited(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)));
        assert!(!authority.is_limited(b"no certificate"));
    }

    #[test]
    fn private_addresses_are_those_of_the_constraints() {
        let within = |address: Ipv4Addr| {
            LOOPBACK.iter().chain(&PRIVATE).any(|(network, prefix)| {
                ipnet::IpNet::new(*network, *prefix).is_ok_and(|network| network.contains(&IpAddr::V4(address)))
            })
        };
        for text in ["10.1.2.3", "172.16.0.1", "172.32.0.1", "192.168.1.1", "169.254.9.9", "127.0.0.9", "192.0.2.1"] {
            let address: Ipv4Addr = text.parse().expect("an address");
            assert_eq!(is_private(address), within(address), "{text}");
        }
    }
}
