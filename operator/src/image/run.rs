//! One build of an image, read from its `NixImageBuild`. Pure.

use std::sync::Arc;

use firn_crd::NixImageBuild;
use firn_crd::build::BuildReason;
use firn_crd::build_status::BuildOutcome;
use firn_crd::condition::{ConditionReason, ConditionType, find_condition};
use firn_crd::names::{
    ANNOTATION_ATTEMPT, ANNOTATION_BUILD, ANNOTATION_BUILD_HASH, ANNOTATION_TAGS_HASH,
};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::source::Revision;

/// One build.
#[derive(Debug, Clone)]
pub struct Run {
    /// `web-17`.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// 17.
    pub number: i64,
    /// Which work it does.
    pub work: Work,
    /// Which try of this work it is, from 1.
    pub attempt: u32,
    /// The request that a person made for it, if one did: the value of the annotation.
    pub requested: Option<String>,
    /// Whether it has ended.
    pub state: State,
    /// The object.
    pub object: Arc<NixImageBuild>,
}

/// What makes two builds the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Whether it only moves tags.
    pub retag: bool,
    /// Hash of the spec's fields that change the image.
    pub build_hash: String,
    /// Hash of the spec's fields that change tags.
    pub tags_hash: String,
    /// Where the image goes.
    pub repository: String,
    /// The source.
    pub revision: Revision,
}

impl Work {
    /// Whether both would evaluate and build the same.
    pub fn builds_the_same(&self, other: &Self) -> bool {
        self.build_hash == other.build_hash && self.revision.commit == other.revision.commit
    }
}

/// Whether a build has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It waits or runs.
    Active {
        /// `Queued` or `Building`.
        reason: ConditionReason,
        /// What it waits for, or does.
        message: String,
    },
    /// It has ended.
    Ended {
        /// How.
        outcome: BuildOutcome,
        /// When.
        at: Timestamp,
    },
}

impl Run {
    /// Reads a build. `None`: it is not one of the image with this UID, whatever its labels say.
    pub fn read(object: NixImageBuild, image_uid: &str) -> Option<Self> {
        let spec = &object.spec;
        let image = spec.image.as_ref().filter(|image| image.uid == image_uid)?;
        let owned = object
            .owner_references()
            .iter()
            .any(|owner| owner.controller == Some(true) && owner.uid == image.uid);
        if !owned {
            return None;
        }
        let annotation = |name| object.annotations().get(name).cloned().unwrap_or_default();
        let git = spec.source.git.as_ref()?;
        let run = Self {
            name: object.name_any(),
            uid: object.uid()?,
            number: spec.number?,
            work: Work {
                retag: spec.reasons.contains(&BuildReason::Retag),
                build_hash: annotation(ANNOTATION_BUILD_HASH),
                tags_hash: annotation(ANNOTATION_TAGS_HASH),
                repository: spec.output.repository.clone(),
                revision: Revision {
                    reference: git.reference.clone(),
                    commit: git.commit.clone(),
                    lock_hash: spec.source.lock_hash.clone(),
                    paths_hash: spec.source.paths_hash.clone(),
                    commit_time: spec.source.commit_time.as_ref().map(|time| time.0),
                },
            },
            requested: object.annotations().get(ANNOTATION_BUILD).cloned(),
            attempt: annotation(ANNOTATION_ATTEMPT).parse().unwrap_or(1),
            state: State::of(&object),
            object: Arc::new(object),
        };
        Some(run)
    }

    /// The build's key.
    pub fn key(&self) -> Option<&str> {
        self.object.spec.key.as_deref()
    }

    /// The generation of the image it was made from.
    pub fn generation(&self) -> i64 {
        self.object
            .spec
            .image
            .as_ref()
            .map_or(0, |image| image.generation)
    }

    /// How it ended, if it has.
    pub const fn outcome(&self) -> Option<BuildOutcome> {
        match self.state {
            State::Ended { outcome, .. } => Some(outcome),
            State::Active { .. } => None,
        }
    }

    /// When it ended, if it has.
    pub const fn ended_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Ended { at, .. } => Some(at),
            State::Active { .. } => None,
        }
    }

    /// Whether it did what it was for.
    pub const fn succeeded(&self) -> bool {
        matches!(
            self.outcome(),
            Some(BuildOutcome::Published | BuildOutcome::NotChanged | BuildOutcome::Retagged)
        )
    }

    /// Whether it puts back what others took from the registry.
    pub fn repairs(&self) -> bool {
        self.object.spec.reasons.contains(&BuildReason::Drift)
    }

    /// What asked for it, the strongest first, with commas between.
    pub fn reasons(&self) -> String {
        reasons(&self.object.spec.reasons)
    }
}

/// Reasons with commas between.
pub fn reasons(reasons: &[BuildReason]) -> String {
    reasons
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

impl State {
    fn of(object: &NixImageBuild) -> Self {
        let status = object.status.clone().unwrap_or_default();
        if let Some(outcome) = status.outcome {
            let at = status
                .completion_time
                .map_or(Timestamp::UNIX_EPOCH, |time| time.0);
            return Self::Ended { outcome, at };
        }
        let condition = find_condition(&status.conditions, ConditionType::Succeeded);
        Self::Active {
            reason: condition
                .and_then(|condition| condition.reason.parse().ok())
                .unwrap_or(ConditionReason::Queued),
            message: condition
                .map(|condition| condition.message.clone())
                .unwrap_or_default(),
        }
    }
}
