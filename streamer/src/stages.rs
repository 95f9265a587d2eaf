//! What took how long, for the report. Durations by the monotone clock, beginnings by the node's.

use std::time::Instant;

use firn_crd::report::{Stage, StageName};
use jiff::Timestamp;

/// The stages so far.
#[derive(Debug, Default)]
pub struct Stages {
    done: Vec<Stage>,
}

/// A stage that runs.
#[derive(Debug)]
pub struct Running {
    name: StageName,
    start: Timestamp,
    clock: Instant,
}

impl Stages {
    /// Begins a stage; end it with [`Self::end`].
    #[expect(clippy::disallowed_methods, reason = "a measurement, not a decision")]
    pub fn begin(name: StageName) -> Running {
        Running {
            name,
            start: Timestamp::now(),
            clock: Instant::now(),
        }
    }

    /// Ends a stage.
    pub fn end(&mut self, running: &Running) {
        let millis = i64::try_from(running.clock.elapsed().as_millis()).unwrap_or(i64::MAX);
        tracing::info!(stage = %running.name, millis, "stage ended");
        self.done.push(Stage {
            name: running.name,
            start: running.start.as_millisecond(),
            millis,
        });
    }

    /// Adds a stage that was measured elsewhere.
    pub fn add(&mut self, stage: Stage) {
        tracing::info!(stage = %stage.name, millis = stage.millis, "stage ended");
        self.done.push(stage);
    }

    /// All of them, in order.
    pub fn into_vec(self) -> Vec<Stage> {
        self.done
    }
}
