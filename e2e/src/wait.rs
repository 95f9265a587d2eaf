//! Waiting for a condition with a deadline and a helpful message, instead of sleeping.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

/// How often a condition is looked at. Short against what a cluster takes for anything.
const PERIOD: Duration = Duration::from_millis(200);

/// What a look at the world found.
#[derive(Debug)]
pub enum Seen<T> {
    /// It is as it should be.
    Done(T),
    /// Not yet; what there is instead, for the message at the deadline.
    NotYet(String),
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
    bail!(
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
}
