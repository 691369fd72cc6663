//! How a session ended: who, why, and with which codes on the wire.

use std::ops::AddAssign;
use std::time::Duration;

use crate::ws::Sender;

/// Which side ended the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// The client closed, or its connection broke.
    Client,
    /// The app closed, or its connection broke.
    Upstream,
    /// pulsegate decided.
    Proxy,
}

/// Why the session ended; one word for each, the same in logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// One of the peers closed it by itself.
    Normal,
    /// The client's connection broke, or ended, without a Close.
    ClientLost,
    /// The client missed its heartbeat window.
    HeartbeatTimeout,
    /// The client stopped taking bytes.
    SlowReader,
    /// One client frame took longer than allowed.
    Trickle,
    /// The proxy shuts down.
    Drain,
    /// The upstream leg broke, or the app was silent for too long.
    UpstreamLost,
    /// A peer broke RFC 6455.
    ProtocolError,
    /// A frame or message over the limit.
    TooBig,
    /// Too many pings, heartbeats or messages a second.
    Rate,
    /// An operator closed it.
    Admin,
    /// It had been open for as long as a session may be.
    MaxAge,
}

impl EndReason {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::ClientLost => "client_lost",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::SlowReader => "slow_reader",
            Self::Trickle => "trickle",
            Self::Drain => "drain",
            Self::UpstreamLost => "upstream_lost",
            Self::ProtocolError => "protocol_error",
            Self::TooBig => "too_big",
            Self::Rate => "rate",
            Self::Admin => "admin",
            Self::MaxAge => "max_age",
        }
    }
}

impl Initiator {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Proxy => "proxy",
        }
    }
}

/// What passed in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes read from the peer after the upgrade, frame headers included, and not thrown away.
    pub bytes: u64,
    /// Payload of data frames alone, as far as it was read and looked through for frames.
    pub payload: u64,
    /// Complete data messages.
    pub messages: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.payload += more.payload;
        self.messages += more.messages;
    }
}

/// The whole story of one session, told once, at its end.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Who ended it.
    pub initiator: Initiator,
    /// Why.
    pub reason: EndReason,
    /// What went wrong in a few words, where the reason alone does not say it.
    pub detail: Option<&'static str>,
    /// Who broke a rule, where the session ended for that.
    pub offender: Option<Sender>,
    /// Code of the Close that the client sent or was sent; 1006 when there was none (RFC 6455 §7.1.5).
    pub client_code: u16,
    /// Code of the Close that the app sent or was sent; 1006 when there was none.
    pub upstream_code: u16,
    /// Reason text of the Close that began the end.
    pub close_reason: Box<str>,
    /// Reason text of the Close that the app sent or was sent; empty when there was none.
    pub upstream_close_reason: Box<str>,
    /// Read from the client.
    pub from_client: Traffic,
    /// Read from the app.
    pub from_upstream: Traffic,
    /// Heartbeat figures.
    pub heartbeat: crate::heartbeat::Stats,
    /// From the upgrade to the end of both legs.
    pub duration: Duration,
    /// How long nothing of the client had been read when the end was decided.
    pub last_seen_ago: Duration,
    /// How long the client had answered nobody's probe then, nor beaten by itself; `None`: it never has.
    pub last_pong_ago: Option<Duration>,
}
