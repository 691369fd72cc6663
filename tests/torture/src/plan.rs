//! A plan: all decisions of one seed, as plain data.

use std::fmt;

/// A number of milliseconds.
pub type Millis = u64;

/// All decisions of one seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The seed it was drawn from.
    pub seed: u64,
    /// HTTP/1.1, or HTTP/2.
    pub transport: Transport,
    /// The link between client and proxy.
    pub link: Link,
    /// The sessions: one over HTTP/1.1, up to four on one HTTP/2 connection.
    pub sessions: Vec<Session>,
    /// Ordinary requests on the same HTTP/2 connection.
    pub transfers: Vec<Transfer>,
    /// A stop of the proxy's process.
    pub stop: Option<Stop>,
    /// The opening of the connection.
    pub opening: Opening,
}

/// The opening of a client's connection: its start, and a pause after a number of its bytes, within the TLS handshake
/// or within a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// The time at which the client connects.
    pub at: Millis,
    /// Bytes before the pause; 0 for no pause.
    pub bytes: usize,
    /// The pause.
    pub pause: Millis,
}

/// The protocol between client and proxy, always over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// An upgrade (RFC 6455).
    Http1,
    /// Extended CONNECT (RFC 8441).
    Http2 {
        /// The client's receive window of a stream.
        window: u32,
    },
}

/// A link: a TCP relay between two ends. All zero means no link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Bytes per second towards the client; 0 is unlimited.
    pub down: u64,
    /// Bytes per second towards the app; 0 is unlimited.
    pub up: u64,
    /// Delay in each direction.
    pub delay: Millis,
    /// The largest piece that is relayed at once; 0 for any.
    pub piece: usize,
    /// Times at which the link holds all bytes: start and length, from the first connection on.
    pub holds: Vec<(Millis, Millis)>,
    /// True for a link that exists although it limits nothing.
    pub present: bool,
}

/// One WebSocket session, with a route of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// The heartbeat of its route.
    pub beat: Heartbeat,
    /// True if the client offers permessage-deflate.
    pub deflate: bool,
    /// The client.
    pub client: Script,
    /// The app.
    pub app: Script,
    /// The link between proxy and app.
    pub app_link: Link,
    /// Its intended end.
    pub fate: Fate,
    /// The proxy's liveness checks of this app: `upstream.interval`, `timeout` and `give_up`.
    pub watched: Option<(Millis, Millis, Millis)>,
    /// The delay of the app's response to the upgrade.
    pub answers_after: Millis,
}

/// The source of a route's heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Pings of the proxy.
    Protocol,
    /// Messages of the proxy.
    App,
    /// Messages of the client, answered by the proxy.
    Answer,
    /// Messages of the client, watched by the proxy.
    Passive,
    /// None.
    Off,
}

/// The signs of life that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// `any_bytes`
    AnyBytes,
    /// `any_frame`
    AnyFrame,
    /// `pong_only`
    PongOnly,
}

/// Settings of a route's heartbeat.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// `mode`
    pub mode: Mode,
    /// `liveness`
    pub liveness: Liveness,
    /// `interval`
    pub interval: Millis,
    /// `timeout`
    pub timeout: Millis,
    /// `window`, in the modes in which the client sends its own heartbeat.
    pub window: Millis,
    /// `max_missed`
    pub max_missed: u64,
    /// `jitter`, in percent.
    pub jitter: u64,
    /// `probe_when_busy`
    pub busy: Millis,
    /// `write_stall`
    pub write_stall: Millis,
    /// `max_deferral`
    pub max_deferral: Millis,
    /// `frame_max_time`
    pub frame_max_time: Millis,
    /// `close_grace`
    pub close_grace: Millis,
    /// `stall_guard`
    pub stall_guard: Millis,
    /// True if `client_ping` is `answer`.
    pub answers_pings: bool,
    /// `on_miss.client`
    pub miss_client: (u16, String),
    /// `on_miss.upstream`; [`None`] is `disconnect`.
    pub miss_upstream: Option<(u16, String)>,
    /// `adaptive`
    pub adaptive: bool,
}

impl Heartbeat {
    /// Returns the time within which a dead client must be found on an idle path.
    pub fn bound(&self) -> Millis {
        match self.mode {
            Mode::Answer | Mode::Passive => self.window.max(self.interval + self.timeout * self.max_missed),
            _ => self.interval + self.timeout * self.max_missed,
        }
    }
}

