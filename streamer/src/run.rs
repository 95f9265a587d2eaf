//! One container from its start to its exit code.

use std::time::Duration;

use firn_crd::exit::Reason;
use firn_crd::report::Outcome;
use firn_crd::run::Work;

use crate::failure::{Failure, Result};
use crate::paths::Paths;
use crate::settings::{Arguments, Command, Settings};
use crate::stages::Stages;
use crate::stop::Stop;
use crate::{build, fetch, report};

/// Does what the command says, leaves the report, and gives the exit code.
pub fn run(arguments: Arguments) -> u8 {
    let log = Paths::new(&arguments.root).termination_log();
    report::report_panics(log.clone());
    let mut stages = Stages::default();
    let result = perform(arguments, &mut stages);
    report::conclude(&log, result, stages.into_vec())
}

fn perform(arguments: Arguments, stages: &mut Stages) -> Result<Outcome> {
    let command = arguments.command;
    let settings = Settings::read(arguments.root)?;
    tracing::info!(%command, build = settings.run.build, version = env!("CARGO_PKG_VERSION"), "started");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(&error))?;
    let stop = runtime.block_on(async { Stop::on_sigterm() });
    let stop = stop.map_err(|error| Failure::internal(&error))?;
    let result = match (command, &settings.run.work) {
        // On this thread: the confined one must have a runtime of its own.
        (Command::Build, Work::Build(build)) => build::build(&settings, build, stages, &stop),
        (Command::Fetch, Work::Build(build)) => {
            // Ends its programs by itself.
            runtime.block_on(fetch::fetch(&settings, build, stages, &stop))
        }
        (command, Work::Build(_) | Work::Publish { .. }) => Err(Failure::new(
            Reason::InternalError,
            format!("the run has no orders for `{command}`, or it is not there yet"),
        )),
    };
    // A layer that is being made is of no use any more.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}
