//! When to ask again. Pure: time and chance are arguments.

use std::time::Duration;

use jiff::Timestamp;

/// The longest pause that is Firn's own choice.
const LONGEST: Duration = Duration::from_secs(30);

/// The pause before attempt number `attempt` (the first retry is 1): doubling, at most 30 s, and
/// between half and all of that. `chance` is uniform in 0..1, so that pods which failed together do
/// not come back together.
pub(crate) fn pause(first: Duration, attempt: u32, chance: f64) -> Duration {
    let doubled = first.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    doubled
        .min(LONGEST)
        .mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
}

/// What `Retry-After` asks for: seconds, or a date. `None`: neither.
/// <https://datatracker.ietf.org/doc/html/rfc9110#section-10.2.3>
pub(crate) fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(header).ok()?.timestamp();
    // A date that has passed means: now.
    Some(Duration::try_from(now.duration_until(date)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let pause = |attempt, chance| pause(Duration::from_millis(500), attempt, chance);
        let longest: Vec<u128> = (1..9)
            .map(|attempt| pause(attempt, 1.0).as_millis())
            .collect();
        assert_eq!(
            longest,
            [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]
        );
        assert_eq!(pause(1, 0.0).as_millis(), 250);
        assert_eq!(pause(u32::MAX, 0.0).as_millis(), 15_000);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (header, seconds) in [
            ("0", Some(0)),
            (" 17 ", Some(17)),
            ("Thu, 01 Jan 2026 00:01:40 GMT", Some(100)),
            ("Wed, 31 Dec 2025 23:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(
                retry_after(header, now),
                seconds.map(Duration::from_secs),
                "{header:?}"
            );
        }
    }
}
