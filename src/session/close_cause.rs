//! The cause of a session's end, and the closed sets of words for it. [`cause_table`](super::cause_table) gives what each
//! cause reports.

use crate::heartbeat::{CloseSpec, EngineVerdict};
use crate::ws::{Sender, Violation};

/// Service restart (IANA's registry): every client library of note reconnects after it.
pub const RESTART: u16 = 1012;

/// The cause of a session's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// A closing handshake that `by` began, or the end of the client's half, which the app answered with a Close.
    Closed {
        /// The side that began it.
        by: Sender,
    },
    /// The client's connection broke, or ended without a Close.
    ClientLost {
        /// The failure; `None` for an end of the stream.
        breakage: Option<Breakage>,
    },
    /// The app's connection broke, or ended without a Close.
    UpstreamLost {
        /// The failure; `None` for an end of the stream.
        breakage: Option<Breakage>,
    },
    /// The heartbeat window passed without a sign of life.
    HeartbeatTimeout,
    /// The HTTP/2 connection that the client's leg shares with others sent a PING that was not answered.
    ClientUnanswered,
    /// The client stopped taking bytes.
    SlowReader,
    /// One client frame took longer than `frame_max_time`.
    Trickle,
    /// The app took none of the client's bytes for `max_deferral`.
    UpstreamStalled,
    /// The app as a whole was silent for too long.
    UpstreamUnresponsive,
    /// The client sent more than 20 pings in a second.
    PingFlood,
    /// The client sent more than 20 application heartbeats in a second.
    HeartbeatFlood,
    /// The client sent more messages than its route allows.
    MessageFlood,
    /// A peer broke RFC 6455, or a limit.
    Violation {
        /// The offender.
        by: Sender,
        /// The rule or limit.
        violation: Violation,
    },
    /// The proxy is shutting down.
    Drain {
        /// The code of the client's Close (RFC 6455 §7.4).
        code: u16,
    },
    /// The session reached its maximum age.
    MaxAge,
    /// An operator closed it with this Close.
    Admin(CloseSpec),
    /// Both legs were reset at once.
    Aborted(Abort),
}

/// The origin of an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// An operator.
    Operator,
    /// A drain that is out of time.
    Drain,
}

/// Defines an enum whose values are words, with the list of all of them.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$of])* $variant,)+
        }

        impl $name {
            /// The words of all values.
            pub const WORDS: &[&str] = &[$($word),+];

            /// Returns the word for it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

words! {
    /// The failure of a connection.
    Breakage {
        /// The peer reset it.
        Reset = "connection reset",
        /// It was closed while bytes were written.
        ClosedWhileWriting = "connection closed while writing",
        /// The kernel received no acknowledgement.
        TimedOut = "connection timed out",
        /// Any other failure.
        Failed = "connection failed",
    }
}

words! {
    /// The side that ended a session; the same word in logs and metrics.
    Initiator {
        /// The client closed, or its connection broke.
        Client = "client",
        /// The app closed, or its connection broke.
        Upstream = "upstream",
        /// pulsegate decided.
        Proxy = "proxy",
    }
}

words! {
    /// The reason of a session's end; the same word in logs and metrics.
    EndReason {
        /// A peer closed it of its own accord.
        Normal = "normal",
        /// The client's connection broke, or ended, without a Close.
        ClientLost = "client_lost",
        /// The client missed its heartbeat window.
        HeartbeatTimeout = "heartbeat_timeout",
        /// The client stopped taking bytes.
        SlowReader = "slow_reader",
        /// One client frame took longer than allowed.
        Trickle = "trickle",
        /// The proxy is shutting down.
        Drain = "drain",
        /// The upstream leg broke, or the app was silent for too long.
        UpstreamLost = "upstream_lost",
        /// A peer broke RFC 6455.
        ProtocolError = "protocol_error",
        /// A frame or message over the limit.
        TooBig = "too_big",
        /// Too many pings, heartbeats or messages a second.
        Rate = "rate",
        /// An operator closed it.
        Admin = "admin",
        /// The session reached its maximum age.
        MaxAge = "max_age",
    }
}

impl From<EngineVerdict> for CloseCause {
    fn from(verdict: EngineVerdict) -> Self {
        match verdict {
            EngineVerdict::Timeout => Self::HeartbeatTimeout,
            EngineVerdict::SlowReader => Self::SlowReader,
            EngineVerdict::Trickle => Self::Trickle,
            EngineVerdict::UpstreamStalled => Self::UpstreamStalled,
        }
    }
}
