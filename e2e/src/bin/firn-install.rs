//! Builds Firn's images, pushes them to the cluster's registry and installs the chart there.

use std::ffi::OsString;
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
    /// Push the images and leave the chart alone
    #[arg(long)]
    images_only: bool,
    /// What it calls itself with inside the embedded cluster's network
    #[arg(long, hide = true)]
    inside: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments {
        target_dir,
        images,
        images_only,
        inside,
    } = Arguments::parse();
    let layout = Layout::from_env()?;
    let images = match images {
        Some(images) => images,
        None => install::build_images(&layout.cache, &target_dir)?,
    };
    if inside || cluster::is_foreign() {
        let cluster = Cluster::from_env()?;
        let pushed = install::push_images(&cluster, &images).await?;
        return if images_only {
            Ok(())
        } else {
            install::install_chart(&cluster, &pushed)
        };
    }
    // Everything is built now; the rest happens where the registry is reached.
    let mut arguments: Vec<OsString> = vec!["--inside".into(), "--images".into(), images.into()];
    if images_only {
        arguments.push("--images-only".into());
    }
    install::again_inside(&arguments)
}
