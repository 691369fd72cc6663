//! Certificates that are ordered from an authority by ACME (RFC 8555) and renewed in time.
//!
//! The storage folder is the only channel between this module and the rest of the program. An order ends with a PEM file of
//! chain and key that replaces the former one by a rename; the reload of the configuration watches that file like any other
//! certificate and puts it in force. The responses to challenges are files too: the TLS handshake (`tls-alpn-01`) and the
//! plain HTTP port (`http-01`) look for them when an authority asks. So the replicas of one host share a certificate, an
//! account and a challenge without a connection between them: whichever holds the lock orders, whichever is asked answers,
//! and all of them load the result.
//!
//! - `schedule`: when the next attempt is due, as pure functions of invented instants.
//! - `storage`: the files, written whole or not at all, under a lock.
//! - `http_client`: one request to the authority, bounded in time and size.
//! - `order`: the exchange of one order, from the account to the chain.
//! - `external_key`: the MAC key that binds the account to one outside of ACME.
//! - `inspection`: the faults of the folder, and what is worth a warning, for `pulsegate check` and for the start.
//! - `former_name`: certificates that earlier versions stored under other names.
//! - `certificate_key`: a revocation by the key of the certificate, where the account is lost.
//! - `revocation`: the end of a certificate before its time, for `pulsegate revoke`.
//! - this file: the loop around them, which lives as long as the server and gives up never. An authority that is down, that
//!   refuses or that answers nonsense changes nothing about the certificate at hand.

mod certificate_key;
mod error;
mod external_key;
mod former_name;
mod http_client;
mod inspection;
mod order;
mod revocation;
mod schedule;
mod storage;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;

use self::error::OrderError;
pub use self::inspection::{StorageWarning, faults, warnings};
use self::order::RenewalId;
pub use self::order::RevocationReason;
pub use self::revocation::{Revocation, RevocationError, revoke};
use self::schedule::{Failure, Held, Reason, RenewalWindow, Step};
pub use self::storage::StorageError;
use crate::config::AcmeSettings;
use crate::generation::CurrentGeneration;
use crate::suspension::{self, Deadline};
use crate::telemetry::Chain;
use crate::telemetry::metrics::Metrics;
use crate::tls::{Certificate, EXPIRY_NOTICE, Validity, presented_certificate};

/// The longest sleep: the wall clock, by which certificates expire, may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(10 * 60);
/// The pause before the lock is tried again while another replica orders.
const LOCK_PAUSE: Duration = Duration::from_secs(2);
/// The time limit of one order.
const ORDER_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// The time between two questions for the authority's renewal window, unless it names another (RFC 9773 §4.3.2).
const WINDOW_EVERY: Duration = Duration::from_secs(6 * 60 * 60);

/// Keeps the certificates of the settings in force: orders what is missing, renews what is due. A change of the settings
/// begins anew.
pub(crate) async fn maintain(current: &CurrentGeneration, metrics: &Metrics) -> Infallible {
    let mut changes = current.changes();
    loop {
        let settings = settings_of(current);
        let replaced = async {
            // Renewed certificates are reloads too.
            while settings_of(current) == settings {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match &settings {
            Some(settings) => tokio::select! {
                never = Maintainer::new(settings, metrics).run(current.changes()) => match never {},
                () = replaced => {}
            },
            None => replaced.await,
        }
    }
}

fn settings_of(current: &CurrentGeneration) -> Option<AcmeSettings> {
    current.load().settings.tls.terminate()?.acme.as_deref().cloned()
}

/// Makes the storage folder, before the server starts. A server that has a certificate starts with it also where the folder
/// cannot be written, and says so.
///
/// # Errors
///
/// The folder cannot be made or written, and there is no certificate in it.
pub fn open_storage(settings: &AcmeSettings) -> Result<(), StorageError> {
    let file = settings.certificate();
    let has_certificate = presented_certificate(settings).is_some();
    match storage::prepare(settings) {
        Ok(()) if has_certificate => {}
        Ok(()) => {
            tracing::warn!(domains = settings.domains.join(", "), file = %file.display(), "acme.no_certificate_yet");
        }
        Err(error) if has_certificate => tracing::warn!(error = %Chain(&error), "acme.storage_unusable"),
        Err(error) => return Err(error),
    }
    for warning in warnings(settings) {
        warning.log();
    }
    Ok(())
}

/// The certificate in the storage folder.
#[derive(Debug)]
struct Stored {
    held: Held,
    certificate: Certificate,
    id: Option<RenewalId>,
}

/// The orders of one certificate, one after the other.
struct Maintainer<'a> {
    settings: Arc<AcmeSettings>,
    metrics: &'a Metrics,
    failures: u32,
    retry_at: Option<SystemTime>,
    /// The answer of the authority about the certificate with this fingerprint, and when to ask again.
    window: Option<([u8; 32], Option<RenewalWindow>, SystemTime)>,
    /// The expiry that was reported last.
    reported: Option<([u8; 32], Expiry)>,
    has_reported_lock: bool,
}

/// The stage of a certificate's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    Near,
    Past,
}

