//! One order, from the account to the certificate chain (RFC 8555 §7).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeHandle, ChallengeType,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy, RevocationRequest,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};

use super::error::{OrderError, issued, text};
use super::external_key;
use super::http_client::{AuthorityClient, LastRefusal};
use super::schedule::RenewalWindow;
use super::storage::{self, ChallengeFiles, OrderLock};
use crate::config::{AcmeChallenge, AcmeSettings, FileCache};
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
    last: LastRefusal,
}

/// The account in the storage folder.
enum StoredAccount {
    Known(Client),
    Missing,
    /// The file cannot be used.
    Damaged,
}

/// Orders a certificate and puts it into the storage folder, in the place of the former one. The holder of the lock calls it.
pub(super) async fn order(
    settings: &Arc<AcmeSettings>,
    replaces: Option<&RenewalId>,
    lock: &Arc<OrderLock>,
) -> Result<Certificate, OrderError> {
    let connection = Connection::open(settings).await?;
    let client = match connection.account(settings).await? {
        StoredAccount::Known(client) => client,
        StoredAccount::Missing => connection.new_account(settings).await?,
        StoredAccount::Damaged => {
            let (path, lock) = (settings.account(), Arc::clone(lock));
            let aside = storage::off_thread(move || storage::set_aside(&path, &lock)).await;
            let kept = aside.ok_or(OrderError::Internal)??;
            tracing::warn!(
                file = %settings.account().display(),
                kept = %kept.display(),
                mend = "another account is made: put a backup of the file in its place to keep the former",
                "acme.account_damaged"
            );
            connection.new_account(settings).await?
        }
    };
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
    let StoredAccount::Known(client) = Connection::open(settings).await?.account(settings).await? else {
        return Ok(None);
    };
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
    let path = settings.account();
    let client = match Connection::open(settings).await?.account(settings).await? {
        StoredAccount::Known(client) => client,
        StoredAccount::Missing => return Err(OrderError::NoAccount(format!("{} is missing", path.display()))),
        StoredAccount::Damaged => return Err(OrderError::NoAccount(format!("{} is damaged", path.display()))),
    };
    let reason = match reason {
        RevocationReason::KeyCompromise => instant_acme::RevocationReason::KeyCompromise,
        RevocationReason::Superseded => instant_acme::RevocationReason::Superseded,
    };
    let request = RevocationRequest { certificate: &leaf.into(), reason: Some(reason) };
    client.account.revoke(&request).await.map_err(|error| client.failure(error))
}

/// The way to an authority.
pub(super) struct Connection {
    pub(super) http: AuthorityClient,
    pub(super) last: LastRefusal,
}

impl Connection {
    /// Reads the authorities that may have signed the certificate of the directory.
    pub(super) async fn open(settings: &AcmeSettings) -> Result<Self, OrderError> {
        let last = LastRefusal::default();
        let trust = settings.ca.clone().map_or(Trust::System, Trust::File);
        let tls = storage::off_thread(move || TlsClient::new(&trust, None)).await.ok_or(OrderError::Internal)??;
        Ok(Self { http: AuthorityClient::new(tls, last.clone()), last })
    }

    /// Returns the client of `account`.
    fn client(&self, account: Account) -> Client {
        Client { account, last: self.last.clone() }
    }

    fn failure(&self, error: instant_acme::Error) -> OrderError {
        OrderError::of_library(error, self.last.details())
    }

