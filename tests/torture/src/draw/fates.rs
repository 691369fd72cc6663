//! The fates of sessions: their intended ends, and the steps that bring them about.

use fastrand::Rng;

use super::{Block, acts, chance, pick};
use crate::plan::{Fate, Heartbeat, Invalid, Millis, Mode, Session, Step};

/// The fates, with their weights.
pub(super) const FATES: &[(Fate, u32)] = &[
    (Fate::ClientDies, 26),
    (Fate::ClientClose, 22),
    (Fate::AppClose, 22),
    (Fate::ClientBlocks, 3),
    (Fate::ClientTrickles, 3),
    (Fate::ClientFin, 4),
    (Fate::AppFin, 4),
    (Fate::ClientReset, 4),
    (Fate::AppReset, 4),
    (Fate::ClientInvalid, 4),
    (Fate::AppInvalid, 3),
    (Fate::AppFreezes, 4),
    (Fate::Drained, 6),
];

/// Draws a fate, and fits the heartbeat to it.
pub(super) fn fate(rng: &mut Rng, block: &Block, beat: &mut Heartbeat) -> Fate {
    let mut fate = pick(rng, FATES);
    if block.freezes {
        return Fate::AppFreezes;
    }
    if fate == Fate::Drained && !block.drains {
        fate = Fate::ClientClose;
    }
    if fate.is_death() {
        // Without a heartbeat no proxy detects it; an adaptive window has no bound to judge by.
        beat.adaptive = false;
        if beat.mode == Mode::Off {
            beat.mode = Mode::Protocol;
        }
    }
    fate
}

/// Appends the steps that bring a fate about.
pub(super) fn end(rng: &mut Rng, session: &mut Session, alone: bool) {
    let flood = |rng: &mut Rng| Step::Flood { count: rng.usize(150..4000), most: rng.usize(0..=6) };
    let (client, app) = (&mut session.client.steps, &mut session.app.steps);
    match session.fate {
        Fate::ClientClose => {
            if chance(rng, 40) {
                client.push(flood(rng));
            }
            client.push(Step::Close(acts::close(rng)));
            if chance(rng, 30) {
                client.push(Step::Fin);
            }
        }
        Fate::AppClose => {
            if chance(rng, 30) {
                app.push(flood(rng));
            }
            app.push(Step::Close(acts::close(rng)));
            if chance(rng, 50) {
                app.push(Step::Fin);
            }
        }
        Fate::ClientFin => {
            client.push(Step::Fin);
            let pause: Millis = client.iter().map(|step| if let Step::Pause(time) = step { *time } else { 0 }).sum();
            app.push(Step::Pause(pause / 2));
            app.push(acts::message(rng, 5000));
        }
        Fate::AppFin => app.push(Step::Fin),
        Fate::ClientReset => client.push(Step::Reset),
        Fate::AppReset => app.push(Step::Reset),
        Fate::ClientInvalid => client.push(Step::Invalid(invalid(rng))),
        Fate::AppInvalid => app.push(Step::Invalid(invalid(rng))),
        Fate::Drained => {}
        Fate::ClientDies => {
            if chance(rng, 35) {
                client.push(flood(rng));
            }
            if chance(rng, 20) {
                // The app floods while the client dies.
                let pause: Millis =
                    client.iter().map(|step| if let Step::Pause(time) = step { *time } else { 0 }).sum();
                app.clear();
                app.extend([Step::Pause(pause), flood(rng)]);
            }
            let size = rng.usize(1..5000);
            let partial = Step::Partial { size, sent: rng.usize(1..size + 4) };
            let stopped = if alone { Step::Freeze(None) } else { Step::Mute };
            let gone = if alone { Step::Vanish } else { Step::Mute };
            client.push(match rng.u8(0..100) {
                0..35 => Step::Mute,
                35..60 => stopped,
                60..85 => gone,
                _ => partial,
            });
        }
        Fate::ClientBlocks => {
            session.client.buffer = 16 * 1024;
            let pause: Millis = client.iter().map(|step| if let Step::Pause(time) = step { *time } else { 0 }).sum();
            app.retain(|step| !matches!(step, Step::Slow { .. }));
            app.push(Step::Pause(pause));
            client.push(Step::Pace(None));
            app.extend((0..40).map(|_| acts::message(rng, 256 * 1024)));
        }
        Fate::ClientTrickles => {
            let millis = session.beat.frame_max_time * 3;
            client.push(Step::Slow { size: rng.usize(200..3000), millis, pieces: rng.usize(25..60) });
        }
        Fate::AppFreezes => {
            let size = rng.usize(10..5000);
            let partial = Step::Partial { size, sent: rng.usize(1..size + 2) };
            app.push(if chance(rng, 50) { partial } else { Step::Freeze(None) });
        }
    }
}

fn invalid(rng: &mut Rng) -> Invalid {
    let kinds = [
        Invalid::Opcode,
        Invalid::Reserved,
        Invalid::LongControl,
        Invalid::FragmentedControl,
        Invalid::Mask,
        Invalid::Length,
    ];
    kinds[rng.usize(0..kinds.len())]
}
