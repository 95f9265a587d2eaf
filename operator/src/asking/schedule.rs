//! When a server is asked next. Pure: the jitter of an object is a hash of its name, so that
//! equal intervals drift apart, and the same way after each restart.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::source::{ImageKey, SourceFailure};

/// Longest pause after failures, unless the interval itself is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(3600);
/// Longest wish of a server's that is honoured: a mistaken header must not end polling.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(6 * 3600);
/// First polls of images known from before a restart are spread over at most this: nobody waits
/// longer for what was pushed while the operator was away, and no server gets all at once.
const FIRST_SPREAD: Duration = Duration::from_secs(30);

/// Pause before the first poll of an image whose revision is known already.
pub(crate) fn first(key: &ImageKey, interval: Duration) -> Duration {
    interval
        .min(FIRST_SPREAD)
        .mul_f64(f64::from(hash(key)) / f64::from(u32::MAX))
}

/// Pause after a poll that succeeded: the interval ±10 %.
pub(crate) fn after_success(key: &ImageKey, interval: Duration) -> Duration {
    interval.mul_f64(jitter(key))
}

/// Pause after the `failures`th failure in a row (from 1): interval·2^(failures-1), at most an
/// hour, ±10 %, and never less than the server asked for. Failures that only the cluster's own API
/// was asked about come again after the interval: creating a missing Secret should be noticed.
pub(crate) fn after_failure(
    key: &ImageKey,
    interval: Duration,
    failures: u32,
    failure: &SourceFailure,
) -> Duration {
    let doublings = if failure.kind.is_local() {
        0
    } else {
        failures.saturating_sub(1).min(16)
    };
    let grown = interval
        .saturating_mul(1 << doublings)
        .min(BACKOFF_MAX.max(interval));
    let asked = failure.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
    grown.mul_f64(jitter(key)).max(asked)
}

/// 0.9 to 1.1.
fn jitter(key: &ImageKey) -> f64 {
    0.9 + 0.2 * f64::from(hash(key)) / f64::from(u32::MAX)
}

fn hash(key: &ImageKey) -> u32 {
    let digest = Sha256::digest(key.to_string());
    digest
        .iter()
        .take(4)
        .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::Kind;

    const MINUTE: Duration = Duration::from_secs(60);

    fn key(name: &str) -> ImageKey {
        ImageKey {
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    #[test]
    fn pauses_double_up_to_an_hour_and_a_missing_secret_is_looked_for_steadily() {
        let pause =
            |kind, n| after_failure(&key("web"), 5 * MINUTE, n, &SourceFailure::new(kind, "x"));
        let base = after_success(&key("web"), 5 * MINUTE);
        assert_eq!(pause(Kind::Unreachable, 1), base);
        assert_eq!(pause(Kind::Unreachable, 3), base * 4);
        assert!(pause(Kind::AuthFailed, 99) <= MINUTE * 66);
        assert_eq!(pause(Kind::SecretMissing, 99), base);
    }

    #[test]
    fn a_servers_wish_is_honoured_within_reason() {
        let mut failure = SourceFailure::new(Kind::RateLimited, "x");
        failure.retry_after = Some(MINUTE * 90);
        assert_eq!(after_failure(&key("web"), MINUTE, 1, &failure), MINUTE * 90);
        failure.retry_after = Some(Duration::MAX);
        assert_eq!(
            after_failure(&key("web"), MINUTE, 1, &failure),
            RETRY_AFTER_MAX
        );
    }

    #[test]
    fn images_with_one_interval_do_not_poll_together() {
        let pauses: std::collections::BTreeSet<_> = (0..100)
            .map(|n| after_success(&key(&n.to_string()), MINUTE))
            .collect();
        assert!(pauses.len() > 90);
        let firsts =
            (0..100).filter(|n| first(&key(&n.to_string()), MINUTE) < Duration::from_secs(15));
        assert!((30..70).contains(&firsts.count()));
    }

    proptest! {
        #[test]
        fn pauses_stay_in_their_bounds(name in "[a-z]{1,20}", secs in 30..86_400_u64, n in 1..200_u32) {
            let (key, interval) = (key(&name), Duration::from_secs(secs));
            let usual = after_success(&key, interval);
            prop_assert!(usual >= interval.mul_f64(0.9) && usual <= interval.mul_f64(1.1));
            let failed = after_failure(&key, interval, n, &SourceFailure::new(Kind::Unreachable, "x"));
            prop_assert!(failed >= usual);
            prop_assert!(failed <= interval.max(BACKOFF_MAX).mul_f64(1.1));
            prop_assert!(first(&key, interval) <= FIRST_SPREAD);
        }
    }
}
