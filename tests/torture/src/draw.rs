//! The generator: a pure function from a seed to a plan.

mod acts;
mod fates;

use fastrand::Rng;

use self::fates::{end, fate};
use crate::plan::{
    Fate, Heartbeat, Link, Liveness, Millis, Mode, Opening, Plan, Script, Session, Step, Stop, Transfer, Transport,
};

/// The number of seeds whose sessions run through one proxy.
pub const BATCH: u64 = 30;

/// The conditions that all seeds of a batch share.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Worker threads of the proxy.
    pub workers: usize,
    /// A stop of its process.
    pub stop: Option<Stop>,
    /// True if sessions stay until the drain.
    pub drains: bool,
    /// True if all apps freeze, so that none is available and `/readyz` must report it.
    pub freezes: bool,
    /// The heartbeat outside routes. No session uses it, and none may be affected by it.
    pub defaults: Heartbeat,
}

impl Block {
    /// Returns the conditions of the batch that contains a seed.
    pub fn of(seed: u64, tight: bool) -> Self {
        let mut rng = Rng::with_seed((seed / BATCH) ^ 0x5bd1_e995_7f4a_7c15);
        let freezes = seed / BATCH % 10 == 7;
        let stop = (!freezes && rng.u8(..) < 130).then(|| Stop { at: rng.u64(900..2500), length: rng.u64(1300..2000) });
        let mut defaults = heartbeat(&mut rng, tight);
        defaults.mode = Mode::Protocol;
        (defaults.interval, defaults.timeout, defaults.max_missed) = if tight { (50, 50, 1) } else { (200, 200, 1) };
        Self { workers: rng.usize(1..=2), stop, drains: !freezes && rng.u8(..) < 100, freezes, defaults }
    }
}

/// Moves the stop of the proxy into a stage of the connection that has a limit: the TLS handshake, a head, the app's
/// response, a frame.
fn meet(rng: &mut Rng, plan: &mut Plan, stop: Stop) {
    if plan.link.up == 0 && plan.link.holds.is_empty() && chance(rng, 35) {
        let at = stop.at.saturating_sub(rng.u64(50..250));
        plan.opening = Opening { at, bytes: rng.usize(1..700), pause: rng.u64(150..400) };
        if chance(rng, 30) && plan.transport == Transport::Http1 {
            plan.opening.bytes = 0;
            plan.sessions[0].answers_after = rng.u64(200..450);
        }
    }
    // A frame gets a new time limit after a stop: one that is to exceed it must take longer still.
    for session in plan.sessions.iter_mut().filter(|session| session.fate == Fate::ClientTrickles) {
        if let Some(Step::Slow { millis, pieces, .. }) = session.client.steps.last_mut() {
            *millis += 2 * stop.length;
            *pieces *= 2;
        }
    }
    for session in plan.sessions.iter_mut().filter(|session| !session.fate.is_death() && plan.link.up == 0) {
        let slow = |step: &Step| if let Step::Slow { millis, .. } = step { *millis } else { 0 };
        let longest = session.client.steps.iter().map(slow).max().unwrap_or(0);
        let app_reads = session.app.pace == 0 && !session.app.steps.contains(&Step::Pace(None));
        if longest > 0 && app_reads && plan.transport == Transport::Http1 {
            session.beat.frame_max_time = longest + 900;
        }
    }
}

fn chance(rng: &mut Rng, percent: u8) -> bool {
    rng.u8(0..100) < percent
}

fn pick<T: Copy>(rng: &mut Rng, weights: &[(T, u32)]) -> T {
    let mut left = rng.u32(0..weights.iter().map(|(_, weight)| weight).sum());
    for &(item, weight) in weights {
        if left < weight {
            return item;
        }
        left -= weight;
    }
    weights[0].0
}

/// Returns the plan of a seed.
pub fn plan(seed: u64, tight: bool) -> Plan {
    let block = Block::of(seed, tight);
    let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491);
    let rng = &mut rng;
    let mut plan = if block.freezes || chance(rng, 68) { http1(rng, &block, tight) } else { http2(rng, &block, tight) };
    // The proxy takes what is in a link's receive buffer for delivered. The client gets it this much later.
    for rate in [plan.link.down, plan.link.up].into_iter().filter(|rate| *rate > 0) {
        let residence = 40_000 * 1000 / rate.max(40_000);
        for session in &mut plan.sessions {
            session.beat.timeout = session.beat.timeout.max(400 + 2 * residence);
        }
    }
    // A link of small pieces lags behind a flood, and a frame that is sent slowly after it arrives fast.
    if plan.sessions.iter().any(|session| session.fate == Fate::ClientTrickles) {
        plan.link.piece = 0;
    }
    plan.seed = seed;
    plan.stop = block.stop;
    if let Some(stop) = block.stop {
        meet(rng, &mut plan, stop);
    }
    plan
}

