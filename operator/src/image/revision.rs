//! Revisions as status shows them: `main@sha1:<40 hex>`. Pure.

use firn_crd::image::SourceStatus;
use firn_crd::source::{Follow, GitSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::image::template::short;
use crate::source::Revision;

/// `main@sha1:…`; without the name for a commit given by its id.
pub fn display(revision: &Revision) -> String {
    let algorithm = if revision.commit.len() == 64 {
        "sha256"
    } else {
        "sha1"
    };
    let commit = format!("{algorithm}:{}", revision.commit);
    match revision.reference.as_deref().map(short_name) {
        Some(name) => format!("{name}@{commit}"),
        None => commit,
    }
}

/// `main@1a2b3c4d5e6f`, for messages.
pub fn brief(revision: &Revision) -> String {
    let commit = short(&revision.commit);
    match revision.reference.as_deref().map(short_name) {
        Some(name) => format!("{name}@{commit}"),
        None => commit,
    }
}

/// The commit in what [`display`] made.
pub fn commit_of(displayed: &str) -> Option<&str> {
    displayed.rsplit_once(':').map(|(_, commit)| commit)
}

/// The branch of a full reference.
pub fn branch(reference: &str) -> Option<&str> {
    reference.strip_prefix("refs/heads/")
}

/// The tag of a full reference.
pub fn tag(reference: &str) -> Option<&str> {
    reference.strip_prefix("refs/tags/")
}

fn short_name(reference: &str) -> &str {
    branch(reference)
        .or_else(|| tag(reference))
        .unwrap_or(reference)
}

/// The revision that status speaks of, if it speaks of this source.
pub fn known(status: &SourceStatus, git: &GitSource) -> Option<Revision> {
    let displayed = status.revision.as_deref()?;
    let name = displayed.rsplit_once('@').map(|(name, _)| name);
    let reference = match git.follow() {
        Follow::Commit(_) => None,
        Follow::Tag(tag) => Some(format!("refs/tags/{tag}")),
        Follow::Branch(branch) => Some(format!("refs/heads/{branch}")),
        Follow::Semver(_) => name.map(|name| format!("refs/tags/{name}")),
        Follow::Head => name.map(|name| {
            if name == "HEAD" {
                name.to_owned()
            } else {
                format!("refs/heads/{name}")
            }
        }),
    };
    Some(Revision {
        reference,
        commit: commit_of(displayed)?.to_owned(),
        lock_hash: status.lock_hash.clone(),
        paths_hash: status.paths_hash.clone(),
        commit_time: status.commit_time.as_ref().map(|time| time.0),
    })
}

/// Status of a source, `old` being what it said before: the time moves with the revision only.
pub fn status(revision: &Revision, old: Option<&SourceStatus>, now: Time) -> SourceStatus {
    let displayed = display(revision);
    let same = old.filter(|old| old.revision.as_deref() == Some(displayed.as_str()));
    SourceStatus {
        revision: Some(displayed),
        short_revision: Some(short(&revision.commit)),
        lock_hash: revision.lock_hash.clone(),
        paths_hash: revision.paths_hash.clone(),
        commit_time: revision.commit_time.map(whole_seconds),
        observed_at: same.and_then(|old| old.observed_at.clone()).or(Some(now)),
    }
}

/// The API server keeps seconds: a finer time would differ from what is read back.
pub fn whole_seconds(time: jiff::Timestamp) -> Time {
    Time(jiff::Timestamp::from_second(time.as_second()).unwrap_or(time))
}

#[cfg(test)]
mod tests {
    use firn_crd::source::GitRef;

    use super::*;

    fn revision(reference: Option<&str>) -> Revision {
        Revision {
            reference: reference.map(Into::into),
            commit: "0123456789abcdef0123456789abcdef01234567".into(),
            lock_hash: Some("10cc".into()),
            paths_hash: None,
            commit_time: Some("2026-11-24T18:34:11Z".parse().unwrap()),
        }
    }

    #[test]
    fn a_revision_names_what_it_was_resolved_from() {
        let commit = revision(None).commit;
        assert_eq!(
            display(&revision(Some("refs/heads/feature/x"))),
            format!("feature/x@sha1:{commit}")
        );
        assert_eq!(
            display(&revision(Some("refs/tags/v1"))),
            format!("v1@sha1:{commit}")
        );
        assert_eq!(display(&revision(None)), format!("sha1:{commit}"));
        assert_eq!(
            brief(&revision(Some("refs/heads/main"))),
            "main@0123456789ab"
        );
    }

    #[test]
    fn what_status_says_is_read_back() {
        let git = GitSource::new("https://git.example/x");
        for reference in [None, Some("refs/heads/main")] {
            let seen = revision(reference);
            let status = status(&seen, None, Time("2026-11-24T19:00:00Z".parse().unwrap()));
            assert_eq!(known(&status, &git), Some(seen));
        }
    }

    #[test]
    fn the_tag_of_a_range_is_read_back_as_a_tag() {
        let mut git = GitSource::new("https://git.example/x");
        git.reference = Some(GitRef {
            semver: Some("1.x".into()),
            ..GitRef::default()
        });
        let seen = revision(Some("refs/tags/v1.4.0"));
        let status = status(&seen, None, Time("2026-11-24T19:00:00Z".parse().unwrap()));
        assert_eq!(
            status
                .revision
                .as_deref()
                .unwrap()
                .split_once('@')
                .unwrap()
                .0,
            "v1.4.0"
        );
        assert_eq!(known(&status, &git), Some(seen));
    }

    #[test]
    fn the_time_of_sight_moves_with_the_revision_only() {
        let at = |text: &str| Time(text.parse().unwrap());
        let first = status(&revision(None), None, at("2026-11-24T19:00:00Z"));
        let again = status(&revision(None), Some(&first), at("2026-11-24T20:00:00Z"));
        assert_eq!(again, first);
        let moved = status(
            &revision(Some("refs/tags/v1")),
            Some(&first),
            at("2026-11-24T20:00:00Z"),
        );
        assert_eq!(moved.observed_at, Some(at("2026-11-24T20:00:00Z")));
    }
}
