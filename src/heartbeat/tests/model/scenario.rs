//! Compiled under `#[cfg(test)]` only.
//!
//! What happens to a session of the model.

use super::*;

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The client sends a small frame.
    Speak,
    /// The client sends one frame that lasts; it answers no ping meanwhile.
    Upload(Duration),
    /// The client sends one TLS record that lasts, with a frame in it.
    Record(Duration),
    /// The app sends one frame for so long, no faster than the client reads.
    Stream(Duration),
    /// The app sends one frame of so many bytes.
    Download(u64),
    /// The client reads so many bytes a second only.
    ReadSlowly(u64, Duration),
    /// The app takes nothing from the proxy.
    AppIsSlow(Duration),
    AppPings,
    /// The app asks, or says something.
    AppSpeaks,
    /// The app leaves a message open between two fragments.
    OpenMessage(Duration),
    /// The client leaves the next question unanswered, and says something else.
    Skip,
    /// The process is stopped.
    Stop(Duration),
}

/// What keeps a client of the model alive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Way {
    /// Its pongs.
    Pings,
    /// Its answers to the proxy's questions and the app's.
    Asked,
    /// Its answers to the app's questions, which come this often.
    Watched { asks: Duration },
    /// It beats this often; `waits`: after the answer to the last beat has come.
    Beats { every: Duration, waits: bool },
    /// It beats when it has heard nothing for so long.
    BeatsWhenQuiet { after: Duration },
    /// It beats so long after its last word, but only where it has been spoken to since, which happens this often.
    BeatsWhenSpokenTo { after: Duration, spoken_to: Duration },
}

/// What is under way to the client.
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
    /// The kernel goes on acknowledging, nobody is behind it; but where messages are the heartbeat, a browser that
    /// answers pings.
    Hung,
}

#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) way: Way,
    pub(super) policy: Policy,
    pub(super) seed: u64,
    pub(super) kernel: bool,
    pub(super) rtt: Duration,
    /// Each after its pause.
    pub(super) events: Vec<(Duration, Event)>,
}
