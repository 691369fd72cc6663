//! One order, from the account to the certificate chain (RFC 8555 §7).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeHandle, ChallengeType,
    ExternalAccountKey, Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy, RevocationRequest,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};

use super::error::{OrderError, text};
use super::http_client::{AuthorityClient, RetryAfter};
use super::schedule::RenewalWindow;
use super::storage::{self, ChallengeFiles};
use crate::config::{AcmeChallenge, AcmeSettings, ExternalAccount};
use crate::tls::client::{TlsClient, Trust};
use crate::tls::{Certificate, Identity};

/// The waits between two looks at an order that the authority works on.
const POLLS: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_secs(120));

/// The identifier of a certificate towards its authority (RFC 9773 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RenewalId {
    authority_key: String,
    serial: String,
}

impl RenewalId {
    /// Returns the identifier of the certificate with this key identifier of its authority and this serial number.
    pub(super) fn of((authority_key, serial): (Vec<u8>, Vec<u8>)) -> Self {
        Self { authority_key: BASE64URL_NOPAD.encode(&authority_key), serial: BASE64URL_NOPAD.encode(&serial) }
    }

    fn in_library(&self) -> CertificateIdentifier<'_> {
        CertificateIdentifier {
            authority_key_identifier: Cow::Borrowed(&self.authority_key),
            serial: Cow::Borrowed(&self.serial),
        }
    }
}

/// The reason of a revocation (RFC 5280 §5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationReason {
    /// The private key is known to others.
    KeyCompromise,
    /// Another certificate takes its place.
    Superseded,
}

/// An account with an authority.
struct Client {
    account: Account,
    retry_after: RetryAfter,
}

/// Orders a certificate and puts it into the storage folder, in the place of the former one.
pub(super) async fn order(
    settings: &Arc<AcmeSettings>,
    replaces: Option<&RenewalId>,
) -> Result<Certificate, OrderError> {
    let client = Client::open(settings, IfMissing::Create).await?.ok_or(OrderError::Internal)?;
    let ordered = client.order(settings, replaces).await;
    if ordered.as_ref().is_err_and(OrderError::is_unknown_account) {
        // The next attempt makes a new one.
        let path = settings.account();
        storage::off_thread(move || std::fs::remove_file(path)).await;
    }
    ordered
}

/// Asks when the certificate `id` should be renewed, and how long this answer holds; `None` if the authority does not say.
pub(super) async fn renewal_window(
    settings: &Arc<AcmeSettings>,
    id: &RenewalId,
) -> Result<Option<(RenewalWindow, Duration)>, OrderError> {
    let Some(client) = Client::open(settings, IfMissing::Nothing).await? else { return Ok(None) };
    match client.account.renewal_info(&id.in_library()).await {
        Ok((info, pause)) => {
            let window = info.suggested_window;
            let (start, end) = (SystemTime::from(window.start), SystemTime::from(window.end));
            Ok(Some((RenewalWindow { start, end }, pause)))
        }
        Err(instant_acme::Error::Unsupported(_)) => Ok(None),
        Err(error) => Err(client.failure(error)),
    }
}

/// Revokes the certificate `leaf`, in DER, as the account that ordered it.
pub(super) async fn revoke(
    settings: &Arc<AcmeSettings>,
    leaf: &[u8],
    reason: RevocationReason,
) -> Result<(), OrderError> {
    let client = Client::open(settings, IfMissing::Nothing).await?.ok_or(OrderError::NoAccount)?;
    let reason = match reason {
        RevocationReason::KeyCompromise => instant_acme::RevocationReason::KeyCompromise,
        RevocationReason::Superseded => instant_acme::RevocationReason::Superseded,
    };
    let request = RevocationRequest { certificate: &leaf.into(), reason: Some(reason) };
    client.account.revoke(&request).await.map_err(|error| client.failure(error))
}

/// What to do where there is no account yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfMissing {
    Create,
    Nothing,
}

