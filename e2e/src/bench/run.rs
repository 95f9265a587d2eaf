//! The whole of `make bench`: outside, what needs the network is made; inside namespaces of its own,
//! it is measured; the page is written, and what was missed is said.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::arena::Arena;
use super::cases::{Bench, Case};
use super::peers::{Peer, Programs, skopeo};
use super::plan::{EachInTurn, each_in_turn};
use super::report::Report;
use super::sizes::{sizes, sum};
use super::store::{Store, store};
use super::verdict::{self, Verdict};
use super::{cores, synthetic};
use crate::clone::repository;
use crate::cluster::Layout;
use crate::cluster::build::programs as cluster_programs;
use crate::cluster::progress::{say, step};
use crate::image::Declaration;
use crate::programs;

/// What is to be run.
#[derive(Debug, Clone, Serialize, Deserialize, clap::Args)]
pub struct Wishes {
    /// Runs of each competitor in each row
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Only these parts
    #[arg(long, value_enum)]
    pub only: Vec<Part>,
    /// The page to write; none if only parts are run
    #[arg(long, default_value = "docs/benchmarks.md")]
    pub page: PathBuf,
}

/// A part of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Part {
    /// Everything new.
    New,
    /// The rest of the rows that are timed.
    Rows,
    /// Each path changed in turn, and the libraries' bytes.
    Bytes,
    /// Under a memory limit.
    Memory,
}

impl Wishes {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// What the outer process has found and the inner one needs.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    /// The folder of the embedded cluster's programs.
    cluster: PathBuf,
    firn: PathBuf,
    skopeo: PathBuf,
    skopeo_version: String,
    nix2container: Option<PathBuf>,
    wishes: Wishes,
}

/// Strategies of the planner beside the default: those of nix2container and of dockerTools.
const STRATEGIES: [&str; 2] = ["popularity", "by-size"];
/// The memory that Firn may use: this, and for each core as much again as the next.
const MEMORY: u64 = 64 << 20;
const MEMORY_OF_A_WORKER: u64 = 16 << 20;

/// Makes or finds all that is needed and becomes the process that measures. `firn` is the program
/// to measure instead of the sources' release build.
///
/// Returns only if something is missing.
pub fn outside(
    layout: &Layout,
    target: &Path,
    firn: Option<PathBuf>,
    nix2container: Option<PathBuf>,
    wishes: Wishes,
) -> Result<ExitCode> {
    let cluster = cluster_programs(layout)?;
    let firn = if let Some(program) = firn {
        std::path::absolute(program)?
    } else {
        let declaration = Declaration::committed()?;
        programs::release(&layout.cache, target, &declaration.packages())?.join("firn-streamer")
    };
    let (skopeo, skopeo_version) = skopeo(&layout.cache)?;
    store(&layout.cache)?;
    if wishes.wants(Part::Memory) {
        step("store of 10 GB", || synthetic::store(&layout.cache))?;
    }
    let found = Found {
        cluster,
        firn,
        skopeo,
        skopeo_version,
        nix2container,
        wishes,
    };
    let bare = Bare::if_needed(found.nix2container.is_some());
    let own = std::env::current_exe().context("failed to find this program")?;
    let mut unshare = Command::new("unshare");
    unshare
        .args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["--propagation", "private", "--"])
        .arg(own)
        .args(["inside", &serde_json::to_string(&found)?]);
    if !bare.made {
        return Err(unshare.exec()).context("failed to start unshare");
    }
    let status = unshare.status().context("failed to start unshare")?;
    drop(bare);
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// `/nix/store` as a place to mount on: nix2container reads nowhere else. Removed when dropped if
/// it was not there.
struct Bare {
    made: bool,
}

impl Bare {
    const PLACE: &str = "/nix/store";

    fn if_needed(needed: bool) -> Self {
        let made = needed && !Path::new("/nix").exists();
        if made {
            // Without it nix2container fails, and says so.
            let _ = std::fs::create_dir_all(Self::PLACE);
        }
        Self { made }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        if self.made {
            // Only what is empty is removed.
            let _ = std::fs::remove_dir(Self::PLACE);
            let _ = std::fs::remove_dir("/nix");
        }
    }
}

