//! The git repository: commits, some of which change nothing, and days on which it cannot be read.
//! Each operator polls it by itself and remembers what it was told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use firn_operator::source::{
    Answers, ImageKey, Kind, Observation, Observed, Query, Revision, SourceFailure,
};
use jiff::Timestamp;

use super::world::{What, World};

/// What is there.
#[derive(Debug, Clone, Default)]
pub struct Repository {
    pub commit: u64,
    /// Changes with some commits only.
    lock: u64,
    /// What a build of each commit gives.
    contents: BTreeMap<String, u64>,
    pub failure: Option<Kind>,
    /// The commit can be read, its files cannot.
    pub incomplete: bool,
}

impl Repository {
    /// A commit: does it change the lock file, and what is built?
    pub fn push(&mut self, lock: bool, content: bool) {
        let old = self.contents.get(&self.id()).copied().unwrap_or(0);
        self.commit += 1;
        if lock {
            self.lock += 1;
        }
        let content = if content || lock { self.commit } else { old };
        self.contents.insert(self.id(), content);
    }

    fn id(&self) -> String {
        format!("{:040x}", self.commit)
    }

    pub fn content(&self, commit: &str) -> String {
        let content = self.contents.get(commit).copied().unwrap_or(0);
        format!("{content:032}")
    }

    fn look(&self, at: Timestamp) -> Observation {
        if let Some(kind) = self.failure {
            return Observation::Failed {
                failure: SourceFailure::new(kind, format!("{kind:?}: the model says so")),
                at,
            };
        }
        let hash = |n: u64| Some(format!("{n:064x}"));
        let incomplete = self
            .incomplete
            .then(|| SourceFailure::new(Kind::Unreachable, "files cannot be read"));
        Observation::Resolved {
            revision: Revision {
                reference: Some("refs/heads/main".into()),
                commit: self.id(),
                lock_hash: incomplete.is_none().then(|| hash(self.lock)).flatten(),
                paths_hash: None,
                commit_time: Timestamp::from_second(1_700_000_000).ok(),
            },
            at,
            incomplete,
        }
    }
}

/// What one operator knows of the repository.
#[derive(Debug)]
pub struct Memory {
    world: Arc<Mutex<World>>,
    operator: usize,
    life: u32,
    entries: Mutex<BTreeMap<String, Entry>>,
}

#[derive(Debug, Clone)]
struct Entry {
    query: Query,
    observation: Observation,
    answered: Option<String>,
}

impl Memory {
    pub fn new(world: Arc<Mutex<World>>, operator: usize, life: u32) -> Self {
        Self {
            world,
            operator,
            life,
            entries: Mutex::default(),
        }
    }

    /// A poll ends: whether what it says is news.
    pub fn polled(&self, image: &str, world: &World) -> bool {
        let mut entries = self.entries.lock().unwrap();
        let Some(entry) = entries.get_mut(image) else {
            return false;
        };
        let old = entry.clone();
        let at = Timestamp::from_second(world.now).unwrap();
        entry.observation = world.repository.look(at);
        entry.answered.clone_from(&entry.query.asked);
        !same(&old.observation, &entry.observation) || old.answered != entry.answered
    }

    /// Images that are polled.
    pub fn images(&self) -> Vec<String> {
        self.entries.lock().unwrap().keys().cloned().collect()
    }
}

fn same(a: &Observation, b: &Observation) -> bool {
    match (a, b) {
        (
            Observation::Resolved {
                revision: a,
                incomplete: x,
                ..
            },
            Observation::Resolved {
                revision: b,
                incomplete: y,
                ..
            },
        ) => a == b && x == y,
        (Observation::Failed { failure: a, .. }, Observation::Failed { failure: b, .. }) => a == b,
        (a, b) => a == b,
    }
}

impl Answers for Memory {
    fn observe(&self, image: &ImageKey, query: &Query, now: Timestamp) -> Observed {
        let mut entries = self.entries.lock().unwrap();
        let known = entries.get(&image.name);
        let other = known.is_none_or(|entry| entry.query.git != query.git);
        let asked =
            query.asked.is_some() && known.is_none_or(|entry| entry.query.asked != query.asked);
        if other || asked {
            let mut world = self.world.lock().unwrap();
            let pause = world.rng.between(0, 4);
            let name = image.name.clone();
            world.later(pause, What::Polled(self.operator, self.life, name));
        }
        let entry = entries.entry(image.name.clone()).or_insert_with(|| Entry {
            query: query.clone(),
            observation: Observation::Pending,
            answered: None,
        });
        if other {
            entry.observation = Observation::Pending;
            entry.answered = None;
        }
        let kept = entry.query.asked.clone();
        entry.query = query.clone();
        entry.query.asked = query.asked.clone().or(kept);
        Observed {
            observation: entry.observation.clone(),
            answered: entry.answered.clone(),
            next_poll: now,
        }
    }

    fn forget(&self, image: &ImageKey) {
        self.entries.lock().unwrap().remove(&image.name);
    }
}
