//! Why a running proxy could not be spoken to: what, where, and how to mend it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use humantime::format_duration;

use super::address::Address;
use super::location::Place;
use crate::tls::client::{HandshakeError, TrustError};

/// Nothing came of a request.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum RemoteError {
    /// The configuration says that there is no such listener.
    #[error("`{key}` is \"off\"{} and so there is nobody to ask; {flag} names another place", said_by(.file.as_ref()))]
    Off {
        /// The key that says so.
        key: &'static str,
        /// The file that was read.
        file: Option<PathBuf>,
        /// The flag that goes past it.
        flag: &'static str,
    },
    /// A configuration that somebody named cannot be read: which proxy is meant, nobody knows.
    #[error("cannot read {}, which was to say where the proxy is; -c names its configuration, {flag} the place itself", .file.display())]
    Config {
        /// The file.
        file: PathBuf,
        /// The flag that does without.
        flag: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// There is no such socket.
    #[error("there is no socket {place}: is pulsegate running here? {}", .place.way_out())]
    Absent {
        /// Where.
        place: Arc<Place>,
    },
    /// A unix socket may not be opened.
    #[error("may not open {place}: it belongs to the user that pulsegate runs as; be that user, as with `sudo -u`")]
    Denied {
        /// Where.
        place: Arc<Place>,
    },
    /// Nobody listens.
    #[error("nobody listens on {place}: is pulsegate running here? {}", .place.way_out())]
    Refused {
        /// Where.
        place: Arc<Place>,
    },
    /// A file lies there that is none.
    #[error("{place} is no socket; {}", .place.way_out())]
    NoSocket {
        /// Where.
        place: Arc<Place>,
    },
    /// The name has no address.
    #[error("cannot find the host of {place}")]
    Resolve {
        /// Where.
        place: Arc<Place>,
        /// What the resolver says.
        source: io::Error,
    },
    /// There is another reason why there is no connection.
    #[error("cannot connect to {place}")]
    Connect {
        /// Where.
        place: Arc<Place>,
        /// What the kernel says.
        source: io::Error,
    },
    /// The trusted authorities could not be loaded.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The TLS handshake failed.
    #[error("no TLS with {place}{}", tls_hint(.source))]
    Tls {
        /// Where.
        place: Arc<Place>,
        /// How it failed.
        source: HandshakeError,
    },
    /// The token's file cannot be read.
    #[error("cannot read the token from {}", .path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// What is in the token's file is no token.
    #[error("{} holds no token: one line of visible ASCII characters is expected", .path.display())]
    NoToken {
        /// The file.
        path: PathBuf,
    },
    /// The API wants a token.
    #[error(
        "{place} asks for a token: name the file that holds it with --token-file (`admin.token_file` of the proxy)"
    )]
    Unauthorized {
        /// Where.
        place: Arc<Place>,
    },
    /// The API wants another token.
    #[error("{place} does not take the token in {}: is it the one of the proxy's `admin.token_file`?", .file.display())]
    WrongToken {
        /// Where.
        place: Arc<Place>,
        /// The file that the token came from.
        file: PathBuf,
    },
    /// The API refuses the request, in its own words.
    #[error("{message}")]
    Refusal {
        /// The word for it.
        code: String,
        /// What, where, how to mend it.
        message: String,
    },
    /// What answers is something else.
    #[error("what answers on {place} is not a pulsegate's admin API: {what}{}", plain_hint(.place))]
    Stranger {
        /// Where.
        place: Arc<Place>,
        /// What shows it.
        what: String,
    },
    /// The connection broke before the answer was complete.
    #[error("the connection to {place} broke before the answer was complete")]
    Broken {
        /// Where.
        place: Arc<Place>,
        /// How.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("no answer from {place} within {}: the process may be stopped, or the machine overloaded", format_duration(*.patience))]
    Late {
        /// Where.
        place: Arc<Place>,
        /// How long it had.
        patience: Duration,
    },
}

impl RemoteError {
    /// Whether it says that no process is there (any more).
    pub(in crate::cli) fn is_absence(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::Refused { .. })
    }

    /// Whether asking again may help: the other side was slow, or hung up.
    pub(in crate::cli) fn is_passing(&self) -> bool {
        matches!(self, Self::Broken { .. } | Self::Late { .. })
    }

    /// Whether it is a refusal that the API has this word for.
    pub(in crate::cli) fn is_called(&self, word: &str) -> bool {
        matches!(self, Self::Refusal { code, .. } if code == word)
    }

    /// No connection.
    pub(super) fn connect(place: &Arc<Place>, source: io::Error) -> Self {
        let place = Arc::clone(place);
        match source.kind() {
            io::ErrorKind::NotFound => Self::Absent { place },
            io::ErrorKind::PermissionDenied => Self::Denied { place },
            io::ErrorKind::ConnectionRefused if place.is_another_file() => Self::NoSocket { place },
            // Of a unix socket: the file is there still, the process is gone.
            io::ErrorKind::ConnectionRefused => Self::Refused { place },
            _ => Self::Connect { place, source },
        }
    }

    /// Nothing came back, or something that is no HTTP.
    pub(super) fn exchange(place: &Arc<Place>, error: hyper::Error) -> Self {
        let place = Arc::clone(place);
        if error.is_parse() {
            Self::Stranger { place, what: "it does not speak HTTP/1.1".to_owned() }
        } else {
            Self::Broken { place, source: error.into() }
        }
    }

    /// The API said no: with `status`, and perhaps with words of its own in `body`.
    pub(super) fn refusal(place: &Arc<Place>, status: StatusCode, body: &[u8]) -> Self {
        let said = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
        let word = |key: &str| said["error"][key].as_str().map(crate::cli::text::printable);
        match (word("code"), word("message")) {
            (Some(code), Some(message)) => Self::Refusal { code, message },
            _ => Self::Stranger { place: Arc::clone(place), what: format!("it says {status}, and not why") },
        }
    }
}

fn said_by(file: Option<&PathBuf>) -> String {
    file.map_or_else(String::new, |file| format!(" in {},", file.display()))
}

/// What a person can do about a handshake.
fn tls_hint(error: &HandshakeError) -> &'static str {
    match error {
        HandshakeError::UnknownAuthority => "; name the CA's certificate with --ca",
        error if error.is_about_the_name() => "; --server-name says which name it shall prove",
        HandshakeError::NotTls => "; an API without TLS is reached with http://",
        _ => "",
    }
}

/// A server of TLS answers a plain request with an alert, which is no HTTP.
fn plain_hint(place: &Place) -> &'static str {
    match place.address {
        Address::Tcp { tls: false, .. } => "; with `admin.tls` it is reached with https://",
        _ => "",
    }
}