/// Measures, writes the page, and says what was missed.
///
/// Errors: a competitor fails.
pub fn inside(cache: &Path, found: &str) -> Result<ExitCode> {
    let start = Instant::now();
    let Found {
        cluster,
        firn,
        skopeo,
        skopeo_version,
        nix2container,
        wishes,
    } = serde_json::from_str(found).context("this is for `firn-bench run` to call")?;
    let store = store(cache)?;
    let arena = Arena::enter(cluster)?;
    if nix2container.is_some() {
        arena.bind(&store.directory, Path::new(Bare::PLACE))?;
    }
    let programs = Programs {
        firn,
        own: std::env::current_exe().context("failed to find this program")?,
        skopeo,
        nix2container,
    };
    let bench = Bench {
        arena: &arena,
        programs: &programs,
        store: &store,
    };
    bench.prepare()?;
    let mut verdicts = Vec::new();
    let cases: &[Case] = if wishes.wants(Part::Rows) {
        &Case::ALL
    } else if wishes.wants(Part::New) {
        &Case::ALL[..1]
    } else {
        &[]
    };
    let runs = bench.run(cases, wishes.rounds)?;
    verdicts.extend(verdict::timed(&runs));
    if wishes.wants(Part::Rows) {
        let costs = step("a node that pulls", || {
            Ok((bench.node_cost(Peer::Firn)?, bench.node_cost(Peer::Zstd)?))
        })?;
        verdicts.push(verdict::node(costs.0, costs.1));
    }
    let mut in_turn = Vec::new();
    if wishes.wants(Part::Bytes) {
        in_turn = self::in_turn(&bench)?;
        if let Some(runs) = runs.get(&(Case::Libraries, Peer::Firn)) {
            verdicts.push(verdict::libraries(
                verdict::sent(runs),
                libraries_least(&store)?,
            ));
        }
    }
    if wishes.wants(Part::Memory) {
        verdicts.extend(memory(cache, &bench)?);
    }
    let report = Report {
        machine: &machine(),
        closure: &description(&store),
        skopeo: &skopeo_version,
        rounds: wishes.rounds,
        took: start.elapsed(),
        runs: &runs,
        in_turn: &in_turn,
        verdicts: &verdicts,
    };
    if wishes.only.is_empty() {
        let page = repository().join(&wishes.page);
        std::fs::write(&page, report.to_markdown())
            .with_context(|| format!("failed to write {}", page.display()))?;
        say(format!("wrote {}", page.display()));
    }
    let mut missed = false;
    for Verdict {
        row,
        wanted,
        found,
        holds,
        binding,
    } in &verdicts
    {
        let mark = if *holds { "holds " } else { "MISSED" };
        say(format!("{mark} {row}: {wanted}: {found}"));
        missed |= *binding && !holds;
    }
    Ok(if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn in_turn(bench: &Bench<'_>) -> Result<Vec<EachInTurn>> {
    let store = bench.store;
    let (base, app) = (&store.base.closure, &store.base.app);
    step("each path changed in turn", || {
        let sizes = sizes(&store.directory, base.paths.keys())?;
        let scratch = bench.arena.file("changed.json");
        std::iter::once(None)
            .chain(STRATEGIES.map(Some))
            .map(|strategy| {
                each_in_turn(&bench.programs.firn, base, app, &sizes, strategy, &scratch)
            })
            .collect()
    })
}

/// Bytes of the paths that a change of libraries renames, each compressed by itself.
fn libraries_least(store: &Store) -> Result<u64> {
    let base = &store.base.closure.paths;
    let new = || {
        let paths = store.libraries.closure.paths.keys();
        paths.filter(|path| !base.contains_key(*path))
    };
    Ok(sum(&sizes(&store.directory, new())?, new()))
}

fn memory(cache: &Path, bench: &Bench<'_>) -> Result<Vec<Verdict>> {
    let limit = MEMORY + MEMORY_OF_A_WORKER * cores() as u64;
    let (directory, large) = synthetic::store(cache)?;
    let stores = [
        ("1 GB image", &bench.store.directory, &bench.store.base),
        ("10 GB image", &directory, &large),
    ];
    let verdicts = stores.map(|(what, directory, closure)| {
        let run = bench.limited(directory, closure, limit);
        let peak = run.map(|run| run.usage.peak).map_err(|e| format!("{e:#}"));
        verdict::memory(what, limit, peak)
    });
    Ok(verdicts.to_vec())
}

fn description(store: &Store) -> String {
    let closure = &store.base.closure;
    format!(
        "{} store paths of real Debian packages, {} MB as NAR",
        closure.paths.len(),
        closure.nar_size() / 1_000_000
    )
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let sha = if cpu.contains(" sha_ni") { "" } else { "out" };
    let memory = read("/proc/meminfo");
    let memory = memory
        .split_whitespace()
        .nth(1)
        .and_then(|kb| kb.parse::<u64>().ok());
    format!(
        "{} cores ({}, with{sha} SHA instructions), {} GiB, Linux {}",
        cores(),
        model.map_or("unknown", |(_, model)| model),
        memory.unwrap_or_default().div_ceil(1 << 20),
        read("/proc/sys/kernel/osrelease").trim()
    )
}
