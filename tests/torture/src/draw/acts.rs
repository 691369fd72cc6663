//! The actions of which scripts consist.

use fastrand::Rng;

use super::{chance, pick};
use crate::plan::{Heartbeat, Link, Liveness, Millis, Mode, Plan, Script, Session, Step};

/// Returns a message of about this many bytes.
pub(super) fn message(rng: &mut Rng, size: usize) -> Step {
    let fragments = if chance(rng, 30) { rng.usize(2..6) } else { 1 };
    Step::Message {
        size,
        fragments,
        text: chance(rng, 40),
        ping: fragments > 1 && chance(rng, 30),
        rsv1: chance(rng, 50),
    }
}

fn size(rng: &mut Rng) -> usize {
    let most = pick(rng, &[(8, 25), (130, 25), (5000, 25), (70_000, 20), (300_000, 5)]);
    rng.usize(0..most)
}

/// Returns a time in which the heartbeat has to act.
pub(super) fn quiet(rng: &mut Rng, beat: &Heartbeat) -> Millis {
    let bound = beat.bound();
    rng.u64(bound..bound + bound / 2).min(2600)
}

/// Returns true if a client of this route may be inside a frame for long without being dead.
fn may_be_slow(beat: &Heartbeat) -> bool {
    beat.mode == Mode::Off || beat.mode == Mode::Protocol && beat.liveness == Liveness::AnyBytes
}

/// Returns the time for which a live client may be unable to answer.
fn tolerable(beat: &Heartbeat) -> Millis {
    match beat.mode {
        Mode::Answer | Mode::Passive => (beat.window / 4).min(beat.timeout / 4),
        _ => beat.timeout / 4,
    }
}

/// Returns the actions of a live client. `alone`: its connection has no other session.
pub(super) fn client(rng: &mut Rng, beat: &Heartbeat, alone: bool) -> Vec<Step> {
    (0..rng.usize(1..5)).map(|_| client_act(rng, beat, alone)).collect()
}

fn client_act(rng: &mut Rng, beat: &Heartbeat, alone: bool) -> Step {
    let size = size(rng);
    match rng.u8(0..100) {
        0..40 => message(rng, size),
        40..55 => Step::Flood { count: rng.usize(1..2500), most: rng.usize(0..=6) },
        55..67 => {
            let millis = if may_be_slow(beat) { rng.u64(200..1800) } else { tolerable(beat) };
            Step::Slow { size: size.max(3), millis, pieces: rng.usize(10..60) }
        }
        67..74 => Step::Ping(rng.usize(0..=125)),
        74..80 => Step::Pong(rng.usize(0..=125)),
        80..88 if alone => Step::Freeze(Some(rng.u64(5..=tolerable(beat).max(6)))),
        _ => Step::Pause(rng.u64(20..400)),
    }
}

/// Returns the actions of an app.
pub(super) fn app(rng: &mut Rng, beat: &Heartbeat) -> Vec<Step> {
    (0..rng.usize(0..5)).map(|_| app_act(rng, beat)).collect()
}

fn app_act(rng: &mut Rng, beat: &Heartbeat) -> Step {
    let size = size(rng);
    match rng.u8(0..100) {
        0..45 => message(rng, size),
        45..55 => Step::Flood { count: rng.usize(1..2500), most: rng.usize(0..=6) },
        55..65 => Step::Slow { size: size.max(3), millis: rng.u64(100..1500), pieces: rng.usize(5..40) },
        65..77 => Step::Ping(pick(rng, &[(0, 30), (4, 20), (8, 20), (125, 30)])),
        77..82 => Step::Pong(rng.usize(0..=125)),
        82..88 => Step::Freeze(Some(rng.u64(5..=beat.timeout.max(6)))),
        _ => Step::Pause(rng.u64(20..400)),
    }
}

/// Returns a legal Close (RFC 6455 §7.4), or an empty one.
pub(super) fn close(rng: &mut Rng) -> Option<(u16, String)> {
    let code = match rng.u8(0..100) {
        0..15 => return None,
        15..60 => 1000,
        60..85 => pick(
            rng,
            &[
                (1001, 1),
                (1002, 1),
                (1003, 1),
                (1007, 1),
                (1008, 1),
                (1009, 1),
                (1010, 1),
                (1011, 1),
                (1013, 1),
                (1014, 1),
            ],
        ),
        85..92 => rng.u16(3000..4000),
        _ => rng.u16(4000..5000),
    };
    let reason = if chance(rng, 50) { String::new() } else { (0..rng.usize(1..60)).map(|_| rng.lowercase()).collect() };
    Some((code, reason))
}

/// Returns the position of the step that ends a script.
fn last(script: &Script) -> usize {
    let ends = |step: &Step| matches!(step, Step::Close(_) | Step::Fin | Step::Reset);
    script.steps.iter().position(ends).unwrap_or(script.steps.len())
}

