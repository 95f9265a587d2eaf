//! `firn-images`: Firn's own images and those of the embedded cluster, without Docker.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use firn_e2e::debian;

#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Where downloads are kept.
    #[arg(long, env = "FIRN_CACHE", default_value_os_t = default_cache())]
    cache: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pin the newest Debian packages: rewrites the lock file.
    Lock,
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

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Lock => {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/debian/forky-amd64.lock");
            let lock = debian::resolve("forky", "amd64", &debian::ROOTS, &arguments.cache)?;
            std::fs::write(path, lock.to_string())
                .with_context(|| format!("failed to write {path}"))
        }
    }
}

fn default_cache() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(home)
        .unwrap_or_else(std::env::temp_dir)
        .join("firn")
}
