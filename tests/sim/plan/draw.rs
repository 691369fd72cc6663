//! A plan drawn from a seed.

use std::time::Duration;

use fastrand::Rng;

use super::{Behaviour, EndKind, Event, Link, Plan, Reading, SessionPlan, Talk, Trouble, policies};

/// Every seed that this divides has TLS on its client legs.
const TLS_EVERY: u64 = 10;
/// The latest beginning of the last event of a plan, in seconds.
const EVENTS_UNTIL: f64 = 60.0;

/// Draws a time in seconds, in whole milliseconds.
pub fn seconds(rng: &mut Rng, from: f64, to: f64) -> Duration {
    let drawn = Duration::from_secs_f64(from + (to - from) * rng.f64());
    Duration::from_millis(u64::try_from(drawn.as_millis()).expect("short"))
}

impl Plan {
    /// Returns the plan of `seed`, with up to `sessions` sessions; all of them where there are more than 15.
    pub fn draw(seed: u64, sessions: usize) -> Self {
        let mut rng = Rng::with_seed(seed);
        let is_crowd = sessions > 15;
        let count = if is_crowd { sessions } else { rng.usize(1..=sessions) };
        let hosts = if is_crowd { 10 } else { count.min(6) };
        let least = Duration::from_millis(rng.u64(1..80));
        let routes = rng.usize(1..=4);
        let first: Vec<_> = (0..routes).map(|_| policies::draw(&mut rng)).collect();
        // A reload changes times and codes; the protocols of clients and apps stay.
        let mut generations = vec![first.clone()];
        for _ in 0..2 {
            generations.push(first.iter().map(|policy| policies::redraw(&mut rng, policy)).collect());
        }
        let all = (0..count).map(|number| session(&mut rng, number, hosts, routes, is_crowd)).collect();
        let mut plan = Self {
            seed,
            tls: seed.is_multiple_of(TLS_EVERY),
            latency: (least, least + Duration::from_millis(rng.u64(1..200))),
            receive: 1 << rng.u32(14..=18),
            send: 1 << rng.u32(14..=18),
            hosts,
            generations,
            sessions: all,
            events: Vec::new(),
            length: Duration::from_secs(80),
        };
        plan.draw_events(&mut rng);
        plan
    }

    fn draw_events(&mut self, rng: &mut Rng) {
        let count = self.sessions.len();
        for host in 0..self.hosts {
            let mut from = 3.0;
            while rng.u8(..5) < 3 {
                let at = seconds(rng, from, EVENTS_UNTIL);
                let lasts = if rng.bool() { seconds(rng, 0.2, 4.0) } else { seconds(rng, 3.0, 25.0) };
                self.events.push((at, Event::Trouble { link: Link::Client(host), trouble: trouble(rng), lasts }));
                from = (at + lasts).as_secs_f64() + 1.0;
                if from >= EVENTS_UNTIL {
                    break;
                }
            }
        }
        if rng.u8(..3) == 0 {
            let (at, lasts) = (seconds(rng, 5.0, EVENTS_UNTIL), seconds(rng, 0.5, 12.0));
            self.events.push((at, Event::Trouble { link: Link::App, trouble: trouble(rng), lasts }));
        }
        for _ in 0..rng.usize(..=2) {
            self.events.push((seconds(rng, 1.0, 30.0), Event::Reload));
        }
        for _ in 0..rng.usize(..=count.div_ceil(6)) {
            let session = rng.usize(..count);
            let event = match rng.u8(..6) {
                0 => Event::Abort { session },
                1 => Event::PlayDead { session },
                _ => Event::Kill { session, code: 4000 + rng.u16(..100) },
            };
            self.events.push((seconds(rng, 5.0, EVENTS_UNTIL), event));
        }
        if rng.u8(..12) == 0 {
            self.events.push((seconds(rng, 20.0, EVENTS_UNTIL), Event::GiveUp));
        }
        if rng.u8(..3) == 0 {
            let window = seconds(rng, 0.5, 10.0);
            self.events.push((seconds(rng, 25.0, EVENTS_UNTIL), Event::Drain { window }));
        }
        if rng.u8(..3) == 0 {
            let lasts = if rng.bool() { seconds(rng, 0.2, 4.0) } else { seconds(rng, 3.0, 30.0) };
            self.events.push((seconds(rng, 3.0, EVENTS_UNTIL), Event::Stop { lasts }));
        }
        self.events.sort_by_key(|(at, _)| *at);
    }
}