/// Lets the app send a burst that the client takes slowly: by its own pace, or by its link.
pub(super) fn burst(rng: &mut Rng, link: &mut Link, session: &mut Session) {
    calm(session);
    let at = last(&session.app);
    for _ in 0..rng.usize(1..=2) {
        let size = rng.usize(200_000..1_500_000);
        session.app.steps.insert(at, message(rng, size));
    }
    let rate = (Plan::bytes(&session.app) as u64 * 1000 / rng.u64(1200..3200)).max(60_000);
    if chance(rng, 50) {
        link.down = rate;
        link.piece = 0;
        link.present = true;
    } else {
        session.client.pace = rate;
        session.client.buffer = 16 * 1024;
    }
}

/// Lets the client upload over a slow link: its frames, and the TLS records under them, arrive in pieces.
pub(super) fn slow_upload(rng: &mut Rng, link: &mut Link, session: &mut Session) {
    calm(session);
    if session.beat.mode != Mode::Off {
        session.beat.mode = Mode::Protocol;
    }
    session.beat.liveness = Liveness::AnyBytes;
    let size = rng.usize(6000..40_000);
    session.client.steps.insert(0, message(rng, size));
    let bytes = Plan::bytes(&session.client) as u64;
    link.up = (bytes * 1000 / rng.u64(1200..2800)).max(1500);
    link.piece = if chance(rng, 50) { 0 } else { rng.usize(20..1000) };
    link.present = true;
}

/// Lets the app send one frame for longer than clocks may be frozen; the client reads at full speed.
pub(super) fn long_frame(rng: &mut Rng, link: &mut Link, session: &mut Session) {
    calm(session);
    link.piece = 0;
    session.beat.max_deferral = rng.u64(500..1000);
    let millis = session.beat.max_deferral + session.beat.bound() + rng.u64(500..1200);
    let at = rng.usize(0..=last(&session.app));
    let size = rng.usize(500..60_000);
    session.app.steps.insert(at, Step::Slow { size, millis, pieces: rng.usize(30..90) });
    session.client.steps.insert(0, Step::Pause(millis.min(3500)));
}

/// Lets the client, the app or both flood their peer with tiny messages for longer than a heartbeat takes, up to the
/// end of their scripts. No part of the path may be slower than the proxy.
pub(super) fn torrent(rng: &mut Rng, link: &mut Link, session: &mut Session) {
    let beat = &session.beat;
    let time = match beat.mode {
        Mode::Answer | Mode::Passive => beat.window,
        _ => beat.interval + beat.timeout,
    };
    let by = if session.fate.is_death() { [(0, 75), (1, 10), (2, 15)] } else { [(0, 40), (1, 40), (2, 20)] };
    let by = pick(rng, &by);
    let dies = |step: &Step| matches!(step, Step::Mute | Step::Freeze(None) | Step::Vanish | Step::Partial { .. });
    let step = |rng: &mut Rng| Step::Torrent {
        millis: time + rng.u64(50..400),
        size: pick(rng, &[(0, 50), (1, 20), (6, 20), (8, 10)]),
        burst: pick(rng, &[(4096, 60), (1500, 20), (200, 10), (8, 10)]),
    };
    if by != 1 {
        // A client that vanishes needs a link, and a link is slower than a proxy.
        if session.client.steps.last() == Some(&Step::Vanish) && chance(rng, 75) {
            session.client.steps.pop();
            session.client.steps.push(Step::Mute);
        }
        let at = session.client.steps.iter().position(dies).unwrap_or_else(|| last(&session.client));
        session.client.steps.insert(at, step(rng));
    }
    if by != 0 {
        let at = last(&session.app);
        session.app.steps.insert(at, step(rng));
    }
    if !chance(rng, 15) {
        *link = Link::default();
    }
    (link.piece, link.down, link.up) = (0, 0, 0);
}

/// Lets the app read slowly, or not at all for a while.
pub(super) fn slow_app(rng: &mut Rng, link: &mut Link, session: &mut Session) {
    link.piece = 0;
    let at = last(&session.client);
    let size = rng.usize(200_000..1_200_000);
    session.client.steps.insert(at, message(rng, size));
    session.app.buffer = 16 * 1024;
    if chance(rng, 50) {
        session.app.pace = (Plan::bytes(&session.client) as u64 * 1000 / rng.u64(1000..3000)).max(60_000);
    } else {
        let stop = Step::Pause(rng.u64(500..2500));
        session.app.steps.splice(0..0, [Step::Pace(None), stop, Step::Pace(Some(0))]);
    }
}

/// Removes the steps that would make a slow session last too long.
pub(super) fn calm(session: &mut Session) {
    let long = |step: &Step| matches!(step, Step::Slow { .. } | Step::Freeze(_)) || step.bytes() > 20_000;
    session.client.steps.retain(|step| !long(step));
    session.app.steps.retain(|step| !long(step));
}
