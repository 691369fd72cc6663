//! What happens in one simulated world: all of it follows from the seed.

mod draw;
mod policies;

use std::fmt;
use std::time::Duration;

use pulsegate::heartbeat::Policy;

/// What an end sends of its own.
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

/// How an end reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Prompt,
    Slow { bytes_per_second: usize },
}

/// How an end ends its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndKind {
    Close(u16),
    /// It does not wait for the answer, but reads on.
    CloseAndFin(u16),
    Fin,
    Reset,
}

/// What an end does.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    pub talk: Talk,
    pub reading: Reading,
    /// Bytes a second that its link takes of it.
    pub uplink: Option<usize>,
    /// Its process is stopped and goes on; its host acknowledges what comes.
    pub stopped: Option<(Duration, Duration)>,
    /// From when on it answers no ping and sends no heartbeat.
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

/// What happens to a link or its host for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Partition,
    /// Nothing of the proxy's arrives.
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

/// What happens at one moment.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    Trouble {
        link: Link,
        trouble: Trouble,
        lasts: Duration,
    },
    /// The next sessions have the next generation of policies.
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
    /// The app is given up: its clients are sent away.
    GiveUp,
}

/// All that happens in one world.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub tls: bool,
    /// Of every link that has no other.
    pub latency: (Duration, Duration),
    pub receive: usize,
    pub send: usize,
    pub hosts: usize,
    /// The policies of each route, in each generation.
    pub generations: Vec<Vec<Policy>>,
    pub sessions: Vec<SessionPlan>,
    pub events: Vec<(Duration, Event)>,
    /// When all sessions are closed that are left.
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
    /// One session from the first second on, under `policy`, and nothing else.
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

    /// The route's policy for a session that opens at `at`.
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

    /// How long the proxy's process is stopped in all.
    pub fn stopped(&self) -> Duration {
        let lasts = |event: &Event| if let Event::Stop { lasts } = event { *lasts } else { Duration::ZERO };
        self.events.iter().map(|(_, event)| lasts(event)).sum()
    }

    /// The longest time that an end of a session may take.
    pub fn longest_end(&self) -> Duration {
        let policies = self.generations.iter().flatten();
        policies.map(|policy| policy.max_deferral + 2 * policy.close_grace).max().unwrap_or_default()
    }
}

impl Trouble {
    /// How long retransmissions may take after trouble that lasted for `lasts`.
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
