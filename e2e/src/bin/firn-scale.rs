//! `make scale`: what ten thousand images cost at rest, and how a burst drains.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use firn_e2e::cluster::Layout;
use firn_e2e::scale::{self, Size};
use firn_e2e::{clone, install};

/// Measures Firn with many images on the embedded cluster, and writes docs/scale.md.
#[derive(Debug, Parser)]
struct Arguments {
    /// Cargo's folder for build results
    #[arg(long, env = "CARGO_TARGET_DIR")]
    target_dir: PathBuf,
    /// How many images
    #[arg(long, default_value_t = 10_000)]
    images: usize,
    /// How long nothing happens, in seconds
    #[arg(long, default_value_t = 300)]
    idle: u64,
    /// How many of them change at once
    #[arg(long, default_value_t = 500)]
    burst: usize,
    /// What it calls itself with inside the cluster's network
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments {
        target_dir,
        images,
        idle,
        burst,
        inside,
    } = Arguments::parse();
    let layout = Layout::from_env()?;
    if let Some(own) = inside {
        let size = Size {
            images,
            idle: Duration::from_secs(idle),
            burst,
        };
        return scale::run(&own, size, &clone::repository().join("docs/scale.md")).await;
    }
    let own = install::build_images(&layout.cache, &target_dir)?;
    install::cluster_up()?;
    install::again_inside(&[
        format!("--images={images}").into(),
        format!("--idle={idle}").into(),
        format!("--burst={burst}").into(),
        "--inside".into(),
        own.into(),
    ])
}
