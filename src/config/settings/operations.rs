//! Settings of the process: its end, its administration, its log, its spans.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use subtle::ConstantTimeEq;

/// The end of a process, in steps; and that of sessions which have grown old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Time in which connections are still accepted after the end is announced; may be zero.
    pub delay: Duration,
    /// The time over which the sessions are closed, evenly; zero closes them all at once.
    pub window: Duration,
    /// The code of the Close that they get (RFC 6455 §7.4), never 1000.
    pub code: u16,
    /// The age at which a session is closed, give or take; `None` lets it live.
    pub max_connection_age: Option<Duration>,
}

impl Drain {
    /// The longest that an end in order takes, where a peer may take `close_grace` to answer a Close.
    pub fn longest(&self, close_grace: Duration) -> Duration {
        self.delay + self.window + close_grace
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), window: Duration::from_secs(15), code: 1012, max_connection_age: None }
    }
}

/// The endpoints for health, metrics and administration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The address of health and metrics, in plain HTTP; `None` serves none.
    pub health: Option<SocketAddr>,
    /// The socket of the admin API; `None` is none.
    pub socket: Option<AdminSocket>,
    /// Set if the admin socket speaks TLS, with the proxy's own certificates. Never for a unix socket.
    pub tls: bool,
    /// The token that clients of the admin API must present; `None` asks for none. Never `None` on TCP beyond loopback.
    pub token: Option<Token>,
    /// The number of closed sessions that are remembered, with their reasons.
    pub closed_sessions: usize,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            health: Some(([0, 0, 0, 0], 9090).into()),
            socket: Some(AdminSocket::default()),
            tls: false,
            token: None,
            closed_sessions: 1000,
        }
    }
}

/// The socket of the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminSocket {
    /// A unix socket, which none but the program's own user can open.
    Unix {
        /// Its path, which is absolute.
        path: PathBuf,
        /// Set if the program cannot start without it; not for [`AdminSocket::DEFAULT`], which is used where it can be.
        required: bool,
    },
    /// An address and a port.
    Tcp(SocketAddr),
}

impl AdminSocket {
    /// The unix socket that is tried unless one is set.
    pub const DEFAULT: &str = "/run/pulsegate/admin.sock";

    /// The unix socket at `path`, which is absolute.
    pub fn unix(path: PathBuf) -> Self {
        let required = path != Path::new(Self::DEFAULT);
        Self::Unix { path, required }
    }
}

impl Default for AdminSocket {
    fn default() -> Self {
        Self::unix(PathBuf::from(Self::DEFAULT))
    }
}

impl fmt::Display for AdminSocket {
    /// As the configuration has it: a path, or an address and a port.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { path, .. } => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// The bearer token of the admin socket. It is never shown: `Debug` leaves it out, and there is no way to read it.
#[derive(Clone)]
pub struct Token {
    file: PathBuf,
    secret: Box<[u8]>,
}

impl Token {
    /// `secret` as it was found in `file`.
    pub(in crate::config) fn new(file: PathBuf, secret: &str) -> Self {
        Self { file, secret: secret.as_bytes().into() }
    }

    /// Returns the file it was read from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Returns whether it equals `presented`, in a time that depends on nothing but the two lengths.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.secret.ct_eq(presented).into()
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file && self.matches(&other.secret)
    }
}

impl Eq for Token {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("file", &self.file).finish_non_exhaustive()
    }
}

/// The log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The levels that are written.
    pub level: Directives,
    /// Shape of a line.
    pub format: LogFormat,
}

/// The least severe level that is written, for each part of the program. `None` is none at all.
///
/// `Display` gives the form that the configuration has: `warn,pulsegate::heartbeat=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// For every part that no target names.
    pub default: Option<Level>,
    /// For the module paths that begin with a target; of several the longest counts. No target is named twice.
    pub targets: Vec<(Box<str>, Option<Level>)>,
}

impl From<Level> for Directives {
    /// `level` for all parts.
    fn from(level: Level) -> Self {
        Self { default: Some(level), targets: Vec::new() }
    }
}

impl Default for Directives {
    fn default() -> Self {
        Level::default().into()
    }
}

impl fmt::Display for Directives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |level: &Option<Level>| level.map_or(Level::OFF, Level::as_str);
        f.write_str(word(&self.default))?;
        self.targets.iter().try_for_each(|(target, level)| write!(f, ",{target}={}", word(level)))
    }
}

/// Log levels, most severe first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Failures that need a person.
    Error,
    /// Faults that the program survives.
    Warn,
    /// One line for each session and request.
    #[default]
    Info,
    /// Details for developers of pulsegate.
    Debug,
    /// Every frame.
    Trace,
}

impl Level {
    /// The word for no level at all.
    pub const OFF: &str = "off";

    /// Its word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The export of spans (OpenTelemetry).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Otel {
    /// The collector that takes OTLP over HTTP, `http://host:port` and perhaps a path; no slash at its end.
    pub endpoint: Box<str>,
}
