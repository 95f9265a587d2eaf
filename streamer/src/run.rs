//! One container from its start to its exit code.

use std::future::Future;
use std::time::Duration;

use firn_crd::exit::Reason;
use firn_crd::report::Outcome;
use firn_crd::run::Work;

use crate::failure::{Failure, Result};
use crate::local::{self, Local};
use crate::paths::Paths;
use crate::settings::{Arguments, Command, Settings};
use crate::stages::Stages;
use crate::stop::Stop;
use crate::{build, check, fetch, publish, push, report};

/// Does what the command says, leaves the report, and gives the exit code.
pub fn run(arguments: Arguments) -> u8 {
    match person(arguments.command) {
        Ok(local) => without_cluster(local),
        Err(command) => in_pod(Arguments {
            command,
            ..arguments
        }),
    }
}

/// What a person wants, or else what a pod does.
fn person(command: Command) -> std::result::Result<Local, Command> {
    match command {
        Command::Push(push) if push.is_of_person() => Ok(Local::Push(*push)),
        Command::Plan(plan) => Ok(Local::Plan(*plan)),
        Command::Inspect(inspect) => Ok(Local::Inspect(*inspect)),
        Command::Load(load) => Ok(Local::Load(*load)),
        command => Err(command),
    }
}

fn without_cluster(local: Local) -> u8 {
    let running = runtime().and_then(|runtime| {
        let stop = runtime.block_on(async { Stop::on_sigterm() })?;
        Ok((runtime, stop))
    });
    match running {
        Ok((runtime, stop)) => {
            let code = runtime.block_on(local::run(local, &stop));
            runtime.shutdown_timeout(Duration::from_millis(100));
            code
        }
        Err(error) => {
            tracing::error!("{error}");
            70
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

fn in_pod(arguments: Arguments) -> u8 {
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
    let runtime = runtime().map_err(|error| Failure::internal(&error))?;
    let stop = runtime.block_on(async { Stop::on_sigterm() });
    let stop = stop.map_err(|error| Failure::internal(&error))?;
    let result = match (command, &settings.run.work) {
        // On this thread: the confined one must have a runtime of its own.
        (Command::Build, Work::Build(build)) => build::build(&settings, build, stages, &stop),
        (Command::Check, Work::Build(build)) => {
            runtime.block_on(until(&stop, check::check(&settings, build)))
        }
        (Command::Fetch, Work::Build(build)) => {
            // Ends its programs by itself.
            runtime.block_on(fetch::fetch(&settings, build, stages, &stop))
        }
        (Command::Push(_), Work::Build(build)) => {
            runtime.block_on(until(&stop, push::push(&settings, build, stages, &stop)))
        }
        (Command::Publish, Work::Publish { digest }) => runtime.block_on(until(
            &stop,
            publish::publish(&settings, digest, stages, &stop),
        )),
        (Command::Publish, Work::Index { manifests }) => runtime.block_on(until(
            &stop,
            publish::index(&settings, manifests, stages, &stop),
        )),
        (command, Work::Build(_) | Work::Publish { .. } | Work::Index { .. }) => Err(Failure::new(
            Reason::InternalError,
            format!("the run has no orders for `{command}`"),
        )),
    };
    // A layer that is being made is of no use any more.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Ends at once when the pod is told to go.
async fn until(stop: &Stop, work: impl Future<Output = Result<Outcome>>) -> Result<Outcome> {
    tokio::select! {
        // A signal that has come counts before anything that is done.
        biased;
        () = stop.requested() => Err(Stop::failure()),
        done = work => done,
    }
}
