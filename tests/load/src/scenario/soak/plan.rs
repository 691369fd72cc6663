//! The plan of one session, drawn from a seed before it begins.

use std::time::Duration;

/// The longest message, in bytes.
pub(super) const LARGEST: usize = 1024 * 1024;

/// The end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Way {
    /// The client sends a Close with this code.
    ClientClose(u16),
    /// The app sends a Close with this code after its last echo.
    AppClose(u16),
    /// The client resets its connection, or its stream.
    ClientReset,
    /// The app resets its connection.
    AppReset,
    /// The client ends its direction without a Close, and continues to read.
    HalfClose,
    /// The client continues to read, but sends nothing more.
    Mute,
    /// The client neither reads nor sends.
    Frozen,
    /// The client answers pings for this time, exchanges one more message, and closes with 1000.
    Idle(Duration),
}

impl Way {
    /// Returns the name in figures, without the values.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ClientClose(_) => "ended_client_close",
            Self::AppClose(_) => "ended_app_close",
            Self::ClientReset => "ended_client_reset",
            Self::AppReset => "ended_app_reset",
            Self::HalfClose => "ended_half_close",
            Self::Mute => "ended_mute",
            Self::Frozen => "ended_frozen",
            Self::Idle(_) => "ended_idle",
        }
    }

    /// Returns the labels `initiator`, `reason` and `code` under which the proxy must count the end.
    pub(super) fn labels(self) -> [&'static str; 3] {
        match self {
            Self::ClientClose(code) => ["client", "normal", code_label(code)],
            Self::AppClose(code) => ["upstream", "normal", code_label(code)],
            Self::ClientReset => ["client", "client_lost", "1006"],
            Self::AppReset => ["upstream", "upstream_lost", "1012"],
            Self::Mute | Self::Frozen => ["proxy", "heartbeat_timeout", "1012"],
            // The end of the client's direction comes first; the code is that of the Close with which the app answers.
            Self::HalfClose | Self::Idle(_) => ["client", "normal", "1000"],
        }
    }

    /// Returns true if the proxy must find the client dead.
    pub(super) fn is_death(self) -> bool {
        matches!(self, Self::Mute | Self::Frozen)
    }
}

/// Returns the label of a Close code, for the codes used here.
fn code_label(code: u16) -> &'static str {
    match code {
        1000 => "1000",
        1001 => "1001",
        3000..=3999 => "3xxx",
        4000..=4999 => "4xxx",
        _ => "other",
    }
}

/// One message and its echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Payload bytes.
    pub(super) length: usize,
    /// Frames in which it is sent.
    pub(super) fragments: usize,
    /// True if the client sends a Ping after the first frame.
    pub(super) ping: bool,
    /// The pause before it is sent.
    pub(super) pause: Duration,
}

/// The plan of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The session's number.
    pub(super) id: u64,
    /// True if the client reads slowly.
    pub(super) slow: bool,
    /// True if the app sends a Ping after each echo.
    pub(super) app_pings: bool,
    /// The messages, in order.
    pub(super) messages: Vec<Message>,
    /// The end.
    pub(super) way: Way,
}

/// The limits of the draw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Sessions that read slowly, in percent.
    pub(super) slow_percent: u8,
    /// The longest pause before a message.
    pub(super) pause: Duration,
    /// The longest idle time.
    pub(super) idle: Duration,
}

impl Plan {
    /// Returns the plan of session `id` of a run with this seed.
    pub(super) fn draw(seed: u64, id: u64, extent: Extent) -> Self {
        // Consecutive numbers must give independent plans.
        let mut random = fastrand::Rng::with_seed(seed ^ id.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let slow = random.u8(..100) < extent.slow_percent;
        let count = if slow { random.usize(2..4) } else { random.usize(2..12) };
        let mut messages: Vec<Message> = (0..count).map(|_| Message::draw(&mut random, slow, extent)).collect();
        let way = Way::draw(&mut random, extent);
        // A Ping after the message that the app answers with its Close gets no Pong.
        if let (Way::AppClose(_), Some(last)) = (way, messages.last_mut()) {
            last.ping &= last.fragments > 1 && last.length > 1;
        }
        Self { id, slow, app_pings: random.u8(..100) < 30, messages, way }
    }

    /// Returns the path of the session's request.
    pub(super) fn path(&self) -> String {
        format!("/soak/{}", self.id)
    }
}

impl Way {
    fn draw(random: &mut fastrand::Rng, extent: Extent) -> Self {
        match random.u8(..100) {
            0..22 => Self::ClientClose([1000, 1001, 3001, 4001][random.usize(..4)]),
            22..36 => Self::AppClose([1000, 3002, 4003][random.usize(..3)]),
            36..50 => Self::ClientReset,
            50..56 => Self::AppReset,
            56..66 => Self::HalfClose,
            66..78 => Self::Mute,
            78..86 => Self::Frozen,
            _ => Self::Idle(extent.idle.mul_f64(0.3 + 0.7 * random.f64())),
        }
    }
}

impl Message {
    fn draw(random: &mut fastrand::Rng, slow: bool, extent: Extent) -> Self {
        let length = match random.u8(..100) {
            _ if slow => LARGEST,
            0..30 => 1,
            30..60 => random.usize(1..200),
            60..90 => random.usize(200..16_384),
            90..96 => random.usize(16_384..200_000),
            _ => LARGEST,
        };
        let fragments = if random.u8(..100) < 30 { random.usize(2..6) } else { 1 };
        Self { length, fragments, ping: random.u8(..100) < 25, pause: extent.pause.mul_f64(random.f64()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const EXTENT: Extent = Extent { slow_percent: 8, pause: Duration::from_secs(4), idle: Duration::from_secs(100) };

    #[test]
    fn a_seed_gives_the_same_sessions_again() {
        for id in 0..100 {
            assert_eq!(Plan::draw(7, id, EXTENT), Plan::draw(7, id, EXTENT));
        }
        assert_ne!(Plan::draw(7, 3, EXTENT), Plan::draw(8, 3, EXTENT));
    }

    #[test]
    fn every_way_and_every_size_is_drawn() {
        let plans: Vec<Plan> = (0..1000).map(|id| Plan::draw(1, id, EXTENT)).collect();
        let ways: BTreeSet<&str> = plans.iter().map(|plan| plan.way.name()).collect();
        assert_eq!(ways.len(), 8, "{ways:?}");
        let lengths: BTreeSet<usize> = plans.iter().flat_map(|plan| &plan.messages).map(|it| it.length).collect();
        assert!(lengths.contains(&1) && lengths.contains(&LARGEST));
        assert!(plans.iter().any(|plan| plan.slow));
        assert!(plans.iter().all(|plan| plan.way != Way::Idle(Duration::ZERO)));
    }
}
