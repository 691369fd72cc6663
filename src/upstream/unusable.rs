//! The cause and the remedy of a failed attempt to use an app.

use super::dial::DialError;
use crate::config::Pin;
use crate::telemetry::Chain;
use crate::tls::client::ConnectorError;

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
            (ConnectorError::NotTls, _) => "write url = \"http://…\" in [upstream]: the app speaks no TLS".into(),
            (ConnectorError::Pin { seen }, _) => {
                format!("if the app's key was changed, set tls.pin = \"{seen}\" in [upstream]")
            }
            (source, Some(pin)) => {
                let trust = if source.is_wrong_name() {
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