impl Client {
    /// Opens the account in the storage folder.
    async fn open(settings: &Arc<AcmeSettings>, if_missing: IfMissing) -> Result<Option<Self>, OrderError> {
        let retry_after = RetryAfter::default();
        let trust = settings.ca.clone().map_or(Trust::System, Trust::File);
        let tls = storage::off_thread(move || TlsClient::new(&trust, None)).await.ok_or(OrderError::Internal)??;
        let http = Box::new(AuthorityClient::new(tls, retry_after.clone()));
        let builder = Account::builder_with_http(http);
        let failure = |error| OrderError::of_library(error, retry_after.last());
        let path = settings.account();
        let stored = storage::off_thread(move || storage::read(&path)).await.ok_or(OrderError::Internal)??;
        // One that cannot be read is replaced.
        let stored = stored.and_then(|text| serde_json::from_slice::<AccountCredentials>(&text).ok());
        let account = match (stored, if_missing) {
            (Some(credentials), _) => builder.from_credentials(credentials).await.map_err(failure)?,
            (None, IfMissing::Nothing) => return Ok(None),
            (None, IfMissing::Create) => {
                let contact: Vec<&str> = settings.contact.iter().map(|url| &**url).collect();
                let account =
                    NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
                let external = match settings.external_account.clone() {
                    Some(external) => {
                        let key = storage::off_thread(move || external_key(&external)).await;
                        Some(key.ok_or(OrderError::Internal)??)
                    }
                    None => None,
                };
                let created = builder.create(&account, settings.directory.to_string(), external.as_ref()).await;
                let (account, credentials) = created.map_err(failure)?;
                let text = serde_json::to_vec(&credentials).map_err(|_| OrderError::Internal)?;
                let path = settings.account();
                storage::off_thread(move || storage::write(&path, &text)).await.ok_or(OrderError::Internal)??;
                tracing::info!(account = account.id(), directory = %settings.directory, "acme.account_created");
                account
            }
        };
        Ok(Some(Self { account, retry_after }))
    }

    fn failure(&self, error: instant_acme::Error) -> OrderError {
        OrderError::of_library(error, self.retry_after.last())
    }

    async fn order(
        &self,
        settings: &Arc<AcmeSettings>,
        replaces: Option<&RenewalId>,
    ) -> Result<Certificate, OrderError> {
        let names: Vec<Identifier> = settings.domains.iter().map(|name| Identifier::Dns(name.to_string())).collect();
        let mut wanted = NewOrder::new(&names);
        if let Some(id) = replaces {
            wanted = wanted.replaces(id.in_library());
        }
        let mut order = self.account.new_order(&wanted).await.map_err(|error| self.failure(error))?;
        let files = self.respond(&mut order, settings).await?;
        self.validated(&mut order, settings).await?;
        drop(files);
        let key = KeyPair::generate()?;
        let mut request = CertificateParams::new(settings.domains.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        request.distinguished_name = DistinguishedName::new();
        let request = request.serialize_request(&key)?;
        order.finalize_csr(request.der()).await.map_err(|error| self.failure(error))?;
        let chain = order.poll_certificate(&POLLS).await.map_err(|error| self.failure(error))?;
        let pem = format!("{}\n{}", chain.trim_end(), key.serialize_pem());
        let settings = Arc::clone(settings);
        storage::off_thread(move || store(&settings, pem.as_bytes())).await.ok_or(OrderError::Internal)?
    }

    /// Puts responses in place for all challenges that the order needs, and tells the authority so.
    async fn respond(&self, order: &mut Order, settings: &Arc<AcmeSettings>) -> Result<ChallengeFiles, OrderError> {
        let mut files = ChallengeFiles::default();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| self.failure(error))?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let domain = authorization.identifier().to_string();
            let offered: Vec<String> = authorization.challenges.iter().map(|one| format!("{:?}", one.r#type)).collect();
            let kind = match settings.challenge {
                AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
                AcmeChallenge::Http01 => ChallengeType::Http01,
            };
            let Some(mut challenge) = authorization.challenge(kind) else {
                let (challenge, offered) = (settings.challenge, offered.join(", "));
                return Err(OrderError::NoChallenge { domain, challenge, offered });
            };
            let (path, contents) = response(&challenge, &domain, settings)?;
            files.write(path, contents).await?;
            challenge.set_ready().await.map_err(|error| self.failure(error))?;
        }
        Ok(files)
    }

    /// Waits until the authority has seen that all names lead here.
    async fn validated(&self, order: &mut Order, settings: &AcmeSettings) -> Result<(), OrderError> {
        let waited = order.poll_ready(&POLLS).await;
        if let Ok(OrderStatus::Ready | OrderStatus::Valid) = waited {
            return Ok(());
        }
        // The reason stands with the challenge; the order often has none.
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            if authorization.refresh().await.is_err() || authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let domain = authorization.identifier().to_string();
            let failed = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref());
            if let Some(problem) = failed {
                return Err(OrderError::Challenge { domain, challenge: settings.challenge, detail: text(problem) });
            }
        }
        Err(match waited {
            Err(error) => self.failure(error),
            Ok(status) => OrderError::Response(format!("the order is {status:?}, without a reason")),
        })
    }
}

