//! `make test`: runs every tier, counts, and says in one table what held.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Parser;
use firn_e2e::clone::repository;
use firn_e2e::cluster::is_foreign;
use firn_e2e::suite::{self, Count, Expected, Kind, Step, Summary, TestProgram, Tier, run_step};

/// Runs the tests and sums them up.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these tiers. Default: all.
    #[arg(value_enum)]
    tiers: Vec<Tier>,
    /// Leave the cluster up afterwards, to look around.
    #[arg(long, env = "FIRN_KEEP_CLUSTER")]
    keep: bool,
    /// Only stories whose name contains this; the counts are not held against the expected ones.
    #[arg(long)]
    only: Option<String>,
    /// Instead of the tests: the stories of faults, again and again.
    #[arg(long, conflicts_with = "only")]
    soak: bool,
}

impl Arguments {
    /// Neither some of them nor the sweep.
    const fn all_stories(&self) -> bool {
        self.only.is_none() && !self.soak
    }
}

/// How often the sweep of faults goes round; each time with other dice.
const ROUNDS: u64 = 10;
/// How often the operator is killed in a round: some four builds of six images.
const KILLS: &str = "40";

/// The tiers of a lane run one after the other, the lanes side by side: stories mostly wait for a
/// cluster, and the rest mostly computes. Both take about as long.
const LANES: [&[Tier]; 2] = [
    &[
        Tier::Checks,
        Tier::Unit,
        Tier::Package,
        Tier::Fuzz,
        Tier::Parts,
    ],
    &[Tier::Stories],
];

/// Stories that are told once more as if the embedded cluster were somebody's: then tests know of
/// it only what `FIRN_E2E_KUBECONFIG` and its companions name, each of which one of these needs.
const AS_FOREIGN: [&str; 3] = [
    "an_applied_image_is_built_pushed_pulled_and_run",
    "private_git_and_private_registry_with_an_authority_of_their_own",
    "a_git_server_without_filters_and_a_plain_registry_will_do",
];

/// Stories that need more of a cluster than its API.
const EMBEDDED_ONLY: [(&str, &str); 10] = [
    ("operator_killed", "it reads the API server's audit log"),
    (KILLED, "it reads the API server's audit log"),
    ("control_plane", "it kills the API server"),
    ("pods_taken", "it cordons the one node"),
    ("registry_faults", "it puts a proxy beside the API server"),
    ("two_platforms_are_built", "it adds a node"),
    ("a_binary_cache", "it puts a cache beside the API server"),
    ("a_forward_proxy", "it puts a proxy beside the API server"),
    ("the_figures_in_status", "it reads the registry's own log"),
    ("the_figures_of_the_demo", "it reads the registry's own log"),
];

/// Stories of real faults, left to CI and to the sweep: they take minutes.
const FAULTS: [&str; 4] = ["control_plane", KILLED, "pods_taken", "registry_faults"];
/// The one whose length and dice the sweep chooses.
const KILLED: &str = "killed_at_random";

