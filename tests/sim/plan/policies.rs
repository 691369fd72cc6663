//! Policies of every mode and every kind of liveness.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use pulsegate::heartbeat::{Builtin, ClientPing, Liveness, Mode, OnMiss, Policy, Role, UpstreamEnd};

use super::draw::seconds;

/// Draws other settings for the route of `policy`, of the same mode.
pub fn redraw(rng: &mut Rng, policy: &Policy) -> Policy {
    let other = draw(rng);
    let window = policy.window.map(|_| seconds(rng, 6.0, 15.0));
    Policy { mode: policy.mode.clone(), window, ..other }
}

/// Draws the policy of one route.
pub fn draw(rng: &mut Rng) -> Policy {
    let builtin = |role| Arc::new(Builtin::ExpressText.profile(role));
    let mode = match rng.u8(..20) {
        0..=11 => Mode::Protocol,
        12..=14 => Mode::App(builtin(Role::App)),
        15..=17 => Mode::Answer(builtin(Role::Answer)),
        18 => Mode::Off,
        _ => Mode::Protocol,
    };
    let timeout = seconds(rng, 2.0, 6.0);
    let upstream = if rng.bool() { OnMiss::default().upstream } else { UpstreamEnd::Disconnect };
    Policy {
        window: matches!(mode, Mode::Answer(_)).then(|| seconds(rng, 6.0, 15.0)),
        mode,
        interval: seconds(rng, 2.0, 10.0),
        timeout,
        max_missed: if rng.u8(..4) == 0 { rng.u32(2..=3) } else { 1 },
        jitter: 0.4 * rng.f64(),
        liveness: match rng.u8(..10) {
            0..=5 => Liveness::AnyBytes,
            6..=7 => Liveness::AnyFrame,
            _ => Liveness::PongOnly,
        },
        probe_when_busy: seconds(rng, 8.0, 25.0),
        write_stall: timeout + seconds(rng, 1.0, 8.0),
        max_deferral: seconds(rng, 15.0, 35.0),
        frame_max_time: seconds(rng, 15.0, 40.0),
        adaptive: rng.u8(..5) == 0,
        stall_guard: Duration::from_secs(2),
        client_ping: if rng.u8(..3) == 0 { ClientPing::Answer } else { ClientPing::Forward },
        on_miss: OnMiss { upstream, ..OnMiss::default() },
        close_grace: seconds(rng, 1.0, 3.0),
    }
}
