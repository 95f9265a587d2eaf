//! `firn-fuzz`: searches inputs that break the parsers of foreign input, by the targets in `fuzz/`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use firn_e2e::fuzz::{Fuzzer, Outcome, PLANTED};

/// Time for each target in CI.
const LONG: Duration = Duration::from_secs(60);
/// Most time for the planted bug: it takes seconds, and the search ends when it is found.
const PLANTED_MAX: Duration = Duration::from_secs(300);
/// Elsewhere: enough to see that a target works.
const SHORT: Duration = Duration::from_secs(3);

/// Runs fuzz targets.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these targets. Default: all.
    targets: Vec<String>,
    /// Seconds for each target. Default: 60 in CI, 3 elsewhere.
    #[arg(long)]
    seconds: Option<u64>,
    /// Targets that run at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(Path::parent);
    let fuzzer = Fuzzer::build(target.context("this program is in no folder of cargo's")?)?;
    let mut targets = fuzzer.targets()?;
    if let Some(unknown) = arguments.targets.iter().find(|t| !targets.contains(t)) {
        bail!("there is no target {unknown:?}; there are {targets:?}");
    }
    targets.retain(|target| arguments.targets.is_empty() || arguments.targets.contains(target));
    let time = match arguments.seconds {
        Some(seconds) => Duration::from_secs(seconds),
        None if in_ci() => LONG,
        None => SHORT,
    };
    // A search takes whatever it gets; the stories beside it wait for pods, with deadlines.
    rustix::process::nice(19).context("failed to give way to others")?;
    let start = Instant::now();
    let (passed, failed) = run(&fuzzer, &targets, time, arguments.jobs)?;
    // In the words of a test program, so that the suite counts it like one.
    let result = if failed == 0 { "ok" } else { "FAILED" };
    say(&format!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; \
         0 filtered out; finished in {:.2}s",
        start.elapsed().as_secs_f64()
    ));
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the targets, `jobs` at a time; how many held, and how many did not.
fn run(fuzzer: &Fuzzer, targets: &[String], time: Duration, jobs: usize) -> Result<(u32, u32)> {
    let waiting = Mutex::new(targets.iter());
    let next = || {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.next()
    };
    let work = || -> Result<(u32, u32)> {
        let (mut passed, mut failed) = (0, 0);
        while let Some(target) = next() {
            let time = if target == PLANTED.0 {
                PLANTED_MAX
            } else {
                time
            };
            let start = Instant::now();
            let outcome = fuzzer.run(target, time)?;
            let took = start.elapsed().as_secs();
            match outcome {
                Outcome::Held { runs } => {
                    passed += 1;
                    say(&format!("test {target} ... ok ({runs} inputs, {took} s)"));
                }
                Outcome::Failed { why } => {
                    failed += 1;
                    say(&format!("test {target} ... FAILED\n{why}"));
                }
            }
        }
        Ok((passed, failed))
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_fold((0, 0), |sum, worker| {
            let Ok(done) = worker.join() else {
                bail!("a thread that runs targets panicked");
            };
            let (passed, failed) = done?;
            Ok((sum.0 + passed, sum.1 + failed))
        })
    })
}

#[expect(clippy::print_stdout, reason = "what this program is for")]
fn say(text: &str) {
    println!("{text}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: CI=true searches longer"
)]
fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}
