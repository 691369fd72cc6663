//! One attempt to use an app, with cause and remedy of a failure: `pulsegate check --connect`.

use std::pin::pin;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::check::{self, Check};
use super::{App, DialError};
use crate::config::{Pin, UpstreamProbe};
use crate::heartbeat::{HealthCheck, UpstreamPulse};
use crate::suspension;
use crate::telemetry::Chain;
use crate::tls::client::HandshakeError;

/// The cause and the remedy of a failed attempt to use an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The fault and all its causes, as text.
    pub error: String,
    /// The remedy, as text.
    pub help: String,
    /// The pin of the app's public key, if that key is not trusted.
    pub pin: Option<Pin>,
}

impl Unusable {
    /// Returns cause and remedy of `error`; `pin` is the one of the key that the app presented.
    pub(super) fn of(error: &DialError, pin: Option<Pin>) -> Self {
        Self { error: Chain(&error).to_string(), help: remedy(error, pin), pin }
    }
}

impl App {
    /// Connects, performs the TLS handshake where configured, and sends the request of the health check. Returns the
    /// request that was answered; `connect` if `upstream.probe` is off.
    ///
    /// # Errors
    ///
    /// The first step that failed, with its remedy.
    pub async fn try_once(&self) -> Result<String, Unusable> {
        let dialer = Arc::new(self.dialer());
        let stream = match dialer.dial(None).await {
            Ok(stream) => stream,
            Err(error) => {
                let pin = match &error {
                    DialError::Tls { source: HandshakeError::Pin { seen }, .. } => Some(*seen),
                    DialError::Tls { source, .. } if source.is_about_trust() => dialer.shown_pin().await,
                    _ => None,
                };
                return Err(Unusable::of(&error, pin));
            }
        };
        let settings = Arc::clone(self.settings());
        let request = check::describe(&settings.probe);
        let interim = CancellationToken::new();
        let Some(probe) = check::request(&settings.target, &settings.probe, &interim) else {
            return Ok(request);
        };
        let pulse = Arc::new(UpstreamPulse::unreached(Instant::now().into_std()));
        let check = Check { dialer, pulse, reports: Arc::default(), kind: HealthCheck::Request };
        let limit = settings.heartbeat.timeout;
        let ended = suspension::timeout(limit, pin!(check.exchange(stream, probe, interim))).await;
        let fault = match ended {
            Ok(ended) => ended.fault,
            Err(_) => Some(format!("no response within {}", humantime::format_duration(limit))),
        };
        match fault {
            None => Ok(request),
            Some(fault) => {
                let help = match settings.probe {
                    UpstreamProbe::Path(_) => "name a path that the app answers in `probe` of [upstream]",
                    UpstreamProbe::Auto | UpstreamProbe::Off => {
                        "set `probe` in [upstream] to a path that the app answers, and see that `url` is that of the app"
                    }
                };
                Err(Unusable { error: format!("{request}: {fault}"), help: help.to_owned(), pin: None })
            }
        }
    }
}

/// Returns the remedy for `error`; `pin` is the one of the key that the app presented.
fn remedy(error: &DialError, pin: Option<Pin>) -> String {
    match error {
        DialError::Resolve { .. } => {
            "correct the host in `url` of [upstream], or the name service of this machine".into()
        }
        DialError::Connect { .. } if error.reason() == "refused" => {
            "start the app, or correct `url` in [upstream]".into()
        }
        DialError::Connect { .. } => "correct `url` in [upstream], or the way from here to there".into(),
        DialError::Timeout { .. } => {
            "see that the app runs and that no firewall is between, or raise `connect_timeout` in [upstream]".into()
        }
        DialError::Tls { source, .. } => match (source, pin) {
            (HandshakeError::NotTls, _) => "write url = \"http://…\" in [upstream]: the app speaks no TLS".into(),
            (HandshakeError::Pin { seen }, _) => {
                format!("if the app's key was changed, set tls.pin = \"{seen}\" in [upstream]")
            }
            (source, Some(pin)) => {
                let trust = if source.is_about_the_name() {
                    "set tls.server_name in [upstream] to a name of the certificate"
                } else {
                    "set tls.ca in [upstream] to the authority that has signed the certificate"
                };
                format!("{trust}, or tls.pin = \"{pin}\" if that is the key of your app")
            }
            (_, None) => {
                "see that the app speaks TLS 1.2 or 1.3, and that tls.certificate is one that it accepts".into()
            }
        },
    }
}
