//! A small random generator for jitter and nonces, seeded by the caller, so that tests can repeat every draw.

use std::time::Duration;

/// A SplitMix64 generator; not for secrets.
#[derive(Clone, Debug)]
pub(super) struct RandomSource(u64);

impl RandomSource {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn nonce(&mut self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.bits().to_le_bytes();
        [a, b, c, d]
    }

    /// Returns `delay` times a random factor from `[1 - spread, 1]`.
    pub(super) fn shorten(&mut self, delay: Duration, spread: f64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let unit = (self.bits() >> 11) as f64 / (1u64 << 53) as f64;
        delay.mul_f64(1.0 - spread.clamp(0.0, 1.0) * unit)
    }
}
