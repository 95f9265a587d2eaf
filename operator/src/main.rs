//! The operator's program.

use clap::Parser;
use firn_operator::settings::{Args, Settings};
use firn_operator::{process, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::resolve(Args::parse())?;
    telemetry::init(&settings)?;
    process::run(settings).await
}