impl<'a> Maintainer<'a> {
    fn new(settings: &AcmeSettings, metrics: &'a Metrics) -> Self {
        Self {
            settings: Arc::new(settings.clone()),
            metrics,
            failures: 0,
            retry_at: None,
            window: None,
            reported: None,
            has_reported_lock: false,
        }
    }

    /// Makes attempts when they are due, and looks again with each reload: a file may have been removed.
    async fn run(mut self, mut reloads: watch::Receiver<u64>) -> Infallible {
        loop {
            let stored = self.stored().await;
            let now = SystemTime::now();
            let window = self.window(stored.as_ref(), now).await;
            self.report_expiry(stored.as_ref(), now);
            match schedule::step(now, stored.as_ref().map(|stored| &stored.held), window, self.retry_at) {
                Step::Order(reason) => self.attempt(reason, stored).await,
                Step::Wait(until) => {
                    self.metrics.acme_next(until);
                    let expiry = stored.map(|stored| stored.held.not_after).filter(|expiry| *expiry > now);
                    let wake = expiry.map_or(until, |expiry| expiry.min(until));
                    // A moment later, so that a file system's coarse clock is past it too.
                    let left = wake.duration_since(now).unwrap_or_default() + Duration::from_millis(10);
                    tokio::select! {
                        () = sleep(left.min(LONGEST_SLEEP)) => {}
                        Ok(()) = reloads.changed() => {}
                    }
                }
            }
        }
    }

    /// Reads the certificate at hand; one that cannot be used counts as missing. For a set of names that has none of its
    /// own, it is the one that stands in.
    async fn stored(&self) -> Option<Stored> {
        let settings = Arc::clone(&self.settings);
        storage::off_thread(move || {
            let (file, identity) = presented_certificate(&settings)?;
            let is_own = file == settings.certificate();
            let certificate = identity.leaf()?;
            let held = Held {
                not_before: certificate.not_before,
                not_after: certificate.not_after,
                is_for_all: is_own && settings.domains.iter().all(|domain| identity.is_for(domain)),
                draw: draw(&certificate.fingerprint),
            };
            // One that stands in is not replaced: it may belong to another site.
            let id = identity.renewal_id().filter(|_| is_own).map(RenewalId::of);
            Some(Stored { held, certificate, id })
        })
        .await
        .flatten()
    }

    /// Returns the time in which the authority wants the certificate to be renewed; asks for it now and then.
    async fn window(&mut self, stored: Option<&Stored>, now: SystemTime) -> Option<RenewalWindow> {
        let Stored { certificate, id, .. } = stored?;
        let id = id.as_ref()?;
        if let Some((fingerprint, window, until)) = self.window
            && fingerprint == certificate.fingerprint
            && until > now
        {
            return window;
        }
        let asked = order::renewal_window(&self.settings, id).await;
        let (window, pause) = match asked {
            Ok(Some((window, pause))) => (Some(window), pause.clamp(Duration::from_secs(60), WINDOW_EVERY * 4)),
            Ok(None) => (None, WINDOW_EVERY),
            Err(error) => {
                tracing::debug!(directory = %self.settings.directory, error = error.one_line(), "acme.no_renewal_window");
                // The former answer holds while the authority is away.
                let known = self.window.filter(|(fingerprint, ..)| *fingerprint == certificate.fingerprint);
                (known.and_then(|(_, window, _)| window), WINDOW_EVERY)
            }
        };
        self.window = Some((certificate.fingerprint, window, now + pause));
        window
    }