/// Returns a plan for any proxy: one session over HTTP/1.1, on a route whose `interval + timeout` is `bound`.
pub fn for_any_proxy(seed: u64, bound: Millis) -> Plan {
    let mut rng = Rng::with_seed(seed ^ 0x6c07_8965);
    let rng = &mut rng;
    let mut beat = heartbeat(rng, false);
    (beat.mode, beat.liveness, beat.max_missed, beat.adaptive) = (Mode::Protocol, Liveness::AnyBytes, 1, false);
    (beat.interval, beat.timeout, beat.answers_pings) = (bound / 2, bound - bound / 2, false);
    let fates =
        [(Fate::ClientDies, 35), (Fate::ClientClose, 25), (Fate::AppClose, 25), (Fate::AppFin, 8), (Fate::AppReset, 7)];
    let fate = pick(rng, &fates);
    let mut session = session(rng, beat, fate, true);
    (session.deflate, session.watched) = (false, None);
    // An idle time in which only a heartbeat can distinguish a live client from a dead one.
    let still = Step::Pause(bound * 3 / 2);
    session.client.steps.insert(0, still.clone());
    session.app.steps.insert(0, still);
    let mut link = Link::default();
    if matches!(fate, Fate::ClientClose | Fate::AppClose) && chance(rng, 35) {
        acts::burst(rng, &mut link, &mut session);
    } else if fate == Fate::ClientDies && chance(rng, 20) {
        acts::torrent(rng, &mut link, &mut session);
    }
    link.present |= session.client.steps.contains(&Step::Vanish);
    if session.client.steps.iter().any(|step| matches!(step, Step::Torrent { .. })) {
        // A Pong after a torrent is late because of the client itself.
        session.beat.liveness = match session.beat.liveness {
            Liveness::PongOnly => Liveness::AnyFrame,
            other => other,
        };
    }
    let sessions = vec![session];
    Plan {
        seed,
        transport: Transport::Http1,
        link,
        sessions,
        transfers: Vec::new(),
        stop: None,
        opening: Opening::default(),
    }
}

fn heartbeat(rng: &mut Rng, tight: bool) -> Heartbeat {
    let mode =
        pick(rng, &[(Mode::Protocol, 66), (Mode::App, 12), (Mode::Answer, 7), (Mode::Passive, 7), (Mode::Off, 8)]);
    let liveness = pick(rng, &[(Liveness::AnyBytes, 60), (Liveness::AnyFrame, 20), (Liveness::PongOnly, 20)]);
    let (interval, timeout) = if tight { (50..150, 60..200) } else { (200..500, 300..700) };
    let timeout = rng.u64(timeout);
    Heartbeat {
        mode,
        liveness: if matches!(mode, Mode::Answer | Mode::Passive) { Liveness::AnyBytes } else { liveness },
        interval: rng.u64(interval),
        timeout,
        window: if tight { 2 * timeout + 200 } else { rng.u64(900..1500) },
        max_missed: pick(rng, &[(1, 70), (2, 20), (3, 10)]),
        jitter: pick(rng, &[(20, 60), (0, 30), (100, 10)]),
        busy: if chance(rng, 50) { rng.u64(300..1500) } else { 100_000 },
        write_stall: rng.u64(1500..2500),
        max_deferral: 30_000,
        frame_max_time: 60_000,
        close_grace: rng.u64(200..600),
        stall_guard: pick(rng, &[(2000, 65), (1, 25), (50, 10)]),
        answers_pings: chance(rng, 25),
        miss_client: (pick(rng, &[(1012, 70), (4000, 10), (1013, 20)]), "heartbeat timeout".into()),
        miss_upstream: pick(rng, &[(Some(4408), 70), (Some(4999), 10), (None, 20)])
            .map(|code| (code, "heartbeat timeout".to_owned())),
        adaptive: chance(rng, 10),
    }
}

