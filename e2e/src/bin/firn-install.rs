//! Builds Firn's images, pushes them to the cluster's registry and installs the chart there.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use firn_e2e::cluster::{self, Cluster, Layout};
use firn_e2e::install;

/// Installs Firn from this clone on the cluster that is up.
#[derive(Debug, Parser)]
struct Arguments {
    /// Cargo's folder for build results
    #[arg(long, env = "CARGO_TARGET_DIR")]
    target_dir: PathBuf,
    /// Images that are built already, a folder of OCI layouts
    #[arg(long)]
    images: Option<PathBuf>,
    /// What it calls itself with inside the embedded cluster's network
    #[arg(long, hide = true)]
    inside: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments {
        target_dir,
        images,
        inside,
    } = Arguments::parse();
    let layout = Layout::from_env()?;
    let images = match images {
        Some(images) => images,
        None => install::build_images(&layout.cache, &target_dir)?,
    };
    if inside || cluster::is_foreign() {
        return install::install(&Cluster::from_env()?, &images).await;
    }
    // Everything is built now; the rest happens where the registry is reached.
    install::again_inside(&["--inside".into(), "--images".into(), images.into()])
}
