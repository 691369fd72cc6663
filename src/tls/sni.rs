//! The choice of a certificate by the server name that a client sends (SNI, RFC 6066 §3).

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::AlertDescription;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::challenge::{self, AlpnChallenges};
use super::identity::is_for;
use super::on_demand::OnDemandCertificates;

/// The certificates of one configuration, by name.
#[derive(Debug)]
pub(super) struct SniResolver {
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// By the part after the `*`, with its leading dot; a wildcard stands for exactly one label (RFC 6125 §6.4.3).
    wildcards: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// `None` until the first certificate of an authority is there.
    default: Option<Arc<CertifiedKey>>,
    strangers: UnknownSni,
    challenges: Option<AlpnChallenges>,
    on_demand: Option<OnDemandCertificates>,
}

/// The treatment of clients that send no server name, or one without a certificate in `[[tls.sni]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnknownSni {
    /// The default certificate is presented.
    Served,
    /// The handshake is refused, unless the default certificate covers the name.
    Refused,
}

/// The server name of a handshake, and whether it was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestedName {
    /// The server name in lower case, otherwise as the client sent it; `None` if it sent none.
    pub(super) name: Option<Arc<str>>,
    /// Set if there was no certificate for it.
    pub(super) refused: bool,
}

thread_local! {
    /// The server name of the handshake in progress. rustls passes it to the resolver alone, which all connections
    /// share; the resolver stores it here, and the connection takes it right after the call, on the same thread.
    static ASKED: Cell<Option<RequestedName>> = const { Cell::new(None) };
}

/// Takes the server name that the resolver stored since the last call on this thread; `None` if no resolver ran.
pub(super) fn take_requested_name() -> Option<RequestedName> {
    ASKED.take()
}

impl SniResolver {
    pub(super) fn new(default: impl Into<Option<Arc<CertifiedKey>>>, strangers: UnknownSni) -> Self {
        let default = default.into();
        Self { exact: HashMap::new(), wildcards: HashMap::new(), default, strangers, challenges: None, on_demand: None }
    }

    /// Answers tls-alpn-01 challenges too.
    pub(super) fn with_challenges(self, challenges: Option<AlpnChallenges>) -> Self {
        Self { challenges, ..self }
    }

    /// Issues certificates for names without one.
    pub(super) fn with_on_demand(self, on_demand: OnDemandCertificates) -> Self {
        Self { on_demand: Some(on_demand), ..self }
    }

    /// Returns whether tls-alpn-01 challenges are answered.
    pub(super) fn answers_challenges(&self) -> bool {
        self.challenges.is_some()
    }

    /// Presents `key` to clients that ask for `name`, which is in lower case.
    pub(super) fn add(&mut self, name: &str, key: &Arc<CertifiedKey>) {
        match name.strip_prefix('*') {
            Some(suffix) => self.wildcards.insert(suffix.into(), Arc::clone(key)),
            None => self.exact.insert(name.into(), Arc::clone(key)),
        };
    }

    /// Returns the certificate for `name`. Exact names take precedence over wildcards, and wildcards over the default.
    fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let bare = name.map(|name| name.strip_suffix('.').unwrap_or(name));
        let named = bare.and_then(|name| {
            let wildcard = || self.wildcards.get(&name[name.find('.')?..]);
            self.exact.get(name).or_else(wildcard)
        });
        named.or_else(|| match self.strangers {
            UnknownSni::Served => self.default.as_ref(),
            UnknownSni::Refused => self.default.as_ref().filter(|key| bare.is_some_and(|name| is_for(key, name))),
        })
    }
}

impl ResolvesServerCert for SniResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        let challenges = self.challenges.as_ref().filter(|_| challenge::is_asked(&hello));
        let key = match challenges {
            Some(challenges) => name.and_then(|name| challenges.find(name)),
            None => {
                let on_demand = || self.on_demand.as_ref()?.find(name?);
                on_demand().or_else(|| self.find(name).map(Arc::clone))
            }
        };
        ASKED.set(Some(RequestedName { name: name.map(Arc::from), refused: key.is_none() }));
        key
    }
}