    /// Makes one attempt, unless another replica makes it.
    async fn attempt(&mut self, reason: Reason, before: Option<Stored>) {
        let settings = Arc::clone(&self.settings);
        let locked = storage::off_thread(move || {
            storage::prepare(&settings)?;
            let Some(lock) = storage::try_lock(&settings)? else { return Ok(None) };
            storage::remove_leftovers(&settings, &lock);
            let former = former_name::adopt(&settings, &lock)?;
            Ok::<_, StorageError>(Some((Arc::new(lock), former)))
        });
        let lock = match locked.await {
            Some(Ok(Some((lock, None)))) => lock,
            Some(Ok(Some((_, Some(former))))) => {
                let file = self.settings.certificate();
                tracing::info!(from = %former.display(), to = %file.display(), "acme.certificate_renamed");
                return;
            }
            Some(Ok(None)) => {
                if !std::mem::replace(&mut self.has_reported_lock, true) {
                    tracing::info!(file = %self.settings.lock().display(), "acme.another_replica_orders");
                }
                sleep(LOCK_PAUSE).await;
                return;
            }
            Some(Err(error)) => return self.failed(&error.into(), before.as_ref()),
            None => return self.failed(&OrderError::Internal, before.as_ref()),
        };
        self.has_reported_lock = false;
        // Another replica may have renewed it in the meantime.
        let stored = self.stored().await;
        let is_new = stored.as_ref().map(|new| new.certificate.fingerprint)
            != before.as_ref().map(|old| old.certificate.fingerprint);
        if is_new {
            return;
        }
        let domains = self.settings.domains.join(", ");
        tracing::info!(domains, directory = %self.settings.directory, reason = reason.as_str(), "acme.ordering");
        // An authority refuses a second order for the replacement of one certificate (RFC 9773 §5).
        let replaces = stored.as_ref().and_then(|stored| stored.id.as_ref());
        let is_known = self.window.is_some_and(|(_, window, _)| window.is_some());
        let replaces = replaces.filter(|_| self.failures == 0 && is_known);
        let ordered = {
            let order = std::pin::pin!(order::order(&self.settings, replaces, &lock));
            suspension::within(Deadline::after(ORDER_TIMEOUT), order).await
        };
        match ordered.unwrap_or(Err(OrderError::TimedOut)) {
            Ok(certificate) => self.issued(&certificate),
            Err(error) => self.failed(&error, stored.as_ref()),
        }
        drop(lock);
    }

    fn issued(&mut self, certificate: &Certificate) {
        (self.failures, self.retry_at) = (0, None);
        self.metrics.acme_order("issued");
        let not_after = httpdate::fmt_http_date(certificate.not_after);
        let file: PathBuf = self.settings.certificate();
        tracing::info!(names = certificate.names.join(", "), not_after, file = %file.display(), "acme.issued");
    }

    fn failed(&mut self, error: &OrderError, stored: Option<&Stored>) {
        let now = SystemTime::now();
        self.failures = self.failures.saturating_add(1);
        let left = stored.and_then(|stored| stored.held.not_after.duration_since(now).ok());
        let failure =
            Failure { count: self.failures, is_counted: error.is_counted(), retry_after: error.retry_after() };
        let pause = schedule::pause(failure, left.is_some(), fastrand::f64());
        self.retry_at = Some(now + pause);
        self.metrics.acme_order(error.label());
        let certificate = match (stored, left) {
            (None, _) => "none",
            (Some(_), None) => "expired",
            (Some(_), Some(_)) => "valid",
        };
        tracing::warn!(
            domains = self.settings.domains.join(", "),
            directory = %self.settings.directory,
            error = error.one_line(),
            reason = error.label(),
            failures = self.failures,
            retry_in_s = pause.as_secs(),
            certificate,
            left_s = left.map(|left| left.as_secs()),
            "acme.failed"
        );
    }

    /// Warns once when the certificate at hand nears its end, and once when it is past it.
    fn report_expiry(&mut self, stored: Option<&Stored>, now: SystemTime) {
        let Some(Stored { certificate, held, .. }) = stored else { return };
        let lifetime = held.not_after.duration_since(held.not_before).unwrap_or_default();
        let expiry = match certificate.validity(now) {
            Validity::Expired(_) => Expiry::Past,
            // A certificate of a few days is renewed within the notice of others.
            Validity::Expires(left) if left < EXPIRY_NOTICE.min(lifetime / 4) => Expiry::Near,
            _ => return,
        };
        let report = Some((certificate.fingerprint, expiry));
        if self.reported == report {
            return;
        }
        self.reported = report;
        let names = certificate.names.join(", ");
        let not_after = httpdate::fmt_http_date(certificate.not_after);
        match expiry {
            Expiry::Near => tracing::warn!(names, not_after, "acme.certificate_expires"),
            Expiry::Past => tracing::warn!(names, not_after, "acme.certificate_expired"),
        }
    }
}

/// Returns a number from 0 to 1 that belongs to a certificate.
fn draw(fingerprint: &[u8; 32]) -> f64 {
    let mut first = [0; 4];
    first.copy_from_slice(&fingerprint[..4]);
    f64::from(u32::from_be_bytes(first)) / f64::from(u32::MAX)
}
