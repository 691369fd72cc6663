//! One attempt to use an app, with cause and remedy of a failure: `pulsegate check --connect`.

use std::pin::pin;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::app::App;
use super::check::{self, Check};
use super::dial::DialError;
use super::unusable::Unusable;
use crate::config::UpstreamProbe;
use crate::heartbeat::{HealthCheck, UpstreamLiveness};
use crate::suspension;
use crate::tls::client::ConnectorError;

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
                    DialError::Tls { source: ConnectorError::Pin { seen }, .. } => Some(*seen),
                    DialError::Tls { source, .. } if source.is_untrusted() => dialer.shown_pin().await,
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
        let liveness = Arc::new(UpstreamLiveness::unreached(Instant::now().into_std()));
        let check = Check { dialer, liveness, reports: Arc::default(), kind: HealthCheck::Request };
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
