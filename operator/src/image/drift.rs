//! Whether the registry still has what was published, and what follows by `verification`. Pure.
//!
//! What cannot be read is no drift, nor is what was asked before the last build put it right. How
//! often it is put right is bounded: somebody who takes a tag each time would otherwise be answered
//! with a Job at each check, for ever.

use std::collections::BTreeSet;

use firn_crd::condition::{
    ConditionReason as Word, ConditionStatus, ConditionType, NewCondition, find_condition,
};
use firn_crd::output::TagPolicy;
use firn_crd::policy::OnDrift;
use firn_crd::published::Published;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::Observed;
use super::decide::Decision;
use super::fold::{Fold, fold};
use super::run::{Run, State};
use crate::registry::{Access, Found, Observation, Query};

/// Repairs within [`REPAIRS_PERIOD`] of each other: one for an accident, and some more for whoever
/// makes it again. Who goes on is no accident.
const REPAIRS_MAX: u32 = 3;
/// After a pause of this length repairs are counted anew.
const REPAIRS_PERIOD: SignedDuration = SignedDuration::from_hours(24);

/// What the registry has other than what was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The image itself is gone.
    missing: bool,
    /// Tags that point elsewhere, and where.
    moved: Vec<(String, String)>,
    /// Tags that are gone.
    deleted: Vec<String>,
}

/// How a drift is repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// The tags are moved back.
    Retag {
        /// Which repair it is, counted while one follows the other.
        attempt: u32,
    },
    /// The image is built and pushed again.
    Build {
        /// As above.
        attempt: u32,
    },
    /// Not before this time: it was repaired again and again.
    Later(Timestamp),
}

/// What becomes of the condition `TagDrift`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It stays as it is, be it there or not.
    Kept,
    /// It goes.
    Absent,
    /// It is this.
    Is(NewCondition),
}

/// What the registry is to be asked. `None`: nothing.
pub fn question(observed: &Observed) -> Option<Query> {
    let spec = &observed.image.spec;
    if spec.verification.on_drift == OnDrift::Ignore {
        return None;
    }
    let output = &spec.output;
    let fold = fold(observed);
    let published = fold.published_in(&output.repository)?;
    let succeeded = observed.runs.iter().filter(|run| run.succeeded());
    Some(Query {
        repository: output.repository.clone(),
        digest: published.digest.clone()?,
        tags: published.tags.clone(),
        since: succeeded.map(|run| run.number).max().unwrap_or(0),
        access: Access {
            secret: output
                .push_secret_ref
                .as_ref()
                .map(|secret| secret.name.clone()),
            ca: output
                .ca_config_map_ref
                .as_ref()
                .map(|ca| (ca.name.clone(), ca.key.clone())),
            plain_http: output.plain_http,
        },
        interval: spec.verification.interval.as_std(),
        asked: observed.image.requested_reconcile().map(ToOwned::to_owned),
    })
}

/// What differs. `None`: nothing, or nobody knows.
pub fn drift(observation: &Observation, published: &Published) -> Option<Drift> {
    let Observation::Found(Found { digest, tags }) = observation else {
        return None;
    };
    let mut drift = Drift {
        missing: !digest,
        moved: Vec::new(),
        deleted: Vec::new(),
    };
    for tag in &published.tags {
        match tags.get(tag) {
            Some(None) => drift.deleted.push(tag.clone()),
            Some(there) if *there != published.digest => {
                let there = there.clone().unwrap_or_default();
                drift.moved.push((tag.clone(), there));
            }
            Some(_) | None => {}
        }
    }
    let none = !drift.missing && drift.moved.is_empty() && drift.deleted.is_empty();
    (!none).then_some(drift)
}

/// Whether the registry was asked and has everything.
pub fn is_as_published(observed: &Observed, published: &Published) -> bool {
    matches!(observed.registry, Observation::Found(_))
        && drift(&observed.registry, published).is_none()
}

/// What is to be done about what was published. `None`: nothing.
pub fn repair(observed: &Observed, published: &Published) -> Option<Repair> {
    if observed.image.spec.verification.on_drift != OnDrift::Repush {
        return None;
    }
    let drift = drift(&observed.registry, published)?;
    if !drift.missing && !drift.tags_may_move(observed) {
        return None;
    }
    let last = observed.runs.iter().rev().find(|run| run.repairs());
    let attempt = match last.and_then(|run| Some((run, run.ended_at()?))) {
        None => 1,
        Some((run, ended)) => {
            let anew = ended.checked_add(REPAIRS_PERIOD);
            match anew {
                Ok(anew)
                    if anew > observed.now && run.attempt >= REPAIRS_MAX && run.succeeded() =>
                {
                    return Some(Repair::Later(anew));
                }
                Ok(anew) if anew > observed.now => run.attempt.saturating_add(1),
                _ => 1,
            }
        }
    };
    Some(if drift.missing {
        Repair::Build { attempt }
    } else {
        Repair::Retag { attempt }
    })
}

