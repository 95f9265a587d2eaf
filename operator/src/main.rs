//! The operator's program. By another name it is git's ssh program.

use anyhow::Context as _;
use clap::Parser;
use firn_operator::settings::{Args, Settings};
use firn_operator::source::ssh_program;
use firn_operator::{process, telemetry};

fn main() -> anyhow::Result<()> {
    if let Some(error) = ssh_program::become_ssh(std::env::args_os()) {
        return Err(error).context("failed to start ssh");
    }
    operate()
}

#[tokio::main]
async fn operate() -> anyhow::Result<()> {
    let settings = Settings::resolve(Args::parse())?;
    telemetry::init(&settings)?;
    process::run(settings).await
}