/// Makes the windows of a route so long that everything may be still for a while.
fn patient(rng: &mut Rng, beat: &mut Heartbeat) {
    beat.interval = rng.u64(500..1000);
    beat.timeout = rng.u64(2400..3000);
    beat.window = beat.window.max(4000);
    beat.busy = 100_000;
}

fn http1(rng: &mut Rng, block: &Block, tight: bool) -> Plan {
    let mut beat = heartbeat(rng, tight);
    let fate = fate(rng, block, &mut beat);
    let mut link = Link::default();
    let mut session = session(rng, beat, fate, true);
    dress_link(rng, &mut link, &session);
    let kind = rng.u8(0..100);
    let closing = matches!(fate, Fate::ClientClose | Fate::AppClose | Fate::AppFin | Fate::Drained | Fate::ClientFin);
    if closing && kind < 28 {
        acts::burst(rng, &mut link, &mut session);
    } else if closing && kind < 44 {
        acts::slow_upload(rng, &mut link, &mut session);
    } else if closing && kind < 56 {
        acts::long_frame(rng, &mut link, &mut session);
    } else if closing && kind < 66 {
        acts::slow_app(rng, &mut link, &mut session);
    } else if closing && kind < 74 {
        patient(rng, &mut session.beat);
        link.present = true;
        link.holds = vec![(rng.u64(300..1200), rng.u64(600..1000))];
    } else if closing && kind < 92 || fate == Fate::ClientDies && kind < 45 {
        acts::torrent(rng, &mut link, &mut session);
    }
    if session.client.steps.contains(&Step::Vanish) {
        link.present = true;
    }
    Plan {
        seed: 0,
        transport: Transport::Http1,
        link,
        sessions: vec![session],
        transfers: Vec::new(),
        stop: None,
        opening: Opening::default(),
    }
}

fn http2(rng: &mut Rng, block: &Block, tight: bool) -> Plan {
    let mut link = Link::default();
    let window = if chance(rng, 50) { 6 << 20 } else { 64 * 1024 };
    let mut transfers = Vec::new();
    let kind = rng.u8(0..100);
    let mut sessions: Vec<Session> = (0..rng.usize(1..=4))
        .map(|_| {
            let mut beat = heartbeat(rng, tight);
            let fate = if kind < 75 {
                if chance(rng, 50) { Fate::ClientClose } else { Fate::AppClose }
            } else {
                fate(rng, block, &mut beat)
            };
            session(rng, beat, fate, false)
        })
        .collect();
    let rate = rng.u64(60_000..240_000);
    if kind < 60 {
        // A slow link that all sessions share: none may be silent for longer than its own window because of the others.
        for session in &mut sessions {
            acts::calm(session);
            if matches!(session.beat.mode, Mode::Answer | Mode::Passive | Mode::App) {
                session.beat.mode = Mode::Protocol;
            }
        }
    }
    match kind {
        // Bursts over a slow link, of one session or of all.
        0..30 => {
            link.down = rate;
            let count = sessions.len();
            let bytes = (rate * rng.u64(1500..3500) / 1000) as usize / count;
            for session in &mut sessions {
                session.client.pace = 0;
                session.app.steps.insert(0, acts::message(rng, bytes));
            }
        }
        // Uploads beside idle sessions.
        30..50 => {
            link.up = rate / 4;
            let count = rng.usize(1..=3);
            for _ in 0..count {
                let up = (link.up * rng.u64(1000..2600) / 1000) as usize / count;
                transfers.push(Transfer { down: 100, up, at: rng.u64(0..500) });
            }
            for session in &mut sessions {
                session.beat.liveness = Liveness::AnyBytes;
            }
            // For a session that receives much, the answers that widen its adaptive window also queue behind the
            // uploads.
            if chance(rng, 50) {
                let size = rng.usize(80_000..250_000);
                sessions[0].app.steps.insert(0, acts::message(rng, size));
            }
        }
        // Downloads.
        50..60 => {
            link.down = rate;
            transfers.push(Transfer { down: (rate * rng.u64(1000..2500) / 1000) as usize, up: 0, at: rng.u64(0..400) });
        }
        // Routes with long windows, and a link that stands still for a while.
        60..75 => {
            for session in &mut sessions {
                patient(rng, &mut session.beat);
                if chance(rng, 30) {
                    session.beat.mode = Mode::Off;
                }
                let still = rng.u64(2000..3000);
                session.client.steps.insert(0, Step::Pause(still));
                session.app.steps.insert(0, Step::Pause(still));
            }
            link.holds = vec![(rng.u64(300..900), rng.u64(700..1000))];
        }
        _ => dress_link(rng, &mut link, &sessions[0]),
    }
    link.present = link != Link::default();
    Plan {
        seed: 0,
        transport: Transport::Http2 { window },
        link,
        sessions,
        transfers,
        stop: None,
        opening: Opening::default(),
    }
}