/// Returns the file of the response to a challenge, and what belongs there.
fn response(
    challenge: &ChallengeHandle<'_>,
    domain: &str,
    settings: &AcmeSettings,
) -> Result<(std::path::PathBuf, Vec<u8>), OrderError> {
    let authorization = challenge.key_authorization();
    match settings.challenge {
        AcmeChallenge::Http01 => {
            let path = settings.http_challenge(&challenge.token);
            let misfit = || OrderError::Response(format!("a token with other characters: {:?}", challenge.token));
            Ok((path.ok_or_else(misfit)?, authorization.as_str().as_bytes().to_vec()))
        }
        AcmeChallenge::TlsAlpn01 => {
            // A name of the configuration, and not one that the authority makes up: it is part of a path.
            let known = settings.domains.iter().find(|name| name.eq_ignore_ascii_case(domain));
            let misfit = || OrderError::Response(format!("a challenge for {domain:?}, which was not ordered"));
            let name = known.ok_or_else(misfit)?;
            Ok((
                settings.tls_challenge(name),
                challenge_certificate(name, authorization.digest().as_ref())?.into_bytes(),
            ))
        }
    }
}

/// Returns the certificate that shows control over `name`, with its key (RFC 8737 §3).
fn challenge_certificate(name: &str, digest: &[u8]) -> Result<String, OrderError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    Ok(format!("{}{}", params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Checks that the chain is one that can be presented, and stores it with its key.
fn store(settings: &AcmeSettings, pem: &[u8]) -> Result<Certificate, OrderError> {
    let path = settings.certificate();
    let identity = Identity::from_pem(pem, &path)?;
    let certificate = identity.leaf().ok_or_else(|| OrderError::Unfit("cannot be parsed".to_owned()))?;
    if let Some(name) = settings.domains.iter().find(|name| !identity.is_for(name)) {
        return Err(OrderError::Unfit(format!("is not for {name}")));
    }
    if certificate.not_after <= SystemTime::now() {
        let end = httpdate::fmt_http_date(certificate.not_after);
        return Err(OrderError::Unfit(format!("expired on {end}; check the clock of this machine")));
    }
    storage::write(&path, pem)?;
    tracing::debug!(fingerprint = HEXLOWER.encode(&certificate.fingerprint), "acme.stored");
    Ok(certificate)
}

/// Reads the MAC key of an external account.
fn external_key(account: &ExternalAccount) -> Result<ExternalAccountKey, OrderError> {
    let file = account.key_file.display();
    let text = std::fs::read_to_string(&account.key_file).map_err(|error| OrderError::ExternalAccount {
        what: format!("cannot read {file}: {error}"),
        help: "name a file that pulsegate can read",
    })?;
    let key = BASE64URL_NOPAD.decode(text.trim().trim_end_matches('=').as_bytes());
    match key {
        Ok(key) if !key.is_empty() => Ok(ExternalAccountKey::new(account.key_id.to_string(), &key)),
        _ => Err(OrderError::ExternalAccount {
            what: format!("{file} holds no key"),
            help: "put the MAC key there as the authority shows it, in base64url",
        }),
    }
}
