//! What happens after a failure: nothing until something changes, or another try, and when. Pure.

use firn_crd::exit::{Class, Reason};
use jiff::Timestamp;

use crate::backoff::{self, HOURLY};

/// What makes another try sensible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The cause is in the source or in a field that changes the image: the same work would fail
    /// again.
    NewWork,
    /// The cause is in the cluster or in another field of the spec: any change of the spec, or a
    /// person who asks.
    Asked,
    /// The cause is outside and somebody removes it without telling: asking again costs seconds, so
    /// it is asked again without limit, in growing pauses up to an hour.
    Outside,
    /// It goes away by itself: `build.retries` times, then hourly.
    Limited,
}

/// The rule of a reason. One of another version's is judged by its class.
pub const fn rule(reason: Option<Reason>, class: Class) -> Rule {
    let Some(reason) = reason else {
        return match class {
            Class::User => Rule::NewWork,
            Class::Transient | Class::Platform => Rule::Limited,
        };
    };
    match reason {
        Reason::SourceAuthFailed
        | Reason::PushAuthFailed
        | Reason::SecretMissing
        | Reason::CredentialsForbidden
        | Reason::RevisionNotFound
        | Reason::PodRejected
        | Reason::QuotaExceeded => Rule::Outside,
        // The Job has tried these twice; a third try would cost as much and end the same.
        Reason::OutOfMemory
        | Reason::StoreFull
        | Reason::SandboxUnavailable
        | Reason::BuildTimeout
        | Reason::DeadlineExceeded
        | Reason::ManifestRejected
        | Reason::TagExists
        | Reason::TagImmutable
        | Reason::Cancelled
        | Reason::NotSupported
        | Reason::IsolationNotAllowed
        | Reason::RegistryNotAllowed
        | Reason::TrustNotAllowed
        | Reason::OutputConflict
        | Reason::RetriesExhausted
        | Reason::SourceInvalid
        | Reason::HostKeyUnknown
        | Reason::TagTemplateInvalid => Rule::Asked,
        Reason::EvaluationFailed
        | Reason::AttributeNotFound
        | Reason::LockFileMissing
        | Reason::LockFileOutdated
        | Reason::NotAnImage
        | Reason::BuildFailed
        | Reason::HashMismatch
        | Reason::NotDeterministic
        | Reason::StorePathInvalid
        | Reason::ImageInvalid => Rule::NewWork,
        Reason::SourceUnreachable
        | Reason::SubstituterUnavailable
        | Reason::RegistryUnavailable
        | Reason::RegistryRateLimited
        | Reason::SigningFailed
        | Reason::NotLatest
        | Reason::InternalError
        | Reason::PodKilled
        | Reason::PodEvicted
        | Reason::Preempted
        | Reason::NodeLost
        | Reason::PodDeleted
        | Reason::Unschedulable
        | Reason::ImagePullFailed
        | Reason::VolumePending
        | Reason::Superseded => Rule::Limited,
    }
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Nothing by itself.
    Never,
    /// Another try.
    At {
        /// When.
        at: Timestamp,
        /// Whether nobody needs to do anything: it is not stuck.
        by_itself: bool,
        /// Whether `build.retries` are used up.
        exhausted: bool,
    },
}

/// When the try after attempt `attempt`, which ended at `ended`, is due. `retries` is the spec's;
/// `retry_after` what the other side asked for; `seed` makes the jitter.
pub fn again(
    rule: Rule,
    attempt: u32,
    ended: Timestamp,
    retries: u32,
    retry_after: Option<u32>,
    seed: &str,
) -> Again {
    let (pause, by_itself, exhausted) = match rule {
        Rule::NewWork | Rule::Asked => return Again::Never,
        Rule::Outside => (backoff::OUTSIDE.delay(attempt, seed), false, false),
        Rule::Limited if attempt > retries => (backoff::jittered(HOURLY, seed), false, true),
        Rule::Limited => (backoff::SLOW.delay(attempt, seed), true, false),
    };
    let asked = std::time::Duration::from_secs(u64::from(retry_after.unwrap_or(0)));
    let pause = pause.max(asked.min(HOURLY));
    // Whole seconds, as status keeps them.
    let seconds = i64::try_from(pause.as_secs()).unwrap_or(i64::MAX);
    let at =
        Timestamp::from_second(ended.as_second().saturating_add(seconds)).unwrap_or(Timestamp::MAX);
    Again::At {
        at,
        by_itself,
        exhausted,
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    fn ended() -> Timestamp {
        "2026-11-24T10:00:00Z".parse().unwrap()
    }

    fn pause(rule: Rule, attempt: u32, retry_after: Option<u32>) -> Option<(i64, bool, bool)> {
        match again(rule, attempt, ended(), 3, retry_after, "seed") {
            Again::Never => None,
            Again::At {
                at,
                by_itself,
                exhausted,
            } => Some((at.as_second() - ended().as_second(), by_itself, exhausted)),
        }
    }

    #[test]
    fn what_goes_away_is_tried_as_often_as_allowed_then_hourly() {
        let (first, by_itself, exhausted) = pause(Rule::Limited, 1, None).unwrap();
        assert!((15..=30).contains(&first) && by_itself && !exhausted);
        let (last, ..) = pause(Rule::Limited, 3, None).unwrap();
        assert!((60..=120).contains(&last));
        let (hourly, by_itself, exhausted) = pause(Rule::Limited, 4, None).unwrap();
        assert!((1800..=3600).contains(&hourly) && !by_itself && exhausted);
    }

    #[test]
    fn the_other_side_may_ask_for_more_time_but_not_for_ever() {
        assert_eq!(pause(Rule::Limited, 1, Some(600)).unwrap().0, 600);
        assert_eq!(pause(Rule::Limited, 1, Some(u32::MAX)).unwrap().0, 3600);
    }

    #[test]
    fn a_wrong_password_is_tried_without_limit() {
        let (pause, by_itself, exhausted) = pause(Rule::Outside, 1000, None).unwrap();
        assert!((1800..=3600).contains(&pause) && !by_itself && !exhausted);
    }

    #[test]
    fn a_transient_failure_is_never_left_alone() {
        for reason in Reason::iter().filter(|reason| reason.class() == Class::Transient) {
            assert_eq!(
                rule(Some(reason), reason.class()),
                Rule::Limited,
                "{reason}"
            );
        }
    }

    #[test]
    fn a_broken_build_is_not_tried_again_by_itself() {
        for reason in [
            Reason::BuildFailed,
            Reason::EvaluationFailed,
            Reason::OutOfMemory,
        ] {
            assert_eq!(
                pause(rule(Some(reason), reason.class()), 1, None),
                None,
                "{reason}"
            );
        }
    }
}
