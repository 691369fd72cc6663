//! The terms of a port's handshakes: the certificates presented, the versions offered and the client certificates
//! accepted.

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, VerifierBuilderError};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SupportedProtocolVersion};
use thiserror::Error;

use super::certificate::Certificate;
use super::challenge::AlpnChallenges;
use super::client::{self, TrustError};
use super::former::former_certificate;
use super::identity::is_for;
use super::on_demand::OnDemandCertificates;
use super::sni::{SniResolver, UnknownSni};
use super::{Identity, IdentityError};
use crate::config::{self, ClientAuth, FileCache, TlsFault, TlsRole};

/// The certificates, versions, protocols and client authentication of all handshakes of a port.
#[derive(Debug)]
pub struct ServerConfigs {
    names: SniResolver,
    versions: &'static [&'static SupportedProtocolVersion],
    clients: ClientVerification,
    certificates: Vec<Certificate>,
    damage: Option<IdentityError>,
    http2: bool,
}

/// The client certificates that are accepted.
#[derive(Clone, Debug)]
pub(super) enum ClientVerification {
    Nothing,
    Certificate { authorities: Arc<RootCertStore>, optional: bool },
}

/// The reason for which [`ServerConfigs`] cannot be made. Each names the file and its fault.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerConfigError {
    /// A fault of one of the proxy's own certificates, or of its key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A certificate that does not cover a name for which it is configured; clients would refuse it.
    #[error(
        "{}: this certificate is not for {name:?}, which [[tls.sni]] presents it for; a client would refuse it",
        certificate.display()
    )]
    NotForName {
        /// The file.
        certificate: PathBuf,
        /// The name, as configured.
        name: Box<str>,
        /// The names that the certificate covers.
        names: Vec<String>,
    },
    /// A fault of the file of authorities for client certificates.
    #[error("{error}{}", because(.error))]
    Authorities {
        /// The fault of that file.
        error: TrustError,
    },
}

impl From<&ServerConfigError> for TlsFault {
    fn from(error: &ServerConfigError) -> Self {
        match error {
            ServerConfigError::Identity(error) => error.into(),
            ServerConfigError::NotForName { certificate, name, names } => {
                let has =
                    if names.is_empty() { "it has none".to_owned() } else { format!("it is for {}", names.join(", ")) };
                Self {
                    role: TlsRole::Certificate,
                    file: certificate.clone(),
                    what: error.to_string(),
                    help: Some(format!("{has}: leave out {name:?}, or use a certificate with that subjectAltName")),
                }
            }
            ServerConfigError::Authorities { error } => Self::from(error),
        }
    }
}

fn because(error: &TrustError) -> String {
    error.source().map_or_else(String::new, |source| format!(": {source}"))
}

/// All supported versions.
static VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
/// The versions with `modern` set.
static MODERN: [&SupportedProtocolVersion; 1] = [&TLS13];

/// Presents one certificate for every name, offers TLS 1.3 and 1.2, and asks for no client certificate.
impl From<Identity> for ServerConfigs {
    fn from(identity: Identity) -> Self {
        let certificates = identity.certificate(None, &[]).into_iter().collect();
        let names = SniResolver::new(identity.key, UnknownSni::Served);
        Self {
            names,
            versions: &VERSIONS,
            clients: ClientVerification::Nothing,
            certificates,
            damage: None,
            http2: true,
        }
    }
}

