//! The events of a session of the model.

use super::*;

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The client sends a small frame.
    Speak,
    /// The client sends one frame for this long; it answers no ping meanwhile.
    Upload(Duration),
    /// The client sends one TLS record for this long, with a frame in it.
    Record(Duration),
    /// The app sends one frame for this long, no faster than the client reads.
    Stream(Duration),
    /// The app sends one frame of this many bytes.
    Download(u64),
    /// The client reads only this many bytes a second.
    ReadSlowly(u64, Duration),
    /// The app accepts no data from the proxy.
    AppIsSlow(Duration),
    AppPings,
    /// The app sends a probe message or another message.
    AppSpeaks,
    /// The app leaves a message open between two fragments.
    OpenMessage(Duration),
    /// The client leaves the next probe message unanswered, and sends something else.
    Skip,
    /// The process is suspended.
    Stop(Duration),
}

/// The signs of life of a client of the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Way {
    /// Pongs.
    Pings,
    /// Answers to the probe messages of the proxy and the app.
    Asked,
    /// Answers to the app's probe messages, sent at this interval.
    Watched { asks: Duration },
    /// Heartbeats at this interval; with `waits`, counted from the answer to the last one.
    Beats { every: Duration, waits: bool },
    /// A heartbeat after this much silence from the app.
    BeatsWhenQuiet { after: Duration },
    /// A heartbeat this long after its last message, only if the app has sent something since, which it does at this
    /// interval.
    BeatsWhenSpokenTo { after: Duration, spoken_to: Duration },
}

/// An item in flight to the client.
#[derive(Clone, Debug)]
pub(super) enum Cargo {
    Ping(Vec<u8>),
    Question { ours: bool },
    Answer,
    Word,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Death {
    /// Nothing arrives any more, in either direction.
    CablePulled,
    /// The kernel still acknowledges, but the program is dead; if messages are the heartbeat, the browser still answers
    /// pings.
    Hung,
}

#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) way: Way,
    pub(super) policy: Policy,
    pub(super) seed: u64,
    pub(super) kernel: bool,
    pub(super) rtt: Duration,
    /// The events, each after its pause.
    pub(super) events: Vec<(Duration, Event)>,
}
