//! The events of one simulated world, all of which follow from the seed.

mod draw;
mod policies;

use std::fmt;
use std::time::Duration;

use pulsegate::heartbeat::Policy;

/// The messages that an end sends of its own.
#[derive(Clone, Copy, Debug)]
pub enum Talk {
    Nothing,
    Messages {
        every: Duration,
        len: usize,
        fragments: usize,
    },
    /// Many messages at once.
    Flood {
        at: Duration,
        count: usize,
        len: usize,
    },
    /// One message in one frame, in pieces of `chunk` bytes.
    Huge {
        at: Duration,
        len: usize,
        chunk: usize,
        every: Duration,
    },
}

/// The reading of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Prompt,
    Slow { bytes_per_second: usize },
}

/// The end of a session by one of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndKind {
    Close(u16),
    /// It does not wait for the answer, but reads on.
    CloseAndFin(u16),
    Fin,
    Reset,
}

/// The behaviour of an end.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    pub talk: Talk,
    pub reading: Reading,
    /// Bytes a second that its link carries from it.
    pub uplink: Option<usize>,
    /// The time in which its process is stopped; its host acknowledges what arrives.
    pub stopped: Option<(Duration, Duration)>,
    /// The time from which on it answers no ping and sends no heartbeat.
    pub mute_from: Option<Duration>,
    pub pings: Option<Duration>,
    pub echoes: bool,
    pub end: Option<(Duration, EndKind)>,
}

/// One session.
#[derive(Clone, Debug)]
pub struct SessionPlan {
    /// Its number, which it keeps when others are dropped.
    pub number: usize,
    /// The host of its client.
    pub host: usize,
    pub start: Duration,
    pub route: usize,
    pub max_age: Option<Duration>,
    /// The most bytes that one read at the proxy takes.
    pub grain: usize,
    pub client: Behaviour,
    pub app: Behaviour,
}

/// One side of the proxy's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Client(usize),
    App,
}

/// A fault of a link or its host for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Partition,
    /// Nothing from the proxy arrives.
    Downlink,
    /// Nothing arrives at the proxy.
    Uplink,
    /// Everything is held, and arrives at the end.
    Hold,
    Latency(Duration),
    /// The host has no power, and starts anew.
    PowerOff,
    /// The processes of the host are killed and start anew; its kernel ends their connections.
    Crash,
}

/// An event of one moment.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    Trouble {
        link: Link,
        trouble: Trouble,
        lasts: Duration,
    },
    /// Later sessions get the next generation of policies.
    Reload,
    Drain {
        window: Duration,
    },
    Kill {
        session: usize,
        code: u16,
    },
    Abort {
        session: usize,
    },
    PlayDead {
        session: usize,
    },
    /// The proxy's process is stopped and continued.
    Stop {
        lasts: Duration,
    },
    /// The app is given up: its clients are closed.
    GiveUp,
}

/// All events of one world.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub tls: bool,
    /// The latency of every link without its own.
    pub latency: (Duration, Duration),
    pub receive: usize,
    pub send: usize,
    pub hosts: usize,
    /// The policies of each route, in each generation.
    pub generations: Vec<Vec<Policy>>,
    pub sessions: Vec<SessionPlan>,
    pub events: Vec<(Duration, Event)>,
    /// The time at which the remaining sessions are closed.
    pub length: Duration,
}

impl Behaviour {
    /// An end that sends nothing of its own, reads at once and answers.
    pub const QUIET: Self = Self {
        talk: Talk::Nothing,
        reading: Reading::Prompt,
        uplink: None,
        stopped: None,
        mute_from: None,
        pings: None,
        echoes: false,
        end: None,
    };
}

impl Plan {
    /// Returns a plan of one session from the first second on, under `policy`, and nothing else.
    pub fn single(policy: Policy, client: Behaviour, app: Behaviour) -> Self {
        let session = SessionPlan {
            number: 0,
            host: 0,
            start: Duration::from_secs(1),
            route: 0,
            max_age: None,
            grain: usize::MAX,
            client,
            app,
        };
        Self {
            seed: 1,
            tls: false,
            latency: (Duration::from_millis(20), Duration::from_millis(20)),
            receive: 16 * 1024,
            send: 16 * 1024,
            hosts: 1,
            generations: vec![vec![policy]],
            sessions: vec![session],
            events: Vec::new(),
            length: Duration::from_secs(80),
        }
    }

    /// Returns the route's policy for a session that opens at `at`.
    pub fn policy(&self, route: usize, at: Duration) -> &Policy {
        let is_reload = |event: &&(Duration, Event)| matches!(event.1, Event::Reload) && event.0 <= at;
        let generation = self.events.iter().filter(is_reload).count();
        &self.generations[generation.min(self.generations.len() - 1)][route]
    }

    /// Returns the session `number`.
    pub fn session(&self, number: usize) -> &SessionPlan {
        self.sessions.iter().find(|session| session.number == number).expect("a session of this plan")
    }

    /// Returns whether anything happens to `link` after `from`, or still lasts then.
    pub fn is_troubled(&self, link: Link, from: Duration) -> bool {
        self.events.iter().any(|(at, event)| {
            matches!(event, Event::Trouble { link: other, lasts, trouble }
                if *other == link && *at + *lasts + trouble.aftermath(*lasts) >= from)
        })
    }

    /// Returns the total time for which the proxy's process is stopped.
    pub fn stopped(&self) -> Duration {
        let lasts = |event: &Event| if let Event::Stop { lasts } = event { *lasts } else { Duration::ZERO };
        self.events.iter().map(|(_, event)| lasts(event)).sum()
    }

    /// Returns the longest time that an end of a session may take.
    pub fn longest_end(&self) -> Duration {
        let policies = self.generations.iter().flatten();
        policies.map(|policy| policy.max_deferral + 2 * policy.close_grace).max().unwrap_or_default()
    }
}

impl Trouble {
    /// Returns the time that retransmissions may take after trouble that lasted for `lasts`.
    fn aftermath(self, lasts: Duration) -> Duration {
        match self {
            Self::Latency(latency) => 3 * latency,
            _ => lasts.min(Duration::from_secs(10)),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, tls, latency, receive, send, hosts, length, .. } = self;
        writeln!(
            f,
            "seed {seed}: tls {tls}, latency {latency:?}, windows {receive} and {send} bytes, {hosts} hosts of"
        )?;
        writeln!(f, "clients, all closed at {length:?}")?;
        for session in &self.sessions {
            let SessionPlan { number, host, start, route, max_age, grain, client, app } = session;
            writeln!(
                f,
                "session {number}: host {host}, start {start:?}, route {route}, age {max_age:?}, grain {grain}"
            )?;
            writeln!(f, "  client {client:?}\n  app    {app:?}\n  policy {:?}", self.policy(*route, *start))?;
        }
        for (at, event) in &self.events {
            writeln!(f, "{at:?}: {event:?}")?;
        }
        Ok(())
    }
}
