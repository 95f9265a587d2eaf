//! Conditions: their types, the reasons that are no failures, and how one is set. Pure: the time is
//! an argument.
//!
//! | condition | True | False | Unknown |
//! |---|---|---|---|
//! | Ready | Succeeded, NotChanged | a failure's reason | Queued, Building, Progressing |
//! | Reconciling | Queued, Building, Progressing, ProgressingWithRetry | absent | |
//! | Stalled | a failure's reason | absent | |
//! | Available | ImagePublished | NeverBuilt, ImageMissing | |
//! | SourceReady | Fetched | a failure's reason | Polling |
//! | TagDrift | TagMoved, TagDeleted, DigestMissing | absent | RegistryUnreachable |
//! | Succeeded (builds) | an outcome | a failure's reason | Queued, Building |

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use crate::exit;
use crate::report::first_bytes;

/// Longest message of a condition, in bytes. The schema counts characters: never more.
pub const MESSAGE_MAX: usize = 4096;

/// The types of conditions, on images and builds.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
pub enum ConditionType {
    /// The current spec and source are published.
    Ready,
    /// Work is under way. Absent when not.
    Reconciling,
    /// Nothing more happens until somebody changes something. Absent when not.
    Stalled,
    /// There is an image to deploy, if perhaps an older one.
    Available,
    /// The source answers and the revision is known.
    SourceReady,
    /// The registry has something else than was published. Absent when not.
    TagDrift,
    /// A build's result: True, False, or Unknown while it runs.
    Succeeded,
}

/// `status` of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, EnumIter, EnumString, IntoStaticStr)]
pub enum ConditionStatus {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// Not known yet.
    Unknown,
}

/// Reasons of conditions that are no failures. Failures have those of [`exit::Reason`]. The names
/// are API: add, never rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, EnumIter, EnumString, IntoStaticStr)]
pub enum ConditionReason {
    /// An image was built and published.
    Succeeded,
    /// What would be built is published already.
    NotChanged,
    /// Tags were moved to the published image.
    Retagged,
    /// Waiting for a free slot.
    Queued,
    /// A build runs.
    Building,
    /// Something is being done or decided.
    Progressing,
    /// It failed and will be tried again.
    ProgressingWithRetry,
    /// There is an image.
    ImagePublished,
    /// There was never an image.
    NeverBuilt,
    /// There was an image, and it is gone from the registry.
    ImageMissing,
    /// The source's revision is known.
    Fetched,
    /// The source was not asked yet.
    Polling,
    /// A tag points to another image.
    TagMoved,
    /// A tag is gone.
    TagDeleted,
    /// The image is gone.
    DigestMissing,
    /// The registry does not answer.
    RegistryUnreachable,
}

/// A condition as it should be, before the time of its last change is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCondition {
    kind: ConditionType,
    status: ConditionStatus,
    reason: String,
    message: String,
}

impl NewCondition {
    /// A condition with a reason that is no failure.
    pub fn new(
        kind: ConditionType,
        status: ConditionStatus,
        reason: ConditionReason,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            status,
            reason: reason.to_string(),
            message: message.into(),
        }
    }

    /// A condition with a failure's reason.
    pub fn failed(
        kind: ConditionType,
        status: ConditionStatus,
        reason: exit::Reason,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            status,
            reason: reason.to_string(),
            message: message.into(),
        }
    }
}

/// Puts `new` in the place of the condition of its type, which keeps its place in the list.
/// `lastTransitionTime` moves only when the status does. The message is cut to [`MESSAGE_MAX`].
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    new: NewCondition,
    generation: Option<i64>,
    now: &Time,
) {
    let NewCondition {
        kind,
        status,
        reason,
        message,
    } = new;
    let mut condition = Condition {
        type_: kind.to_string(),
        status: status.to_string(),
        reason,
        message: first_bytes(&message, MESSAGE_MAX).to_owned(),
        observed_generation: generation,
        last_transition_time: now.clone(),
    };
    match conditions.iter_mut().find(|c| c.type_ == condition.type_) {
        Some(old) => {
            if old.status == condition.status {
                condition.last_transition_time = old.last_transition_time.clone();
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
}

/// Removes an abnormal condition that no longer holds.
pub fn remove_condition(conditions: &mut Vec<Condition>, kind: ConditionType) {
    let name: &'static str = kind.into();
    conditions.retain(|condition| condition.type_ != name);
}

/// The condition of that type.
pub fn find_condition(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    let name: &'static str = kind.into();
    conditions.iter().find(|condition| condition.type_ == name)
}

/// Whether the condition is there and True.
pub fn is_true(conditions: &[Condition], kind: ConditionType) -> bool {
    find_condition(conditions, kind).is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time(jiff::Timestamp::from_second(second).unwrap())
    }

    fn ready(status: ConditionStatus, message: &str) -> NewCondition {
        NewCondition::new(
            ConditionType::Ready,
            status,
            ConditionReason::Building,
            message,
        )
    }

    #[test]
    fn the_time_moves_only_when_the_status_does() {
        let mut conditions = Vec::new();
        set_condition(
            &mut conditions,
            ready(ConditionStatus::Unknown, "a"),
            Some(1),
            &at(10),
        );
        set_condition(
            &mut conditions,
            ready(ConditionStatus::Unknown, "b"),
            Some(2),
            &at(20),
        );
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].message, "b");
        assert_eq!(conditions[0].observed_generation, Some(2));
        assert_eq!(conditions[0].last_transition_time, at(10));

        set_condition(
            &mut conditions,
            ready(ConditionStatus::True, "c"),
            Some(2),
            &at(30),
        );
        assert_eq!(conditions[0].last_transition_time, at(30));
        assert!(is_true(&conditions, ConditionType::Ready));
    }

    #[test]
    fn conditions_of_other_types_are_left_alone() {
        let mut conditions = Vec::new();
        set_condition(
            &mut conditions,
            ready(ConditionStatus::True, "a"),
            None,
            &at(10),
        );
        let stalled = NewCondition::failed(
            ConditionType::Stalled,
            ConditionStatus::True,
            exit::Reason::BuildFailed,
            "b",
        );
        set_condition(&mut conditions, stalled, None, &at(20));
        remove_condition(&mut conditions, ConditionType::Stalled);
        assert_eq!(conditions.len(), 1);
        assert_eq!(find_condition(&conditions, ConditionType::Stalled), None);
        assert!(is_true(&conditions, ConditionType::Ready));
    }

    #[test]
    fn a_long_message_is_cut_at_a_characters_border() {
        let mut conditions = Vec::new();
        let message = format!("x{}", "ü".repeat(MESSAGE_MAX));
        set_condition(
            &mut conditions,
            ready(ConditionStatus::True, &message),
            None,
            &at(0),
        );
        assert_eq!(conditions[0].message.len(), MESSAGE_MAX - 1);
        assert!(message.starts_with(&conditions[0].message));
    }
}
