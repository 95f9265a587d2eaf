//! What a person reads on standard error while something long goes on.

use std::io::Write;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// After this much silence a step says that it is still at work.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// One line to standard error.
pub fn say(line: impl AsRef<str>) {
    // Nobody may be reading any more; the work goes on.
    let _ = writeln!(std::io::stderr(), "{}", line.as_ref());
}

/// Runs `work`, telling its name while it lasts and its duration when it has ended well.
pub fn step<T>(name: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    let (ended, has_ended) = channel::<()>();
    let result = std::thread::scope(|scope| {
        // Dropping `ended` is what ends the thread, whether the work succeeds or not.
        scope.spawn(move || {
            while has_ended.recv_timeout(HEARTBEAT) == Err(RecvTimeoutError::Timeout) {
                say(format!("  {name} … {} s", start.elapsed().as_secs()));
            }
        });
        let result = work();
        drop(ended);
        result
    })?;
    say(format!("  {name}: {:.1} s", start.elapsed().as_secs_f64()));
    Ok(result)
}