fn trouble(rng: &mut Rng) -> Trouble {
    match rng.u8(..12) {
        0..=2 => Trouble::Partition,
        3 => Trouble::Downlink,
        4 => Trouble::Uplink,
        5..=7 => Trouble::Hold,
        8..=9 => Trouble::Latency(seconds(rng, 0.2, 3.0)),
        10 => Trouble::PowerOff,
        _ => Trouble::Crash,
    }
}

fn session(rng: &mut Rng, number: usize, hosts: usize, routes: usize, is_crowd: bool) -> SessionPlan {
    let start = seconds(rng, 0.1, 25.0);
    let (mut client, mut app) = (behaviour(rng), behaviour(rng));
    client.echoes = false;
    if rng.u8(..3) > 0 {
        app.end = None;
    }
    if rng.u8(..3) > 0 {
        (app.stopped, app.reading) = (None, Reading::Prompt);
    }
    app.mute_from = None;
    app.uplink = None;
    if is_crowd {
        for end in [&mut client, &mut app] {
            if let Talk::Flood { count, .. } = &mut end.talk {
                *count /= 10;
            }
            if let Talk::Huge { len, .. } = &mut end.talk {
                *len /= 10;
            }
        }
    }
    SessionPlan {
        number,
        host: number % hosts,
        start,
        route: rng.usize(..routes),
        max_age: (rng.u8(..8) == 0).then(|| seconds(rng, 10.0, 50.0)),
        grain: if rng.u8(..3) == 0 { rng.usize(6..=64) } else { usize::MAX },
        client,
        app,
    }
}

fn behaviour(rng: &mut Rng) -> Behaviour {
    let at = seconds(rng, 5.0, 50.0);
    let talk = match rng.u8(..20) {
        0..=6 => Talk::Nothing,
        7..=13 => Talk::Messages {
            every: seconds(rng, 0.1, 4.0),
            len: 1 << rng.u32(3..14),
            fragments: if rng.u8(..3) == 0 { rng.usize(2..5) } else { 1 },
        },
        14..=15 => Talk::Flood { at, count: rng.usize(200..2000), len: rng.usize(9..40) },
        16..=17 => Talk::Flood { at, count: rng.usize(5..40), len: rng.usize(1000..60_000) },
        _ => {
            let chunk = 1 << rng.u32(4..13);
            Talk::Huge { at, len: chunk * rng.usize(10..150), chunk, every: seconds(rng, 0.05, 1.0) }
        }
    };
    let reading = match rng.u8(..10) {
        0..=8 => Reading::Prompt,
        _ => Reading::Slow { bytes_per_second: 1 << rng.u32(9..17) },
    };
    let stopped = (rng.u8(..8) == 0).then(|| {
        let from = seconds(rng, 5.0, 50.0);
        let lasts = if rng.bool() { seconds(rng, 0.5, 5.0) } else { seconds(rng, 5.0, 120.0) };
        (from, from + lasts)
    });
    let code = if rng.u8(..4) == 0 { 1005 } else { 3000 + rng.u16(..1000) };
    let kind = match rng.u8(..9) {
        0..=4 => EndKind::Close(code),
        5..=6 => EndKind::CloseAndFin(code),
        7 => EndKind::Fin,
        _ => EndKind::Reset,
    };
    Behaviour {
        talk,
        reading,
        uplink: (rng.u8(..8) == 0).then(|| 1 << rng.u32(8..14)),
        stopped,
        mute_from: (rng.u8(..12) == 0).then(|| seconds(rng, 5.0, 50.0)),
        pings: (rng.u8(..6) == 0).then(|| seconds(rng, 0.3, 5.0)),
        echoes: rng.bool(),
        end: rng.bool().then(|| (seconds(rng, 3.0, 55.0), kind)),
    }
}