/// Adds delays and pieces that harm no session.
fn dress_link(rng: &mut Rng, link: &mut Link, session: &Session) {
    let least = session.beat.timeout.min(session.beat.window / 4);
    if chance(rng, 25) {
        link.delay = rng.u64(2..(least / 10).max(3));
    }
    let bytes = Plan::bytes(&session.client).max(Plan::bytes(&session.app));
    if chance(rng, 25) && bytes < 300_000 {
        link.piece = if bytes < 20_000 { rng.usize(1..60) } else { rng.usize(500..4000) };
    }
    link.present = *link != Link::default() || chance(rng, 20);
}

fn session(rng: &mut Rng, beat: Heartbeat, fate: Fate, alone: bool) -> Session {
    let mut session = Session {
        deflate: chance(rng, 30),
        client: Script { newest_only: chance(rng, 15), finishes: chance(rng, 50), ..Script::default() },
        app: Script { finishes: true, ..Script::default() },
        app_link: Link::default(),
        watched: match fate {
            Fate::AppFreezes => Some((rng.u64(200..500), rng.u64(200..500), rng.u64(1000..1600))),
            _ => chance(rng, 25).then(|| (rng.u64(300..800), 3000, 30_000)),
        },
        answers_after: 0,
        beat,
        fate,
    };
    if fate == Fate::ClientTrickles {
        session.beat.frame_max_time = rng.u64(700..1200);
        session.beat.liveness = Liveness::AnyBytes;
        session.beat.mode = Mode::Protocol;
    }
    if fate == Fate::ClientBlocks && matches!(session.beat.mode, Mode::Answer | Mode::Passive) {
        // A client that sends its own heartbeat is alive whether it reads or not.
        session.beat.mode = Mode::Protocol;
    }
    if fate == Fate::AppFreezes {
        session.beat.mode = pick(rng, &[(Mode::Protocol, 80), (Mode::Off, 20)]);
    }
    let beat = session.beat.clone();
    session.client.steps = acts::client(rng, &beat, alone);
    session.app.steps = acts::app(rng, &beat);
    let quiet = Step::Pause(acts::quiet(rng, &beat));
    let at = rng.usize(0..=session.client.steps.len());
    session.client.steps.insert(at, quiet.clone());
    session.app.steps.insert(rng.usize(0..=session.app.steps.len()), quiet);
    end(rng, &mut session, alone);
    session
}

#[cfg(test)]
mod tests {
    use super::fates::FATES;
    use super::*;

    #[test]
    fn a_seed_gives_one_plan() {
        for seed in 0..200 {
            assert_eq!(plan(seed, false), plan(seed, false), "seed {seed}");
        }
    }

    #[test]
    fn every_fate_mode_and_transport_is_drawn_within_300_seeds() {
        let plans: Vec<Plan> = (0..300).map(|seed| plan(seed, false)).collect();
        let text: String = plans.iter().map(ToString::to_string).collect();
        for (fate, _) in FATES {
            let found = plans.iter().flat_map(|plan| &plan.sessions).filter(|session| session.fate == *fate).count();
            assert!(found >= 2, "{fate:?} was drawn {found} times");
        }
        for word in
            ["Protocol", "App ", "Answer", "Passive", "Off", "Http1", "Http2", "Flood", "Vanish", "Freeze(None)"]
        {
            assert!(text.contains(word), "{word} was not drawn");
        }
    }

    #[test]
    fn one_seed_in_twelve_floods_its_peer_for_longer_than_a_heartbeat_takes() {
        let floods = |script: &Script| script.steps.iter().any(|step| matches!(step, Step::Torrent { .. }));
        let plans = (0..300).map(|seed| plan(seed, false));
        let count = plans.filter(|plan| plan.sessions.iter().any(|s| floods(&s.client) || floods(&s.app))).count();
        assert!(count >= 25, "{count} of 300");
    }

    #[test]
    fn a_plan_takes_seconds_at_most() {
        for seed in 0..2000 {
            let plan = plan(seed, false);
            assert!(plan.length() < 14_000, "{} ms:\n{plan}", plan.length());
        }
    }
}