fn main() -> Result<ExitCode> {
    let start = Instant::now();
    let mut arguments = Arguments::parse();
    if arguments.soak {
        arguments.tiers = vec![Tier::Stories];
    }
    let expected = if arguments.all_stories() {
        Expected::parse(include_str!("../../expected-tests"))?
    } else {
        Expected::default()
    };
    let bin = std::env::current_exe()?
        .parent()
        .context("this program has no folder")?
        .to_owned();
    let programs = suite::make(&repository())?;
    let plan = Plan {
        bin: &bin,
        programs: &programs,
        only: arguments.only.as_deref(),
        soak: arguments.soak,
    };
    let summary = Mutex::new(Summary::new(expected));
    let wanted = |tier: &Tier| arguments.tiers.is_empty() || arguments.tiers.contains(tier);
    thread::scope(|scope| {
        let lanes: Vec<_> = LANES
            .iter()
            .map(|lane| {
                let tiers = lane.iter().copied().filter(wanted);
                scope.spawn(|| {
                    tiers
                        .into_iter()
                        .try_for_each(|tier| run(tier, &plan, &summary))
                })
            })
            .collect();
        lanes.into_iter().try_for_each(|lane| {
            lane.join()
                .unwrap_or_else(|_| Err(anyhow!("a lane of tests panicked")))
        })
    })?;
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    let skip = |summary: &mut Summary, story: &str, why: &str| {
        let skipped = Count {
            skipped: 1,
            ..Count::default()
        };
        summary.add(Tier::Stories, skipped, Duration::ZERO);
        say(&format!("skipped: {story}: {why}"));
    };
    if summary.ran(Tier::Stories) && is_foreign() {
        for (story, why) in EMBEDDED_ONLY {
            let why = format!("{why}, which only the embedded cluster allows");
            skip(&mut summary, story, &why);
        }
    } else if summary.ran(Tier::Stories) && arguments.all_stories() && !in_ci() {
        for story in FAULTS {
            skip(
                &mut summary,
                story,
                "it takes long: CI=true and make soak run it",
            );
        }
    }
    if summary.ran(Tier::Stories)
        && left_out(Tier::Stories).is_none()
        && !is_foreign()
        && !arguments.keep
    {
        let down = Step::check("cluster down", plan.tool("firn-cluster", &["down"]));
        run_step(&down, &|line| show("", line))?;
    }
    seal_sources()?;
    say(&format!("\n{summary}"));
    say(&format!("{} seconds in all", start.elapsed().as_secs()));
    let complete = summary.nothing_left_out() || !in_ci();
    Ok(if summary.held() && complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The next clone need not compile what is the same there (`e2e/cargo-target`).
fn seal_sources() -> Result<()> {
    let script = repository().join("e2e/cargo-target");
    let sealed = Command::new(&script).arg("--seal").status();
    let sealed = sealed.with_context(|| format!("failed to start {}", script.display()))?;
    ensure!(sealed.success(), "{} --seal: {sealed}", script.display());
    Ok(())
}

/// Runs one tier, or leaves it out.
fn run(tier: Tier, plan: &Plan<'_>, summary: &Mutex<Summary>) -> Result<()> {
    let summary = || summary.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(why) = left_out(tier) {
        summary().leave_out(tier, why);
        return Ok(());
    }
    let name = tier.to_string();
    for step in plan.steps(tier) {
        say(&format!("== {tier}: {}", step.name));
        let start = Instant::now();
        let ran = run_step(&step, &|line| show(&name, line))?;
        let failed = ran.count.failed > 0;
        summary().add_ran(tier, ran, start.elapsed());
        // What the others need is missing; one failure says it better than forty.
        if failed && step.kind == Kind::Preparation {
            break;
        }
    }
    Ok(())
}

/// A line of one tier. Tiers run side by side, so each line says whose it is.
fn show(tier: &str, line: &[u8]) {
    let mut out = std::io::stdout().lock();
    // Nobody reads any more: the tests go on, and the exit code tells.
    let _ = write!(out, "{tier:<8}| ");
    let _ = out.write_all(line);
    let _ = writeln!(out);
}

#[expect(
    clippy::print_stdout,
    reason = "the summary is what this program is for"
)]
fn say(text: &str) {
    println!("{text}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: CI=true makes leaving tests out a failure"
)]
fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Why a tier cannot run here.
fn left_out(tier: Tier) -> Option<&'static str> {
    if !tier.needs_cluster() || (tier == Tier::Stories && is_foreign()) {
        return None;
    }
    if !cfg!(target_os = "linux") {
        return Some("the embedded cluster needs Linux; set FIRN_E2E_KUBECONFIG to use another");
    }
    if !rustix::process::geteuid().is_root() {
        return Some("the embedded cluster needs root; set FIRN_E2E_KUBECONFIG to use another");
    }
    None
}

/// What steps are made of.
struct Plan<'a> {
    /// The folder of Firn's own programs for tests.
    bin: &'a Path,
    programs: &'a [TestProgram],
    only: Option<&'a str>,
    soak: bool,
}