/// The actions of one endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    /// True if only the newest of several Pings that arrived together is answered (RFC 6455 §5.5.3).
    pub newest_only: bool,
    /// True if the endpoint ends its direction after the closing handshake instead of waiting for its peer.
    pub finishes: bool,
    /// Bytes per second that it reads; 0 is unlimited.
    pub pace: u64,
    /// The size of its socket's receive buffer; 0 is the system's.
    pub buffer: usize,
    /// Its steps, one after another.
    pub steps: Vec<Step>,
}

/// One step of a script. Meanwhile Pings are answered, Closes are echoed and bytes are read.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// One message.
    Message {
        /// Payload bytes.
        size: usize,
        /// Frames.
        fragments: usize,
        /// True for text, false for binary.
        text: bool,
        /// True if a Ping is sent between its first two fragments.
        ping: bool,
        /// True if it is marked as compressed, where that is agreed.
        rsv1: bool,
    },
    /// Many tiny messages, written at once.
    Flood {
        /// Messages.
        count: usize,
        /// The maximum payload bytes of each.
        most: usize,
    },
    /// Equal tiny messages without a pause, for a time.
    Torrent {
        /// The time.
        millis: Millis,
        /// Payload bytes of each.
        size: usize,
        /// Messages that are written at once.
        burst: usize,
    },
    /// One message in one frame, written evenly over a time.
    Slow {
        /// Payload bytes.
        size: usize,
        /// The time.
        millis: Millis,
        /// Pieces.
        pieces: usize,
    },
    /// A Ping.
    Ping(usize),
    /// A Pong that matches no Ping.
    Pong(usize),
    /// A time in which the script sends nothing.
    Pause(Millis),
    /// The pace of reading from now on; [`None`] for not at all.
    Pace(Option<u64>),
    /// A stop of the process for a time, or for good.
    Freeze(Option<Millis>),
    /// No answers from now on.
    Mute,
    /// No traffic on the link from now on.
    Vanish,
    /// The beginning of a frame whose rest is never sent; an app is stopped there.
    Partial {
        /// The announced bytes of payload.
        size: usize,
        /// Bytes of the frame that are sent.
        sent: usize,
    },
    /// A Close, with code and reason or empty.
    Close(Option<(u16, String)>),
    /// A frame that violates RFC 6455.
    Invalid(Invalid),
    /// The end of this direction.
    Fin,
    /// A reset of the connection.
    Reset,
}

/// A frame that violates RFC 6455.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A reserved opcode.
    Opcode,
    /// RSV2.
    Reserved,
    /// A Ping of 126 bytes.
    LongControl,
    /// A Ping without FIN.
    FragmentedControl,
    /// A frame without mask from a client, or with a mask from an app.
    Mask,
    /// A length with the top bit set.
    Length,
}

/// The intended end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The client closes.
    ClientClose,
    /// The app closes.
    AppClose,
    /// The client ends its direction without a Close; the app ends the other.
    ClientFin,
    /// The app ends its direction without a Close.
    AppFin,
    /// The client resets the connection.
    ClientReset,
    /// The app resets the connection.
    AppReset,
    /// The client breaks the protocol.
    ClientInvalid,
    /// The app breaks the protocol.
    AppInvalid,
    /// The client dies: it answers nothing, is stopped, vanishes, or stops within a frame.
    ClientDies,
    /// The client stops reading while the app sends without end.
    ClientBlocks,
    /// The client sends one frame for longer than `frame_max_time`.
    ClientTrickles,
    /// The app is stopped for good.
    AppFreezes,
    /// The session lives until the proxy drains.
    Drained,
}

impl Fate {
    /// Returns true if a client dies by plan, so that the proxy has to end its session.
    pub fn is_death(self) -> bool {
        matches!(self, Self::ClientDies | Self::ClientBlocks | Self::ClientTrickles)
    }

    /// Returns true if the same session without a proxy shows how it must end.
    pub fn has_oracle(self) -> bool {
        matches!(self, Self::ClientClose | Self::AppClose | Self::ClientFin | Self::ClientInvalid)
    }
}

/// An ordinary request on the HTTP/2 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes that the app sends.
    pub down: usize,
    /// Bytes that the client sends.
    pub up: usize,
    /// Its start.
    pub at: Millis,
}

