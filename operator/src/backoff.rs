//! How long to wait before trying again. Pure: no clock, and the jitter comes from a seed, so that
//! the same world gives the same plan.

use std::time::Duration;

use sha2::{Digest, Sha256};

/// A pause that doubles with each attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first attempt.
    pub base: Duration,
    /// Never longer.
    pub max: Duration,
}

/// Builds that failed for a reason that goes away by itself.
pub const SLOW: Backoff = Backoff {
    base: Duration::from_secs(30),
    max: Duration::from_secs(30 * 60),
};

/// Builds that failed for a reason outside the cluster that a person removes without telling us,
/// such as a wrong password: the check container says within seconds whether it is still there.
pub const OUTSIDE: Backoff = Backoff {
    base: Duration::from_secs(60),
    max: HOURLY,
};

/// A quota or an error of the API server's.
pub const API: Backoff = Backoff {
    base: Duration::from_secs(5),
    max: Duration::from_secs(5 * 60),
};

/// What used all its retries is still tried now and then.
pub const HOURLY: Duration = Duration::from_secs(60 * 60);

impl Backoff {
    /// The pause after attempt `attempt`, counted from 1. Between half and all of `base`·2ᵏ, where
    /// in between says the seed: many builds that fail together do not come back together, and
    /// none comes back at once.
    pub fn delay(self, attempt: u32, seed: &str) -> Duration {
        let doubled = 1_u32
            .checked_shl(attempt.saturating_sub(1))
            .and_then(|factor| self.base.checked_mul(factor))
            .unwrap_or(self.max);
        jittered(doubled.min(self.max), seed)
    }
}

/// Between half and all of `full`.
pub fn jittered(full: Duration, seed: &str) -> Duration {
    let digest = Sha256::digest(seed.as_bytes());
    let byte = digest.first().copied().unwrap_or_default();
    full / 2 + full / 2 * u32::from(byte) / 255
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_maximum() {
        let full =
            |attempt| SLOW.delay(attempt, "x").as_secs_f64() / SLOW.delay(1, "x").as_secs_f64();
        assert!((full(2) - 2.0).abs() < 1e-6);
        assert!((full(5) - 16.0).abs() < 1e-6);
        assert_eq!(SLOW.delay(64, "x"), SLOW.delay(u32::MAX, "x"));
        assert!(SLOW.delay(u32::MAX, "x") <= SLOW.max);
    }

    proptest! {
        #[test]
        fn the_jitter_never_takes_more_than_half(attempt in 1_u32..9, seed in ".*") {
            let full = (SLOW.base * (1 << (attempt - 1))).min(SLOW.max);
            let delay = SLOW.delay(attempt, &seed);
            prop_assert!(delay >= full / 2 && delay <= full);
            prop_assert_eq!(delay, SLOW.delay(attempt, &seed));
        }
    }
}
