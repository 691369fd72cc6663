//! The heartbeat engine between a client and an app that the input defines: a live client is never given up, a dead one
//! is within its bound, and each pong goes to the sender of its ping.
//!
//! Time is simulated, too, and passes from one event to the next. Only public functions of the engine are used.

mod chance;
mod world;

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use pulsegate::heartbeat::{Liveness, Mode, Policy};

use chance::Chance;
use world::World;

/// Runs one session according to `data`.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok((policy, chance)) = read(&mut input) else { return };
    let mut world = World::new(policy, chance);
    for _ in 0..40 {
        if input.is_empty() || world.end.is_some() || world.step(&mut input).is_err() {
            break;
        }
    }
    if world.chance.dies {
        world.die();
        world.expect_end();
    } else {
        world.run(Duration::from_secs(400));
        assert!(world.end.is_none(), "a live client was given up: {}", world.story());
    }
}

fn read(input: &mut Unstructured<'_>) -> Result<(Policy, Chance)> {
    let kinds: u8 = input.arbitrary()?;
    let timeout = seconds(input, 4, 40)?;
    let policy = Policy {
        mode: Mode::Protocol,
        interval: seconds(input, 1, 60)?,
        timeout,
        max_missed: input.int_in_range(1..=3)?,
        jitter: f64::from(input.int_in_range(0..=4_u8)?) / 4.0,
        liveness: [Liveness::AnyBytes, Liveness::AnyBytes, Liveness::AnyFrame, Liveness::PongOnly]
            [usize::from(kinds & 3)],
        probe_when_busy: seconds(input, 5, 200)?,
        adaptive: kinds & 4 != 0,
        stall_guard: if kinds & 8 == 0 { Duration::from_secs(2) } else { Duration::from_millis(1) },
        ..Policy::default()
    };
    let chance = Chance {
        dies: kinds & 16 != 0,
        hangs: kinds & 32 != 0,
        kernel: kinds & 64 != 0,
        latency: timeout.mul_f64(f64::from(input.int_in_range(0..=10_u8)?) / 25.0),
        rate: 1 << input.int_in_range(13..=22_u32)?,
        seed: input.arbitrary::<u8>()?.into(),
    };
    Ok((policy, chance))
}

fn seconds(input: &mut Unstructured<'_>, from: u64, to: u64) -> Result<Duration> {
    Ok(Duration::from_secs(input.int_in_range(from..=to)?))
}