/// Replaces the alert at the end of `answer` with `unrecognized_name` if the handshake in progress was refused for its
/// server name; rustls sends `access_denied` whenever the resolver returns no certificate. Alerts at this point of the
/// handshake are unencrypted in every version.
pub(super) fn correct_alert(answer: &mut [u8]) {
    const LENGTH: [u8; 4] = [3, 0, 2, 2]; // minor version, two bytes of payload, fatal (RFC 8446 §5.1, §6)
    let asked = ASKED.take();
    let refused = asked.as_ref().is_some_and(|asked| asked.refused);
    ASKED.set(asked);
    if refused
        && let Some((description, before)) = answer.split_last_mut()
        && before.ends_with(&LENGTH)
        && *description == u8::from(AlertDescription::AccessDenied)
    {
        *description = AlertDescription::UnrecognisedName.into();
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::super::Identity;
    use super::*;

    fn key(names: &[&str]) -> Arc<CertifiedKey> {
        let key = KeyPair::generate().expect("key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).expect("valid names").self_signed(&key).expect("certificate");
        Identity::from_der(vec![certificate.der().to_vec()], key.serialize_der()).expect("a pair").key
    }

    /// Returns the set of names, and its certificates: the default, the exact name's and the wildcard's.
    fn names(strangers: UnknownSni) -> (SniResolver, [Arc<CertifiedKey>; 3]) {
        let keys = [key(&["default.example"]), key(&["a.b.example"]), key(&["*.b.example"])];
        let mut names = SniResolver::new(Arc::clone(&keys[0]), strangers);
        names.add("a.b.example", &keys[1]);
        names.add("*.b.example", &keys[2]);
        (names, keys)
    }

    fn found(names: &SniResolver, keys: &[Arc<CertifiedKey>], name: Option<&str>) -> Option<usize> {
        let found = names.find(name)?;
        keys.iter().position(|key| Arc::ptr_eq(key, found))
    }

    #[test]
    fn exact_comes_before_wildcard_before_default() {
        let (names, keys) = names(UnknownSni::Served);
        for (name, index) in [
            (Some("a.b.example"), 1),
            (Some("a.b.example."), 1),
            (Some("c.b.example"), 2),
            (Some("b.example"), 0),
            (Some("x.c.b.example"), 0),
            (Some("other.example"), 0),
            (Some("example"), 0),
            (None, 0),
        ] {
            assert_eq!(found(&names, &keys, name), Some(index), "{name:?}");
        }
    }

    #[test]
    fn unknown_names_may_be_refused_but_the_default_keeps_its_own_names() {
        let (names, keys) = names(UnknownSni::Refused);
        for (name, index) in [
            (Some("a.b.example"), Some(1)),
            (Some("c.b.example"), Some(2)),
            (Some("default.example"), Some(0)),
            (Some("x.c.b.example"), None),
            (Some("other.example"), None),
            (None, None),
        ] {
            assert_eq!(found(&names, &keys, name), index, "{name:?}");
        }
    }

    #[test]
    fn a_certificate_is_for_its_names_alone() {
        let wildcard = key(&["*.b.example"]);
        assert!(is_for(&wildcard, "a.b.example"));
        for name in ["b.example", "x.a.b.example", "c.example", "", "not a name"] {
            assert!(!is_for(&wildcard, name), "{name}");
        }
    }

    #[test]
    fn only_the_alert_of_a_refused_name_is_corrected() {
        let denied = [21, 3, 3, 0, 2, 2, 49];
        let corrected = |asked: Option<RequestedName>, answer: &[u8]| {
            ASKED.set(asked);
            let mut answer = answer.to_vec();
            correct_alert(&mut answer);
            ASKED.take();
            answer
        };
        let asked = |refused| Some(RequestedName { name: None, refused });
        assert_eq!(corrected(asked(true), &denied), [21, 3, 3, 0, 2, 2, 112]);
        assert_eq!(corrected(asked(false), &denied), denied);
        assert_eq!(corrected(None, &denied), denied);
        assert_eq!(corrected(asked(true), &[21, 3, 3, 0, 2, 2, 40]), [21, 3, 3, 0, 2, 2, 40]);
        assert_eq!(corrected(asked(true), &[49]), [49]);
    }
}