/// A stop of the proxy's process (SIGSTOP, SIGCONT), the same for all seeds of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Its start, from the start of the batch.
    pub at: Millis,
    /// Its length.
    pub length: Millis,
}

impl Plan {
    /// Returns the bytes that a script sends.
    pub fn bytes(script: &Script) -> usize {
        script.steps.iter().map(Step::bytes).sum()
    }

    /// Returns the least time that the scripts take.
    pub fn length(&self) -> Millis {
        let of = |script: &Script| script.steps.iter().map(Step::length).sum::<Millis>();
        let slow = |bytes: usize, rate: u64| (bytes as u64 * 1000).checked_div(rate).unwrap_or(0);
        let own = |session: &Session| {
            let (down, up) = (Self::bytes(&session.app), Self::bytes(&session.client));
            let down = slow(down, self.link.down) + slow(down, session.client.pace) + slow(down, session.app_link.down);
            let up = slow(up, self.link.up) + slow(up, session.app.pace) + slow(up, session.app_link.up);
            of(&session.client).max(of(&session.app)) + down.max(up)
        };
        let transfers: u64 =
            self.transfers.iter().map(|t| slow(t.down, self.link.down) + slow(t.up, self.link.up)).sum();
        self.sessions.iter().map(own).max().unwrap_or(0)
            + transfers
            + self.opening.at
            + self.opening.pause
            + self.stop.map_or(0, |stop| stop.length)
    }
}

impl Step {
    /// Returns the bytes of payload that it sends.
    pub fn bytes(&self) -> usize {
        match *self {
            Self::Message { size, .. } | Self::Slow { size, .. } => size,
            Self::Flood { count, most } => count * (most + 6),
            // The number depends on the path.
            Self::Torrent { .. } => 1 << 20,
            _ => 0,
        }
    }

    fn length(&self) -> Millis {
        match *self {
            Self::Slow { millis, .. }
            | Self::Pause(millis)
            | Self::Torrent { millis, .. }
            | Self::Freeze(Some(millis)) => millis,
            _ => 0,
        }
    }
}

impl Script {
    /// Returns true if the endpoint reads until the end, so that it sees every end.
    pub fn reads_to_the_end(&self) -> bool {
        let blind = |step: &Step| matches!(step, Step::Freeze(None) | Step::Vanish | Step::Reset);
        let last_pace = self.steps.iter().rev().find(|step| matches!(step, Step::Pace(_)));
        !self.steps.iter().any(blind) && last_pace != Some(&Step::Pace(None))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {:?}, link {}, stop of the proxy {:?}, {:?}",
            self.seed, self.transport, self.link, self.stop, self.opening
        )?;
        for (index, session) in self.sessions.iter().enumerate() {
            writeln!(
                f,
                "  session {index}: {:?}; deflate {}; app link {}; watched {:?}; answers after {} ms",
                session.fate, session.deflate, session.app_link, session.watched, session.answers_after
            )?;
            writeln!(f, "    route  {}", session.beat)?;
            writeln!(f, "    client {}", session.client)?;
            writeln!(f, "    app    {}", session.app)?;
        }
        for transfer in &self.transfers {
            writeln!(f, "  request {transfer:?}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str("none");
        }
        let Self { down, up, delay, piece, holds, .. } = self;
        write!(f, "(down {down} B/s, up {up} B/s, delay {delay} ms, piece {piece}, holds {holds:?})")
    }
}

impl fmt::Display for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {:?} interval {} timeout {} window {} ",
            self.mode, self.liveness, self.interval, self.timeout, self.window
        )?;
        write!(f, "missed {} jitter {}% busy {} stall {} ", self.max_missed, self.jitter, self.busy, self.write_stall)?;
        write!(f, "deferral {} frame {} grace {} ", self.max_deferral, self.frame_max_time, self.close_grace)?;
        write!(f, "guard {} answers_pings {} ", self.stall_guard, self.answers_pings)?;
        write!(f, "adaptive {} on_miss {:?} {:?}", self.adaptive, self.miss_client, self.miss_upstream)
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.newest_only {
            f.write_str("newest ping only; ")?;
        }
        if self.pace > 0 || self.buffer > 0 {
            write!(f, "reads {} B/s, buffer {}; ", self.pace, self.buffer)?;
        }
        let steps: Vec<_> = self.steps.iter().map(|step| format!("{step:?}")).collect();
        write!(f, "{}", steps.join(" → "))
    }
}
