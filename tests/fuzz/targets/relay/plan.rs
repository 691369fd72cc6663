//! The input's choices before the session begins.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use pulsegate::heartbeat::{ClientPing, Liveness, Mode, OnMiss, Policy, UpstreamEnd};

/// The terms of the session, and the nature of its legs.
#[derive(Debug)]
pub struct Plan {
    pub policy: Policy,
    pub client: LegPlan,
    pub app: LegPlan,
    pub max_age: Option<Duration>,
    pub seed: u64,
}

/// The properties of one leg.
#[derive(Debug)]
pub struct LegPlan {
    pub moods: Vec<u8>,
    /// The size of the kernel's send buffer, if the kernel can be queried.
    pub kernel: Option<usize>,
    /// True if the leg has a buffer of its own, as TLS has.
    pub buffered: bool,
    /// True if the peer takes part in a closing handshake.
    pub polite: bool,
    /// The number of frames that the relay gets with the leg.
    pub early: u8,
}

pub fn seconds(input: &mut Unstructured<'_>, from: u64, to: u64) -> Result<Duration> {
    Ok(Duration::from_secs(input.int_in_range(from..=to)?))
}

impl Plan {
    pub fn read(input: &mut Unstructured<'_>) -> Result<Self> {
        let default = Policy::default();
        let kinds: u8 = input.arbitrary()?;
        let timeout = seconds(input, 4, 12)?;
        let policy = Policy {
            mode: if kinds & 7 == 7 { Mode::Off } else { Mode::Protocol },
            interval: seconds(input, 2, 10)?,
            timeout,
            max_missed: input.int_in_range(1..=3)?,
            jitter: if kinds & 8 == 0 { default.jitter } else { 1.0 },
            liveness: match kinds >> 4 & 3 {
                0 | 1 => Liveness::AnyBytes,
                2 => Liveness::AnyFrame,
                _ => Liveness::PongOnly,
            },
            probe_when_busy: seconds(input, 2, 40)?,
            write_stall: timeout + seconds(input, 0, 10)?,
            max_deferral: timeout + seconds(input, 10, 40)?,
            frame_max_time: seconds(input, 5, 40)?,
            client_ping: if kinds & 64 == 0 { ClientPing::Forward } else { ClientPing::Answer },
            on_miss: OnMiss {
                upstream: if kinds & 128 == 0 { default.on_miss.upstream } else { UpstreamEnd::Disconnect },
                ..default.on_miss
            },
            close_grace: seconds(input, 1, 4)?,
            ..Policy::default()
        };
        let (client, app) = (LegPlan::read(input)?, LegPlan::read(input)?);
        let max_age = input.ratio(1, 16)?.then(|| Duration::from_secs(9));
        Ok(Self { policy, client, app, max_age, seed: input.arbitrary::<u8>()?.into() })
    }

    /// Returns the time within which any session ends whose client is gone and whose app sends nothing, in whatever
    /// state it was.
    pub fn most(&self) -> Duration {
        let Policy { interval, timeout, max_missed, write_stall, max_deferral, frame_max_time, close_grace, .. } =
            self.policy;
        interval + timeout * (max_missed + 2) + write_stall * 2 + max_deferral * 3 + frame_max_time + close_grace * 3
    }
}

impl LegPlan {
    fn read(input: &mut Unstructured<'_>) -> Result<Self> {
        let kinds: u8 = input.arbitrary()?;
        let moods = input.int_in_range(0..=12)?;
        Ok(Self {
            moods: (0..moods).map(|_| input.arbitrary()).collect::<Result<_>>()?,
            kernel: (kinds & 1 != 0).then_some([0, 4096, 65_536, 262_144][usize::from(kinds >> 1 & 3)]),
            buffered: kinds & 8 != 0,
            polite: kinds & 0x30 != 0x30,
            early: kinds >> 6,
        })
    }
}
