//! `make demo`: a cluster, Firn on it, and the main job from end to end.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use firn_e2e::cluster::Layout;
use firn_e2e::{demo, install};

/// Shows what Firn does, on a real cluster of its own.
#[derive(Debug, Parser)]
struct Arguments {
    /// Cargo's folder for build results
    #[arg(long, env = "CARGO_TARGET_DIR")]
    target_dir: PathBuf,
    /// What it calls itself with inside the cluster's network
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { target_dir, inside } = Arguments::parse();
    let layout = Layout::from_env()?;
    if let Some(images) = inside {
        return demo::run(&images).await;
    }
    let start = Instant::now();
    let images = install::build_images(&layout.cache, &target_dir)?;
    install::cluster_up()?;
    install::again_inside(&["--inside".into(), images.into()])?;
    demo::farewell(&layout, start.elapsed());
    Ok(())
}