impl ServerConfigs {
    /// Reads all files that `settings` names, through `cache`, and checks that they fit together.
    pub fn from_pem_files(settings: &config::TlsSettings, cache: &FileCache) -> Result<Self, ServerConfigError> {
        let strangers = if settings.strict_sni { UnknownSni::Refused } else { UnknownSni::Served };
        let DefaultCertificate { presented: default, damage } = default_certificate(settings, cache)?;
        let of_default = default.as_ref().and_then(|(file, own)| own.certificate(Some(file), &[]));
        let mut certificates: Vec<_> = of_default.into_iter().collect();
        let challenges = settings.acme.as_deref().and_then(AlpnChallenges::of);
        let mut names = SniResolver::new(default.map(|(_, own)| own.key), strangers).with_challenges(challenges);
        for named in &settings.sni {
            let identity = Identity::from_pem_files(&named.certificate, &named.private_key, cache)?;
            certificates.extend(identity.certificate(Some(&named.certificate), &named.names));
            check_names(&identity, named)?;
            for name in &named.names {
                names.add(name, &identity.key);
            }
        }
        let clients = match &settings.client_auth {
            ClientAuth::Off => ClientVerification::Nothing,
            ClientAuth::Optional(ca) => ClientVerification::of(ca, true, cache)?,
            ClientAuth::Required(ca) => ClientVerification::of(ca, false, cache)?,
        };
        let versions: &'static [&'static SupportedProtocolVersion] = if settings.modern { &MODERN } else { &VERSIONS };
        Ok(Self { names, versions, clients, certificates, damage, http2: true })
    }

    /// Returns the faults of all files that `settings` names; empty if [`from_pem_files`](Self::from_pem_files)
    /// succeeds.
    pub fn faults(settings: &config::TlsSettings, cache: &FileCache) -> Vec<TlsFault> {
        let default = match &settings.acme {
            Some(_) => default_certificate(settings, cache).err().map(|error| vec![error]),
            None => Identity::faults(&settings.certificate, &settings.private_key, cache).err(),
        };
        let of_default = |error: &IdentityError| match error {
            // The file is pulsegate's own: its folder is what the configuration names.
            IdentityError::Read { file, .. } if settings.acme.is_some() => {
                let help = "let the user that pulsegate runs as write in its folder, or set it to another folder";
                let (file, what) = (file.clone(), error.to_string());
                TlsFault { role: TlsRole::Storage, file, what, help: Some(help.to_owned()) }
            }
            error => error.into(),
        };
        let mut faults: Vec<TlsFault> = default.iter().flatten().map(of_default).collect();
        for named in &settings.sni {
            match Identity::faults(&named.certificate, &named.private_key, cache) {
                Ok(identity) => faults.extend(check_names(&identity, named).err().as_ref().map(TlsFault::from)),
                Err(errors) => faults.extend(errors.iter().map(TlsFault::from)),
            }
        }
        if let ClientAuth::Optional(ca) | ClientAuth::Required(ca) = &settings.client_auth {
            faults.extend(client::roots_of(ca, cache).err().as_ref().map(TlsFault::from));
        }
        if let Some(ca) = settings.acme.as_ref().and_then(|acme| acme.ca.as_ref()) {
            faults.extend(client::roots_of(ca, cache).err().as_ref().map(TlsFault::from));
        }
        faults
    }

    /// Takes the damage of the file of a certificate that an authority issued; another certificate is ordered in its place.
    /// `None` if it is sound or missing.
    pub fn take_damage(&mut self) -> Option<IdentityError> {
        self.damage.take()
    }

    /// Sets whether ALPN (RFC 7301) offers HTTP/2 besides HTTP/1.1.
    #[must_use]
    pub fn with_http2(self, http2: bool) -> Self {
        Self { http2, ..self }
    }

    /// Presents, for a server name that `issue` has a certificate for, that one. It is issued at the first handshake for the
    /// name, and kept.
    #[must_use]
    pub fn with_on_demand(self, issue: impl Fn(&str) -> Option<Identity> + Send + Sync + 'static) -> Self {
        Self { names: self.names.with_on_demand(OnDemandCertificates::new(issue)), ..self }
    }

    /// Converts the terms into their parts, for the configuration of the TLS library.
    pub(super) fn into_parts(self) -> Result<Parts, VerifierBuilderError> {
        let Self { names, versions, clients, certificates, http2, damage: _ } = self;
        let verifier: Arc<dyn ClientCertVerifier> = match &clients {
            ClientVerification::Nothing => Arc::new(NoClientAuth),
            ClientVerification::Certificate { authorities, optional } => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(authorities), super::provider());
                if *optional { verifier.allow_unauthenticated().build()? } else { verifier.build()? }
            }
        };
        Ok(Parts { names, versions, clients, verifier, certificates, http2 })
    }
}

/// The certificate for all names.
struct DefaultCertificate {
    /// The certificate and its file; `None` if it is one that an authority has yet to issue.
    presented: Option<(PathBuf, Identity)>,
    /// The damage of the file of one that an authority issued.
    damage: Option<IdentityError>,
}

/// Reads the certificate for all names. Where an authority issues it, another stands in for one that is missing or damaged.
///
/// # Errors
///
/// It cannot be read, or used and no authority issues it.
fn default_certificate(settings: &config::TlsSettings, cache: &FileCache) -> Result<DefaultCertificate, IdentityError> {
    use io::ErrorKind::{NotADirectory, NotFound};
    let own = Identity::from_pem_files(&settings.certificate, &settings.private_key, cache);
    let (error, acme) = match (own, &settings.acme) {
        (Ok(own), _) => {
            return Ok(DefaultCertificate { presented: Some((settings.certificate.clone(), own)), damage: None });
        }
        (Err(error), None) => return Err(error),
        (Err(error), Some(acme)) => (error, acme),
    };
    let damage = match error {
        IdentityError::Read { ref source, .. } if matches!(source.kind(), NotFound | NotADirectory) => None,
        IdentityError::Read { .. } => return Err(error),
        damage => Some(damage),
    };
    Ok(DefaultCertificate { presented: former_certificate(acme), damage })
}

/// Checks that `identity` covers all names for which it is configured.
fn check_names(identity: &Identity, named: &config::SniCertificate) -> Result<(), ServerConfigError> {
    let uncovered = named.names.iter().find(|name| !is_for(&identity.key, &name.replacen('*', "any", 1)));
    match uncovered {
        None => Ok(()),
        Some(name) => {
            let present = identity.certificate(None, &[]).map(|certificate| certificate.names).unwrap_or_default();
            Err(ServerConfigError::NotForName {
                certificate: named.certificate.clone(),
                name: name.clone(),
                names: present,
            })
        }
    }
}

/// The parts of [`ServerConfigs`].
pub(super) struct Parts {
    pub(super) names: SniResolver,
    pub(super) versions: &'static [&'static SupportedProtocolVersion],
    pub(super) clients: ClientVerification,
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) certificates: Vec<Certificate>,
    pub(super) http2: bool,
}

impl ClientVerification {
    /// Returns whether `other` accepts the same client certificates, and requires one under the same condition.
    pub(super) fn equal(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nothing, Self::Nothing) => true,
            (
                Self::Certificate { authorities, optional },
                Self::Certificate { authorities: theirs, optional: theirs_optional },
            ) => optional == theirs_optional && authorities.roots == theirs.roots,
            _ => false,
        }
    }

    fn of(ca: &Path, optional: bool, cache: &FileCache) -> Result<Self, ServerConfigError> {
        let authorities =
            Arc::new(client::roots_of(ca, cache).map_err(|error| ServerConfigError::Authorities { error })?);
        Ok(Self::Certificate { authorities, optional })
    }
}

#[cfg(test)]
mod tests;
