//! [`crate::wait`] for code that is not asynchronous: starting and ending machines.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::wait::Seen;

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// Takes each error for "not yet".
pub(super) fn unless_failed<T>(result: Result<T>) -> Seen<T> {
    match result {
        Ok(value) => Seen::Done(value),
        Err(error) => Seen::NotYet(format!("{error:#}")),
    }
}

/// `Done` if `holds`, else `NotYet` with `why`.
pub(super) fn when(holds: bool, why: impl Into<String>) -> Seen<()> {
    if holds {
        Seen::Done(())
    } else {
        Seen::NotYet(why.into())
    }
}

/// Looks until the condition holds.
///
/// Errors: `limit` has passed, with what was seen last; or the look itself failed, at once.
pub(super) fn until<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<Seen<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match look()? {
            Seen::Done(value) => return Ok(value),
            Seen::NotYet(why) if start.elapsed() >= limit => {
                bail!(
                    "gave up waiting for {what} after {} s: {why}",
                    limit.as_secs()
                )
            }
            Seen::NotYet(_) => std::thread::sleep(INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_fails_says_what_it_saw_last() {
        let mut looks = 0;
        let error = until(Duration::from_millis(150), "rain", || {
            looks += 1;
            Ok(Seen::<()>::NotYet(format!("sun {looks}")))
        })
        .unwrap_err();
        assert!(looks > 1);
        assert_eq!(
            error.to_string(),
            format!("gave up waiting for rain after 0 s: sun {looks}")
        );
    }

    #[test]
    fn a_failing_look_ends_the_wait_at_once() {
        let error = until(Duration::from_secs(60), "rain", || -> Result<Seen<()>> {
            bail!("the sky is gone")
        });
        assert_eq!(error.unwrap_err().to_string(), "the sky is gone");
    }
}