    /// Reads the account in the storage folder.
    async fn account(&self, settings: &Arc<AcmeSettings>) -> Result<StoredAccount, OrderError> {
        use instant_acme::Error;
        let path = settings.account();
        let stored = storage::off_thread(move || storage::read(&path)).await.ok_or(OrderError::Internal)??;
        let Some(text) = stored else { return Ok(StoredAccount::Missing) };
        let Some(credentials) = credentials(&text, settings) else { return Ok(StoredAccount::Damaged) };
        let builder = Account::builder_with_http(Box::new(self.http.clone()));
        match builder.from_credentials(credentials).await {
            Ok(account) => Ok(StoredAccount::Known(self.client(account))),
            Err(Error::KeyRejected | Error::Crypto) => Ok(StoredAccount::Damaged),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// Makes an account and stores it.
    async fn new_account(&self, settings: &Arc<AcmeSettings>) -> Result<Client, OrderError> {
        let contact: Vec<&str> = settings.contact.iter().map(|url| &**url).collect();
        let account = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let external = match settings.external_account.clone() {
            Some(external) => {
                let key = storage::off_thread(move || external_key::read(&external, &FileCache::default())).await;
                Some(key.ok_or(OrderError::Internal)??)
            }
            None => None,
        };
        let builder = Account::builder_with_http(Box::new(self.http.clone()));
        let created = builder.create(&account, settings.directory.to_string(), external.as_ref()).await;
        let (account, credentials) = created.map_err(|error| self.failure(error))?;
        let text = serde_json::to_vec(&credentials).map_err(|_| OrderError::Internal)?;
        let path = settings.account();
        storage::off_thread(move || storage::write(&path, &text)).await.ok_or(OrderError::Internal)??;
        tracing::info!(account = account.id(), directory = %settings.directory, "acme.account_created");
        Ok(self.client(account))
    }
}

/// Returns the account in `text`; `None` if it is damaged. The folder belongs to one directory, whose URL is that of the
/// settings: the library takes any text for one.
fn credentials(text: &[u8], settings: &AcmeSettings) -> Option<AccountCredentials> {
    let mut account: serde_json::Value = serde_json::from_slice(text).ok()?;
    let fields = account.as_object_mut()?;
    fields.insert("directory".to_owned(), (&*settings.directory).into());
    serde_json::from_value(account).ok()
}

impl Client {
    fn failure(&self, error: instant_acme::Error) -> OrderError {
        OrderError::of_library(error, self.last.details())
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
            let offered: Vec<String> = authorization.challenges.iter().map(|one| name_of(&one.r#type)).collect();
            let kind = match settings.challenge {
                AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
                AcmeChallenge::Http01 => ChallengeType::Http01,
            };
            let Some(mut challenge) = authorization.challenge(kind) else {
                return Err(OrderError::NoChallenge { domain, challenge: settings.challenge, offered });
            };
            let (path, contents) = response(&challenge, &domain, settings)?;
            files.write(path, contents).await?;
            if let Err(error) = challenge.set_ready().await {
                // An authority that looks at once has the result in this very response.
                let error = self.failure(error);
                return Err(failed_challenge(order, settings).await.unwrap_or(error));
            }
        }
        Ok(files)
    }

    /// Waits until the authority has seen that all names lead here.
    async fn validated(&self, order: &mut Order, settings: &AcmeSettings) -> Result<(), OrderError> {
        let error = match order.poll_ready(&POLLS).await {
            Ok(OrderStatus::Ready | OrderStatus::Valid) => return Ok(()),
            Ok(status) => OrderError::Response(format!("the order is {status:?}, without a reason")),
            Err(error) => self.failure(error),
        };
        Err(failed_challenge(order, settings).await.unwrap_or(error))
    }
}

/// Returns why a challenge of the order has failed: the reason stands with the challenge, and the order often has none.
async fn failed_challenge(order: &mut Order, settings: &AcmeSettings) -> Option<OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() || authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let domain = authorization.identifier().to_string();
        let failed = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = failed {
            return Some(OrderError::Challenge { domain, challenge: settings.challenge, detail: text(problem) });
        }
    }
    None
}

/// Returns the name of a challenge in the protocol.
fn name_of(kind: &ChallengeType) -> String {
    match kind {
        ChallengeType::Http01 => "http-01",
        ChallengeType::Dns01 => "dns-01",
        ChallengeType::TlsAlpn01 => "tls-alpn-01",
        ChallengeType::DeviceAttest01 => "device-attest-01",
        ChallengeType::Unknown(name) => name,
        _ => "another",
    }
    .to_owned()
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
    let identity = Identity::from_pem(pem, &path).map_err(|error| issued(&error))?;
    let certificate = identity.leaf().ok_or_else(|| OrderError::Issued("it cannot be parsed".to_owned()))?;
    if let Some(name) = settings.domains.iter().find(|name| !identity.is_for(name)) {
        return Err(OrderError::Issued(format!("it is not for {name}")));
    }
    if certificate.not_after <= SystemTime::now() {
        let end = httpdate::fmt_http_date(certificate.not_after);
        return Err(OrderError::Issued(format!("it expired on {end} by the clock of this machine")));
    }
    storage::write(&path, pem)?;
    tracing::debug!(fingerprint = HEXLOWER.encode(&certificate.fingerprint), "acme.stored");
    Ok(certificate)
}
