//! `make bench`. The work is in `firn_e2e::bench`; here are only the arguments.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use firn_e2e::bench::run::Wishes;
use firn_e2e::bench::{archive, floor, run, store};
use firn_e2e::cluster::Layout;
use firn_e2e::{debian, image};

/// Measures what pushing an image takes, beside what others take.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Where downloads, the store and build results are kept
    #[arg(long, env = "FIRN_CACHE", default_value_os_t = image::default_cache(), hide_default_value = true)]
    cache: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pin the newest Debian packages: rewrites the lists in e2e/debian
    Lock,
    /// Make the store, and nothing else
    Store,
    /// Measure everything
    Run(Run),
    /// What `run` calls itself with inside its namespaces
    #[command(hide = true)]
    Inside {
        /// What it has found outside
        found: String,
    },
    /// Write layers as a docker-archive to standard output
    #[command(hide = true)]
    Archive(Layers),
    /// Make layers and upload them to this URL, and nothing else
    #[command(hide = true)]
    Floor {
        #[command(flatten)]
        layers: Layers,
        repository: String,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// Measure this program instead of the sources' release build
    #[arg(long)]
    firn: Option<PathBuf>,
    /// Cargo's folder for build results
    #[arg(long, env = "CARGO_TARGET_DIR", hide_env_values = true)]
    target_dir: PathBuf,
    /// A folder with `nix2container` and a `skopeo` that has its transport
    #[arg(long, env = "FIRN_BENCH_NIX2CONTAINER", hide_env_values = true)]
    nix2container: Option<PathBuf>,
    #[command(flatten)]
    wishes: Wishes,
}

#[derive(Debug, Args)]
struct Layers {
    /// The folder that stands for `/nix/store`
    #[arg(long)]
    store: PathBuf,
    /// JSON: for each layer the sorted base names of its paths
    #[arg(long)]
    layers: PathBuf,
}

impl Layers {
    fn read(&self) -> Result<Vec<Vec<String>>> {
        let text = std::fs::read(&self.layers)
            .with_context(|| format!("failed to read {}", self.layers.display()))?;
        serde_json::from_slice(&text).context("these are no layers")
    }
}

fn main() -> Result<ExitCode> {
    let Arguments { cache, command } = Arguments::parse();
    match command {
        Command::Lock => lock(&cache)?,
        Command::Store => drop(store::store(&cache)?),
        Command::Run(run) => {
            let Run {
                firn,
                target_dir,
                nix2container,
                wishes,
            } = run;
            let layout = Layout::from_env()?;
            return run::outside(&layout, &target_dir, firn, nix2container, wishes);
        }
        Command::Inside { found } => return run::inside(&cache, &found),
        Command::Archive(layers) => {
            let list = layers.read()?;
            archive::write(&layers.store, &list, "bench:v1", std::io::stdout().lock())?;
        }
        Command::Floor { layers, repository } => floor(&layers, &repository)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[tokio::main(flavor = "current_thread")]
async fn floor(layers: &Layers, repository: &str) -> Result<()> {
    let blobs = floor::make(&layers.store, &layers.read()?)?;
    floor::upload(blobs, repository).await
}

fn lock(cache: &Path) -> Result<()> {
    let folder = firn_e2e::clone::repository().join("e2e/debian");
    for (file, suite, roots, what) in [
        (
            "closure-trixie-amd64.lock",
            "trixie",
            &store::ROOTS[..],
            "The closure that `make bench` pushes",
        ),
        (
            "skopeo-forky-amd64.lock",
            "forky",
            &["skopeo"][..],
            "The skopeo that `make bench` measures",
        ),
        (
            "docker-registry-forky-amd64.lock",
            "forky",
            &["docker-registry"][..],
            "The registry 2.8 that tests push to",
        ),
    ] {
        let lock = debian::resolve(suite, "amd64", roots, cache)?.to_string();
        let (_, packages) = lock.split_once('\n').context("an empty list")?;
        let text = format!("# {what}; written by `firn-bench lock`.\n{packages}");
        let path = folder.join(file);
        std::fs::write(&path, text)
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}
