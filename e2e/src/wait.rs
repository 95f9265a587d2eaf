//! Waiting for a condition with a deadline and a helpful message, instead of sleeping.

use std::future::Future;
use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

/// How often a condition is looked at. Short against what a cluster takes for anything.
const PERIOD: Duration = Duration::from_millis(100);

/// What a look at the world found.
#[derive(Debug)]
pub enum Seen<T> {
    /// It is as it should be.
    Done(T),
    /// Not yet; what there is instead, for the message at the deadline.
    NotYet(String),
}

/// `Done` if `holds`, else `NotYet` with `why`.
pub fn when(holds: bool, why: impl Into<String>) -> Seen<()> {
    if holds {
        Seen::Done(())
    } else {
        Seen::NotYet(why.into())
    }
}

/// Takes each error for "not yet".
pub fn unless_failed<T>(result: Result<T>) -> Seen<T> {
    match result {
        Ok(value) => Seen::Done(value),
        Err(error) => Seen::NotYet(format!("{error:#}")),
    }
}

/// Looks again and again until `probe` is done.
///
/// # Errors
/// The probe's own error, at once; or that `deadline` passed, with what was seen last.
pub async fn eventually<T, F>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<Seen<T>>>,
{
    let end = Instant::now() + deadline;
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = "nothing was seen".to_owned();
    while Instant::now() < end {
        ticks.tick().await;
        match timeout_at(end, probe()).await {
            Ok(Ok(Seen::Done(value))) => return Ok(value),
            Ok(Ok(Seen::NotYet(instead))) => last = instead,
            Ok(Err(error)) => return Err(error.context(format!("while waiting until {what}"))),
            Err(_) => break,
        }
    }
    Err(gave_up(what, deadline, &last))
}

/// The same for code that is not asynchronous: starting and ending machines.
///
/// # Errors
/// As [`eventually`].
pub fn until<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> Result<Seen<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match probe()? {
            Seen::Done(value) => return Ok(value),
            Seen::NotYet(last) if Instant::now() >= end => {
                return Err(gave_up(what, deadline, &last));
            }
            Seen::NotYet(_) => std::thread::sleep(PERIOD),
        }
    }
}

fn gave_up(what: &str, deadline: Duration, last: &str) -> Error {
    anyhow!(
        "gave up after {} s waiting until {what}; last seen: {last}",
        deadline.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_message_at_the_deadline_says_what_was_seen_last() {
        let error = eventually("it rains", Duration::from_secs(1), || async {
            Ok(Seen::<()>::NotYet("sunshine".into()))
        });
        let text = error.await.unwrap_err().to_string();
        assert_eq!(
            text,
            "gave up after 1 s waiting until it rains; last seen: sunshine"
        );
    }

    #[test]
    fn a_blocking_wait_says_the_same() {
        let mut looks = 0;
        let error = until("it rains", Duration::from_millis(150), || {
            looks += 1;
            Ok(when(false, format!("sun {looks}")))
        })
        .unwrap_err();
        assert!(looks > 1);
        assert_eq!(
            error.to_string(),
            format!("gave up after 0 s waiting until it rains; last seen: sun {looks}")
        );
    }

    #[test]
    fn a_failing_look_ends_the_wait_at_once() {
        let error = until(
            "it rains",
            Duration::from_secs(60),
            || -> Result<Seen<()>> { Err(anyhow!("the sky is gone")) },
        );
        assert_eq!(error.unwrap_err().to_string(), "the sky is gone");
    }
}
