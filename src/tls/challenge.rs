//! The handshake by which an authority sees that a name leads here: ALPN `acme-tls/1` (RFC 8737).
//!
//! The certificates for it are files that exist while an order is under way. Whichever replica of a host receives the
//! authority's connection finds them there.

use std::sync::Arc;

use rustls::server::ClientHello;
use rustls::sign::CertifiedKey;

use super::Identity;
use crate::config::{AcmeChallenge, AcmeSettings};

/// The ALPN protocol of the challenge.
pub(super) const PROTOCOL: &[u8] = b"acme-tls/1";

/// The certificates for challenges, by name.
#[derive(Debug)]
pub(super) struct AlpnChallenges(AcmeSettings);

impl AlpnChallenges {
    /// Returns the challenges for the names of `settings`; `None` if another kind of challenge is configured.
    pub(super) fn of(settings: &AcmeSettings) -> Option<Self> {
        (settings.challenge == AcmeChallenge::TlsAlpn01).then(|| Self(settings.clone()))
    }

    /// Returns the certificate for the challenge of `name`, if there is one now. Reads a small local file.
    pub(super) fn find(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        // Never a path that a client chooses.
        let domain = self.0.domains.iter().find(|domain| domain.eq_ignore_ascii_case(name))?;
        let file = self.0.tls_challenge(domain);
        let text = std::fs::read(&file).ok()?;
        Identity::for_challenge(&text, &file)
    }
}

/// Returns whether a client asks for nothing but the challenge (RFC 8737 §3).
pub(super) fn is_asked(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.next() == Some(PROTOCOL) && offered.next().is_none())
}
