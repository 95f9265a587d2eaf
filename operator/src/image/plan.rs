//! From what is observed to what is done: synchronous, total, infallible. Pure.

use std::collections::BTreeSet;

use firn_crd::{NixImageBuild, NixImageStatus};
use jiff::Timestamp;
use kube::ResourceExt;

use super::decide::{Decision, decide};
use super::drift::{self, Repair};
use super::fold::{Fold, fold};
use super::retry::Again;
use super::run::Run;
use super::{Observed, snapshot, status, told};
use crate::events::Event;
use crate::history;

/// What is done, in this order: actions, status, events, clean-up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// What must be there before status speaks of it.
    pub actions: Vec<Action>,
    /// What status says, if it is to say something else than it does.
    pub status: Option<Box<NixImageStatus>>,
    /// What people are told.
    pub events: Vec<Event>,
    /// What may go once status has taken it in.
    pub cleanup: Vec<Action>,
    /// When to look again, if nothing happens before.
    pub look_again: Option<Timestamp>,
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make a build, or find that it is there already.
    CreateBuild(Box<NixImageBuild>),
    /// Cancel a build, for a newer one.
    SupersedeBuild {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
    /// Delete a finished build.
    DeleteBuild {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
    },
}

impl Plan {
    /// The plan on one line, for logs.
    pub fn summary(&self) -> String {
        let names: Vec<String> = self
            .actions
            .iter()
            .chain(&self.cleanup)
            .map(|action| match action {
                Action::CreateBuild(build) => format!("create {}", build.name_any()),
                Action::SupersedeBuild { name, .. } => format!("cancel {name}"),
                Action::DeleteBuild { name, .. } => format!("delete {name}"),
            })
            .chain(self.status.iter().map(|_| "write status".to_owned()))
            .chain(self.look_again.map(|at| format!("look again at {at}")))
            .collect();
        names.join(", ")
    }
}

/// What is done.
pub fn plan(observed: &Observed) -> Plan {
    if observed.image.metadata.deletion_timestamp.is_some() {
        // Everything below it goes with it; nothing new may appear.
        return Plan::default();
    }
    let fold = fold(observed);
    let decision = decide(observed, &fold);
    let old = observed.image.status.clone().unwrap_or_default();
    let new = status::status(observed, &fold, &decision);
    let (cleanup, expires) = excess(observed, &fold);
    let mut events = told::events(&old, &new, observed, &decision);
    events.extend(told::pruned(&cleanup));
    Plan {
        actions: actions(observed, &decision),
        events,
        status: (new != old).then(|| Box::new(new)),
        cleanup,
        look_again: [expires, due(observed, &fold, &decision)]
            .into_iter()
            .flatten()
            .filter(|at| *at > observed.now)
            .min(),
    }
}

fn actions(observed: &Observed, decision: &Decision<'_>) -> Vec<Action> {
    match decision {
        Decision::Start { new, before } => {
            let before = before.map(|run| &run.object.spec);
            let build = snapshot::build(&observed.image, &observed.site, new, before);
            vec![Action::CreateBuild(Box::new(build))]
        }
        Decision::Supersede(run) => vec![Action::SupersedeBuild {
            name: run.name.clone(),
            uid: run.uid.clone(),
        }],
        Decision::Suspended
        | Decision::Refused { .. }
        | Decision::Active(_)
        | Decision::Waiting
        | Decision::SourceFailed(_)
        | Decision::Failed { .. }
        | Decision::Settled { .. } => Vec::new(),
    }
}

/// When a decision may be another without anything happening.
fn due(observed: &Observed, fold: &Fold, decision: &Decision<'_>) -> Option<Timestamp> {
    match decision {
        Decision::Failed {
            again: Again::At { at, .. },
            ..
        } => Some(*at),
        // An older image in the same repository may go without our seeing it.
        Decision::Refused { .. } if !observed.rivals.is_empty() => observed
            .now
            .checked_add(jiff::SignedDuration::from_mins(5))
            .ok(),
        Decision::Settled { .. } => {
            let published = fold.published_in(&observed.image.spec.output.repository)?;
            match drift::repair(observed, published)? {
                Repair::Later(at) => Some(at),
                Repair::Retag { .. } | Repair::Build { .. } => None,
            }
        }
        _ => None,
    }
}

fn excess(observed: &Observed, fold: &Fold) -> (Vec<Action>, Option<Timestamp>) {
    let spec = &observed.image.spec.history;
    let keep = history::Keep {
        succeeded: usize::try_from(spec.succeeded).unwrap_or(0),
        failed: usize::try_from(spec.failed).unwrap_or(0),
        ttl: spec
            .ttl_after_finished
            .as_ref()
            .map(firn_crd::Duration::as_std),
    };
    let entries: Vec<_> = observed
        .runs
        .iter()
        .filter_map(|run| {
            Some(history::Entry {
                number: run.number,
                succeeded: run.succeeded(),
                ended: run.ended_at()?,
            })
        })
        .collect();
    let last =
        |of: &dyn Fn(&&Run) -> bool| observed.runs.iter().rev().find(of).map(|run| run.number);
    let published = fold
        .published
        .as_ref()
        .and_then(|published| published.build.as_deref());
    let pinned: BTreeSet<i64> = [
        last(&|run| run.work.retag),
        last(&|run| !run.work.retag),
        last(&|run| run.succeeded()),
        last(&|run| Some(run.name.as_str()) == published),
    ]
    .into_iter()
    .flatten()
    .collect();
    let (gone, next) = history::excess(&entries, keep, &pinned, observed.now);
    let actions = observed
        .runs
        .iter()
        .filter(|run| gone.contains(&run.number))
        .map(|run| Action::DeleteBuild {
            name: run.name.clone(),
            uid: run.uid.clone(),
        })
        .collect();
    (actions, next)
}
