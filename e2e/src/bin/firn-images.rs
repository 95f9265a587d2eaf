//! `firn-images`: Firn's own images, without Docker. The work is in `firn_e2e::image` and
//! `firn_e2e::debian`; here are only the arguments and what is printed.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use firn_e2e::debian;
use firn_e2e::image::{self, Contents, Declaration, Parts};

/// Builds and pushes Firn's own container images.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Where downloads and build results are kept
    #[arg(long, env = "FIRN_CACHE", default_value_os_t = image::default_cache(), hide_default_value = true)]
    cache: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write each image as an OCI layout into a folder of its own
    Build(Output),
    /// Write each image's files into a folder of its own, for Dockerfile
    Tree(Output),
    /// Pin the newest Debian packages: rewrites e2e/debian/forky-amd64.lock
    Lock,
}

#[derive(Debug, Args)]
struct Output {
    /// The folder; one folder for each image is made in it
    #[arg(long)]
    out: PathBuf,
    /// Take Firn's programs from this folder instead of building them
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Cargo's folder for build results [default: target in the cache]
    #[arg(long, env = "CARGO_TARGET_DIR", hide_env_values = true)]
    target_dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to hear of a closed stderr.
            let _ = writeln!(io::stderr(), "firn-images: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { cache, command }: &Arguments) -> anyhow::Result<()> {
    match command {
        Command::Build(output) => build(output, cache),
        Command::Tree(output) => tree(output, cache),
        Command::Lock => lock(cache),
    }
}

fn build(output: &Output, cache: &Path) -> anyhow::Result<()> {
    let declaration = Declaration::committed()?;
    let (debian, programs) = parts(output, &declaration, cache)?;
    let parts = Parts {
        debian: &debian,
        programs: &programs,
    };
    let version = env!("CARGO_PKG_VERSION");
    for built in image::build(&declaration, &parts, version, &output.out)? {
        let (name, digest, layout) = (built.name, built.digest, built.layout.display());
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let megabytes = built.size as f64 / 1e6;
        writeln!(
            io::stdout(),
            "{name:<9} {digest}  {megabytes:5.1} MB  {layout}"
        )?;
    }
    Ok(())
}

fn tree(output: &Output, cache: &Path) -> anyhow::Result<()> {
    let declaration = Declaration::committed()?;
    let (debian, programs) = parts(output, &declaration, cache)?;
    let parts = Parts {
        debian: &debian,
        programs: &programs,
    };
    for (name, image) in &declaration.images {
        Contents::of(image, &parts)?.write_to(&output.out.join(name))?;
    }
    Ok(())
}

/// Debian's tree, and the folder of Firn's programs.
fn parts(
    output: &Output,
    declaration: &Declaration,
    cache: &Path,
) -> anyhow::Result<(debian::Tree, PathBuf)> {
    let debian = debian::tree(&debian::LOCK.parse()?, cache)?;
    let programs = if let Some(folder) = &output.programs {
        folder.clone()
    } else {
        let target = output
            .target_dir
            .clone()
            .unwrap_or_else(|| cache.join("target"));
        image::binaries::build(&declaration.packages(), workspace()?, &target)?
    };
    Ok((debian, programs))
}

fn lock(cache: &Path) -> anyhow::Result<()> {
    let path = workspace()?.join("e2e/debian/forky-amd64.lock");
    let lock = debian::resolve("forky", "amd64", &debian::ROOTS, cache)?;
    std::fs::write(&path, lock.to_string())
        .with_context(|| format!("failed to write {}", path.display()))
}

/// The clone this program was built from.
fn workspace() -> anyhow::Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the package is in no workspace")
}