impl Plan<'_> {
    fn steps(&self, tier: Tier) -> Vec<Step> {
        match tier {
            Tier::Checks => checks(),
            Tier::Unit => self.tests(tier, &[], &["--quiet"]),
            Tier::Package => {
                let mut steps = self.tests(tier, &[], &["--quiet"]);
                steps.extend(in_ci().then(long_model));
                steps
            }
            Tier::Fuzz => vec![Step::tests("targets", self.tool("firn-fuzz", &[]))],
            Tier::Parts => {
                let mut steps = vec![Step::build(self.tool("firn-cluster", &["build"]))];
                steps.extend(self.tests(tier, &[], &["--test-threads=1"]));
                steps
            }
            Tier::Stories => self.stories(),
        }
    }

    fn stories(&self) -> Vec<Step> {
        // Inside the embedded cluster's network; a foreign cluster is reached from here.
        let (mut steps, inside, skip) = if is_foreign() {
            let skip = EMBEDDED_ONLY.iter();
            let skip: Vec<&str> = skip.flat_map(|(story, _)| ["--skip", story]).collect();
            (Vec::new(), Vec::new(), skip)
        } else {
            let files = Step::build(self.tool("firn-cluster", &["arm64"]));
            let up = Step::build(self.tool("firn-cluster", &["up"]));
            let inside = self.tool("firn-cluster", &["exec", "--"]);
            (vec![files, up], inside, Vec::new())
        };
        steps.push(Step::build(self.tool("firn-install", &[])));
        let mut stories = |name: &str, caller: &[OsString], more: &[&str]| {
            let arguments = [&skip[..], more].concat();
            let tests = self.tests(Tier::Stories, caller, &arguments);
            steps.extend(tests.into_iter().map(|step| Step {
                name: name.to_owned(),
                ..step
            }));
        };
        if let Some(only) = self.only {
            stories("some of them", &inside, &[only, "--test-threads=1"]);
            return steps;
        }
        if self.soak {
            for round in 1..=ROUNDS {
                let killed = [KILLED, "--test-threads=1"];
                for step in self.tests(Tier::Stories, &inside, &killed) {
                    let step = step.env("FIRN_KILLS", KILLS);
                    let step = step.env("FIRN_KILL_SEED", round.to_string());
                    steps.push(step);
                }
                let others = [&FAULTS[..], &["--skip", KILLED, "--test-threads=1"]].concat();
                steps.extend(self.tests(Tier::Stories, &inside, &others));
            }
            return steps;
        }
        let together = ["--skip", "alone::", "--test-threads=4"];
        stories("side by side", &inside, &together);
        if !is_foreign() {
            let inside = self.tool("firn-cluster", &["exec", "--as-foreign", "--"]);
            let again = [&AS_FOREIGN[..], &["--test-threads=3"]].concat();
            stories("as if the cluster were somebody's", &inside, &again);
        }
        let mut alone = vec!["alone::", "--test-threads=1"];
        if !in_ci() {
            alone.extend(FAULTS.iter().flat_map(|story| ["--skip", story]));
        }
        stories(
            "those that want the cluster for themselves",
            &inside,
            &alone,
        );
        steps
    }

    /// The test programs of a tier, called by `caller` with `arguments`.
    fn tests(&self, tier: Tier, caller: &[OsString], arguments: &[&str]) -> Vec<Step> {
        let programs = self.programs.iter().filter(|program| program.tier == tier);
        programs
            .map(|program| {
                let call = caller.iter().cloned();
                let call = call.chain([program.executable.clone().into_os_string()]);
                let call = call.chain(arguments.iter().map(Into::into));
                Step::tests(&program.name, call).of_package(&program.folder)
            })
            .collect()
    }

    fn tool(&self, name: &str, words: &[&str]) -> Vec<OsString> {
        let program: PathBuf = self.bin.join(name);
        std::iter::once(program.into_os_string())
            .chain(words.iter().map(Into::into))
            .collect()
    }
}

/// Many more stories of the operator's model than elsewhere, and none of what can happen in them may
/// be missing. Like the search of the tier `fuzz`, it gives way to what has deadlines.
fn long_model() -> Step {
    let command = "nice -n 19 cargo test --config operator/tests/model/quick.toml \
         --package firn-operator --test model -- whatever_happens --nocapture";
    Step::tests("many stories of the model", command.split_whitespace())
        .env("FIRN_MODEL_STORIES", "10000")
}

fn checks() -> Vec<Step> {
    let check = |name: &str, command: &str| Step::check(name, command.split(' '));
    vec![
        check("formatting", "cargo fmt --all --check"),
        check(
            "clippy",
            "cargo clippy --workspace --all-targets -- -D warnings",
        ),
        check(
            "rustdoc",
            "cargo doc --workspace --no-deps --document-private-items",
        )
        .env("RUSTDOCFLAGS", "-D warnings"),
        check(
            "licences",
            "e2e/cargo-deny check --hide-inclusion-graph licenses bans sources",
        ),
    ]
}
