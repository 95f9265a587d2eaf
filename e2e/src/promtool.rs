//! Prometheus' own checker of rules, which has its real engine. Made from its Go module, pinned in
//! `e2e/prometheus`, and kept in the cache: minutes the first time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::clone::repository;
use crate::cluster::Layout;
use crate::cluster::build::cached;
use crate::cluster::pins;
use crate::cluster::progress::step;

/// Without the clients of clouds, of which Prometheus has many.
const TAGS: &str = "remove_all_sd,netgo,osusergo";
const PACKAGE: &str = "github.com/prometheus/prometheus/cmd/promtool";

/// The program.
#[derive(Debug, Clone)]
pub struct Promtool {
    program: PathBuf,
}

impl Promtool {
    /// The one that `FIRN_PROMTOOL` names, else one that is built if need be.
    ///
    /// Errors: Go is missing, or its modules cannot be had.
    pub fn find() -> Result<Self> {
        if let Some(program) = std::env::var_os("FIRN_PROMTOOL") {
            return Ok(Self {
                program: PathBuf::from(program),
            });
        }
        let layout = Layout::from_env()?;
        let module = repository().join("e2e/prometheus");
        let folder = layout.cache.join("promtool").join(key(&module)?);
        cached(&layout.cache, &folder, |partial| {
            step("promtool", || build(&layout.cache, &module, partial))
        })?;
        Ok(Self {
            program: folder.join("promtool"),
        })
    }

    /// Runs it. Its output; the error is all that it said.
    pub fn run(&self, arguments: &[&str], folder: &Path) -> Result<String> {
        run(Command::new(&self.program)
            .args(arguments)
            .current_dir(folder))
    }
}

fn key(module: &Path) -> Result<String> {
    let read = |name: &str| {
        let path = module.join(name);
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
    };
    let go = run(Command::new("go").arg("version"))?;
    let (pins, sums) = (read("go.mod")?, read("go.sum")?);
    Ok(pins::key([
        ("go", go.as_str()),
        ("go.mod", &pins),
        ("go.sum", &sums),
        ("tags", TAGS),
    ]))
}

fn build(cache: &Path, module: &Path, to: &Path) -> Result<()> {
    let mut go = Command::new("go");
    go.current_dir(module)
        .env("CGO_ENABLED", "0")
        .env("GOCACHE", cache.join("go-build"))
        .env("GOWORK", "off")
        .env("GOFLAGS", "-mod=readonly")
        .args(["build", "-trimpath", "-buildvcs=false", "-tags", TAGS])
        .args(["-ldflags", "-s -w", "-o"])
        .arg(format!("{}/", to.display()))
        .arg(PACKAGE);
    run(&mut go).map(drop)
}

/// Standard output, if it ended well.
fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("failed to start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ended with {}: {said}{errors}", output.status);
    }
    Ok(said.into_owned())
}
