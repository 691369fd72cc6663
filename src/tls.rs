//! TLS towards clients: the proxy's certificates, the handshake with its deadline, and the decrypted byte stream.
//! [`client`] is the TLS client for apps behind https and for `pulsegate ping`.
//!
//! The TLS library is an implementation detail of this folder: [`ClientStream`] is a byte stream and a
//! [`Leg`](crate::relay::Leg), and [`Terminator`] makes one of a new TCP connection.

mod certificate;
mod challenge;
pub mod client;
mod contents;
mod fingerprint;
mod former;
mod identity;
mod leg;
mod on_demand;
mod plain;
mod records;
mod server_config;
mod sni;
mod sniff;
mod stream;
mod terminator;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use certificate::{Certificate, EXPIRY_NOTICE, Validity};
pub use former::{former_certificate, presented_certificate};
pub use identity::{Identity, IdentityError};
pub use leg::ClientLeg;
pub use plain::PlainStream;
pub use server_config::{ServerConfigError, ServerConfigs};
pub(crate) use sniff::try_close;
pub use stream::ClientStream;
pub use terminator::{HandshakeError, Terminator, TerminatorError};

/// Returns the cryptography provider for TLS 1.3 and 1.2: aws-lc-rs, with the hybrid post-quantum group X25519MLKEM768
/// first.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    Arc::new(CryptoProvider {
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
        ..aws_lc_rs::default_provider()
    })
}
