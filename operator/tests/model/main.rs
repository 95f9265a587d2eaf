//! The operator's real turns in a world made of values: thousands of stories, each from a seed.
//!
//! ```text
//! people, git, nodes ──▶ world ◀── Job controller, kubelet, garbage collector
//!                         ▲ kube::Client over a tower service
//!                         └── observe ▶ plan ▶ act, of one operator or two, which crash
//! ```
//!
//! A story that breaks a rule prints its seed; `FIRN_MODEL_SEED=<seed>` tells it again, with all that
//! happens. `FIRN_MODEL_STORIES` is how many are told.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]
#![expect(clippy::print_stdout, reason = "what happened, for people")]
#![expect(unreachable_pub, reason = "one program in several files")]

mod api;
mod jobs;
mod kubelet;
#[path = "mutants/list.rs"]
mod mutants;
mod operator;
mod people;
mod repository;
mod rng;
mod rules;
mod story;
mod tally;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use firn_crd::build_status::BuildOutcome;
use firn_crd::exit::Reason;
use strum::IntoEnumIterator as _;

use story::{Kind, Outcome};
use tally::Tally;

/// Stories that are told unless the environment says otherwise.
const STORIES: u64 = 150;
/// In so many, everything happens that can.
const ENOUGH: u64 = 10_000;
/// The story in which the operator ends once at each of its calls.
const CRASHED: u64 = 3;
/// No more calls than this.
const CRASHES: u64 = 60;

#[expect(clippy::disallowed_methods, reason = "how a person replays a seed")]
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// What is special about a seed: a third have two operators.
fn kind(seed: u64) -> Kind {
    Kind {
        two: seed % 3 == 2,
        crash: None,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

/// Tells all of them on all cores; the first that breaks a rule is told again, in words.
fn tell_all(stories: &[(u64, Kind)]) -> Tally {
    let next = AtomicU64::new(0);
    let all = Mutex::new((Tally::default(), None::<(u64, Kind, Vec<String>)>));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let runtime = runtime();
                let mut tally = Tally::default();
                loop {
                    let index = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
                    let Some((seed, kind)) = stories.get(index) else {
                        break;
                    };
                    let Outcome {
                        broken, tally: of, ..
                    } = runtime.block_on(story::tell(*seed, *kind, false));
                    tally.add(&of);
                    if !broken.is_empty() {
                        println!("story {seed} ({kind:?}) breaks rules: {broken:?}");
                        if number("FIRN_MODEL_GO_ON").is_none() {
                            next.store(u64::MAX / 2, Ordering::Relaxed);
                        }
                        all.lock().unwrap().1.get_or_insert((*seed, *kind, broken));
                    }
                }
                all.lock().unwrap().0.add(&tally);
            });
        }
    });
    let (tally, broken) = all.into_inner().unwrap();
    tally.print();
    if let Some((seed, kind, words)) = broken {
        let told = runtime().block_on(story::tell(seed, kind, true));
        for line in &told.log {
            println!("{line}");
        }
        panic!(
            "story {seed} ({kind:?}) breaks rules: {words:#?}\nFIRN_MODEL_SEED={seed} tells it again"
        );
    }
    tally
}

/// What the operator does.
const ACTIONS: [&str; 9] = [
    "CreateBuild",
    "SupersedeBuild",
    "CreateJob",
    "CreateAccount",
    "Resume",
    "DeleteJob",
    "DeleteBuild",
    "ApplyImageStatus",
    "ApplyBuildStatus",
];

/// What never happened, of all that there is.
fn missing(tally: &Tally) -> Vec<String> {
    let reads = [
        "get NixImage",
        "get NixImageBuild",
        "get Job",
        "get ServiceAccount",
        "list NixImage",
        "list NixImageBuild",
        "list Pod",
        "list Event",
    ];
    let crashes = reads.iter().chain(&api::WRITES);
    let crashes = crashes.flat_map(|call| [format!("before {call}"), format!("after {call}")]);
    let wanted = ACTIONS
        .iter()
        .map(|action| ("action", (*action).to_owned()))
        .chain(crashes.map(|crash| ("crash", crash)))
        .chain(BuildOutcome::iter().map(|outcome| ("outcome", outcome.to_string())))
        .chain(
            Reason::iter()
                .filter(|reason| !NEVER.iter().any(|(never, _)| never == reason))
                .map(|reason| ("reason", reason.to_string())),
        );
    wanted
        .filter(|(what, which)| tally.of(what, which) == 0)
        // A reason that makes a build wait is only told.
        .filter(|(what, which)| *what != "reason" || tally.of("event", which) == 0)
        .map(|(what, which)| format!("{what} {which}"))
        .collect()
}

/// Reasons that no story gives, and why.
const NEVER: [(Reason, &str); 1] = [(
    Reason::IsolationNotAllowed,
    "this version refuses every isolation but one as NotSupported",
)];

#[test]
fn whatever_happens_no_rule_is_broken_and_all_comes_to_rest() {
    if let Some(seed) = number("FIRN_MODEL_SEED") {
        let told = runtime().block_on(story::tell(seed, kind(seed), true));
        for line in &told.log {
            println!("{line}");
        }
        assert!(told.broken.is_empty(), "{:#?}", told.broken);
        return;
    }
    let count = number("FIRN_MODEL_STORIES").unwrap_or(STORIES);
    let first = number("FIRN_MODEL_FIRST").unwrap_or(0);
    let stories: Vec<(u64, Kind)> = (first..first + count)
        .map(|seed| (seed, kind(seed)))
        .collect();
    let tally = tell_all(&stories);
    let missing = missing(&tally);
    println!("never happened: {missing:#?}");
    if count >= ENOUGH {
        assert!(missing.is_empty(), "never happened: {missing:#?}");
    }
}

#[test]
fn an_operator_that_ends_at_any_call_of_a_story_loses_nothing() {
    let quiet = runtime().block_on(story::tell(CRASHED, Kind::default(), false));
    assert!(quiet.broken.is_empty(), "{:#?}", quiet.broken);
    let stories: Vec<(u64, Kind)> = (0..quiet.calls.min(CRASHES))
        .map(|call| {
            let crash = Some((call, call % 2 == 0));
            (CRASHED, Kind { two: false, crash })
        })
        .collect();
    tell_all(&stories);
}

#[test]
fn each_mutant_is_a_mistake_in_the_sources_of_today() {
    let sources = std::path::Path::new("src");
    for mutant in &mutants::MUTANTS {
        let source = std::fs::read_to_string(sources.join(mutant.file)).unwrap();
        let found = source.matches(&mutant.text()).count();
        assert_eq!(
            found, 1,
            "{}: {}: {:?}",
            mutant.what, mutant.file, mutant.from
        );
        assert_ne!(mutant.parts().1, mutant.to);
    }
}