impl Drift {
    /// Whether moving the tags back is of use, and what `output.tagPolicy` is for: the push decides
    /// in the same way, but what it would refuse need not be tried.
    fn tags_may_move(&self, observed: &Observed) -> bool {
        let output = &observed.image.spec.output;
        let ours: BTreeSet<&str> = observed
            .runs
            .iter()
            .filter(|run| run.work.repository == output.repository)
            .filter_map(|run| run.object.status.as_ref()?.digest.as_deref())
            .collect();
        let of_others = self.moved.iter();
        let of_others = of_others.filter(|(_, there)| !ours.contains(there.as_str()));
        let of_others = of_others.count();
        match output.tag_policy {
            TagPolicy::Overwrite => true,
            TagPolicy::Keep => self.moved.len() + self.deleted.len() > of_others,
            TagPolicy::Fail => of_others == 0,
        }
    }

    /// The word for it: the worst, if there are several.
    const fn reason(&self) -> Word {
        if self.missing {
            Word::DigestMissing
        } else if self.moved.is_empty() {
            Word::TagDeleted
        } else {
            Word::TagMoved
        }
    }

    fn words(&self, repository: &str, digest: &str) -> String {
        let missing = self
            .missing
            .then(|| format!("{digest} is not in {repository} any more"));
        let moved = self.moved.iter().map(|(tag, there)| {
            format!("{repository}:{tag} points to {there} and not to {digest}")
        });
        let deleted = self
            .deleted
            .iter()
            .map(|tag| format!("{repository}:{tag} is gone"));
        let all: Vec<String> = missing.into_iter().chain(moved).chain(deleted).collect();
        all.join("; ")
    }
}

/// What the condition says.
pub fn said(observed: &Observed, fold: &Fold, decision: &Decision<'_>) -> Said {
    let spec = &observed.image.spec;
    let published = fold.published_in(&spec.output.repository);
    let Some(published) = published.filter(|_| spec.verification.on_drift != OnDrift::Ignore)
    else {
        return Said::Absent;
    };
    // A build that runs may have moved tags that status does not know of yet.
    let runs = |run: &Run| matches!(run.state, State::Active { .. });
    if matches!(decision, Decision::Suspended | Decision::Refused { .. })
        || observed.runs.iter().any(runs)
    {
        return Said::Kept;
    }
    let before = condition(observed);
    let holds = before.is_some_and(|before| !is_outdated(observed, before));
    match &observed.registry {
        Observation::Pending if holds => Said::Kept,
        Observation::Pending => Said::Absent,
        // What was found stays until the registry says otherwise.
        Observation::Unknown(_) if holds && before.is_some_and(|c| c.status == "True") => {
            Said::Kept
        }
        Observation::Unknown(failure) => Said::Is(NewCondition::new(
            ConditionType::TagDrift,
            ConditionStatus::Unknown,
            Word::RegistryUnreachable,
            &failure.message,
        )),
        Observation::Found(_) => match drift(&observed.registry, published) {
            None => Said::Absent,
            Some(drift) => Said::Is(told(observed, published, &drift)),
        },
    }
}

fn told(observed: &Observed, published: &Published, drift: &Drift) -> NewCondition {
    let spec = &observed.image.spec;
    let digest = published.digest.as_deref().unwrap_or_default();
    let follows = match (spec.verification.on_drift, repair(observed, published)) {
        (OnDrift::Repush, Some(Repair::Later(at))) => {
            format!("repaired {REPAIRS_MAX} times in a row, and not again before {at}")
        }
        (OnDrift::Repush, Some(Repair::Retag { .. })) => "the tags are moved back".to_owned(),
        (OnDrift::Repush, Some(Repair::Build { .. })) => "it is built again".to_owned(),
        (OnDrift::Repush, None) => {
            format!("output.tagPolicy {} leaves it so", spec.output.tag_policy)
        }
        (on_drift, _) => format!("verification.onDrift {on_drift} leaves it so"),
    };
    NewCondition::new(
        ConditionType::TagDrift,
        ConditionStatus::True,
        drift.reason(),
        format!(
            "{}; {follows}",
            drift.words(&spec.output.repository, digest)
        ),
    )
}

/// The condition as it stands.
fn condition(observed: &Observed) -> Option<&Condition> {
    let status = observed.image.status.as_ref()?;
    find_condition(&status.conditions, ConditionType::TagDrift)
}

/// Whether something was published or tagged since the condition turned.
fn is_outdated(observed: &Observed, condition: &Condition) -> bool {
    let runs = observed.runs.iter().filter(|run| run.succeeded());
    let ended = runs.filter_map(Run::ended_at).max();
    ended.is_some_and(|ended| ended > condition.last_transition_time.0)
}
