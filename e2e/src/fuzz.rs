//! Fuzz targets: how they are built and run, and what the end of a run means. The targets
//! themselves are in `fuzz/`.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use firn_oci::Digest;

use crate::clone::repository;

mod outcome;

pub use outcome::{Outcome, PLANTED};

/// Longest input that is tried: what a parser does to a document shows in its first kilobytes.
const INPUT_MAX: usize = 8192;
/// Most memory of a target: none may need more for an input of that size.
const MEMORY_MIB: usize = 512;
/// Where the search begins. Always the same: what `make test` finds, a change has broken, and not luck
/// on that day. Other searches: the targets' program, see fuzz/README.md.
const SEED: u32 = 1;
/// An input that takes longer is a fault.
const INPUT_SECONDS: usize = 10;

/// What is searched, made quick enough for it.
const SEARCHED: [&str; 3] = ["firn-oci", "firn-streamer", "firn-fuzz-targets"];

/// The program with all targets.
#[derive(Debug)]
pub struct Fuzzer {
    program: PathBuf,
    /// For inputs that were found: those with faults stay here.
    found: PathBuf,
}

impl Fuzzer {
    /// Builds the program in cargo's folder `target`, where most of what it depends on is already.
    ///
    /// # Errors
    /// It does not compile.
    pub fn build(target: &Path) -> Result<Self> {
        let mut command = Command::new("cargo");
        command.args(["build", "--package", "firn-fuzz-targets"]);
        for package in SEARCHED {
            let quick = format!("profile.dev.package.{package}.opt-level=1");
            command.args(["--config", &quick]);
        }
        let output = command
            .arg("--message-format=json-render-diagnostics")
            .current_dir(repository())
            .env("CARGO_TARGET_DIR", target)
            // Cargo keeps what this one makes apart from what the compiler alone makes.
            .env("RUSTC_WORKSPACE_WRAPPER", compiler(target)?)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("failed to start cargo")?;
        if !output.status.success() {
            bail!("the fuzz targets do not compile");
        }
        let program = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
            .context("cargo names no program with the fuzz targets")?;
        Ok(Self {
            program,
            found: target.join("fuzz-found"),
        })
    }

    /// Names of the targets, each of which must have a corpus, and each corpus a target.
    ///
    /// # Errors
    /// One of them has not, or they cannot be listed.
    pub fn targets(&self) -> Result<Vec<String>> {
        let listed = self.command("list").output();
        let listed = listed.context("failed to start the fuzz targets")?;
        let mut targets: Vec<String> = String::from_utf8(listed.stdout)?
            .lines()
            .map(str::to_owned)
            .collect();
        targets.sort();
        let mut corpora = Vec::new();
        for entry in fs::read_dir(corpus("")).context("failed to read fuzz/corpus")? {
            corpora.push(entry?.file_name().to_string_lossy().into_owned());
        }
        corpora.sort();
        if targets != corpora {
            bail!("targets are {targets:?}, but folders in fuzz/corpus are {corpora:?}");
        }
        Ok(targets)
    }

    /// Runs one target from its committed corpus for this long.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, target: &str, time: Duration) -> Result<Outcome> {
        let found = self.found.join(target);
        if found.exists() {
            fs::remove_dir_all(&found)?;
        }
        fs::create_dir_all(&found)?;
        let corpus = corpus(target);
        let seeds = fs::read_dir(&corpus)
            .with_context(|| format!("failed to read {}", corpus.display()))?
            .count();
        let mut artifacts = OsString::from("-artifact_prefix=");
        artifacts.push(&found);
        artifacts.push("/fault-");
        let inputs = tempfile::tempdir()?;
        // Some targets write files for each input: in memory, where there is such a folder.
        let memory = Path::new("/dev/shm");
        let files = if memory.is_dir() {
            tempfile::tempdir_in(memory)?
        } else {
            tempfile::tempdir()?
        };
        let output = self
            .command(target)
            .arg(format!("-max_total_time={}", time.as_secs()))
            .arg(format!("-max_len={INPUT_MAX}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
            .arg(format!("-timeout={INPUT_SECONDS}"))
            .arg(format!("-seed={SEED}"))
            .arg("-print_final_stats=1")
            .arg(artifacts)
            // New inputs go to the first folder.
            .args([inputs.path(), &corpus])
            .env("TMPDIR", files.path())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("failed to start {target}"))?;
        let told = String::from_utf8_lossy(&output.stderr);
        Ok(Outcome::of(target, output.status.success(), seeds, &told))
    }

    fn command(&self, target: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env("FIRN_FUZZ_TARGET", target);
        command
    }
}

/// The compiler's wrapper, in a place that all clones share: its path is a part of what cargo takes
/// for fresh, and so is what it does, by the digest in its name.
fn compiler(target: &Path) -> Result<PathBuf> {
    let script = fs::read(repository().join("fuzz/rustc-with-coverage"))?;
    let digest = Digest::of(&script).to_string();
    let short = digest.trim_start_matches("sha256:").get(..12);
    let place = target.join(format!("fuzz-rustc-{}", short.unwrap_or_default()));
    if !place.exists() {
        let mut file = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o755))
            .tempfile_in(target)?;
        file.write_all(&script)?;
        // Closed, too: what is open for writing cannot be run.
        file.into_temp_path().persist(&place)?;
    }
    Ok(place)
}

fn corpus(target: &str) -> PathBuf {
    repository().join("fuzz/corpus").join(target)
}
