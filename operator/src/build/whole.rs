//! From how far each Job is to how far the build is. Pure.
//!
//! ```text
//! linux/amd64 ──┐ all did their part      the index, unless it is there
//! linux/arm64 ──┴──────────────────────▶ publish ──▶ published
//!       │ one failed
//!       └─▶ those that run may end: what they push need not be made again; the others are given up
//! ```

use firn_crd::exit::Reason;
use firn_crd::output::PlatformName;
use firn_crd::run::PlatformManifest;

use super::progress::{Progress, progress};
use super::report::{Failure, Success};
use super::{Observed, Part, order};

/// How far a build and each of its Jobs are.
#[derive(Debug, Clone, PartialEq)]
pub struct Whole {
    /// The build.
    pub progress: Progress,
    /// Its Jobs, as in [`Observed::jobs`].
    pub each: Vec<Progress>,
    /// What the index is made of, once all platforms did their part.
    pub ready: Vec<PlatformManifest>,
    /// The Job that a failure is about, by its place in `each`.
    pub failed: Option<usize>,
}

impl Whole {
    /// The build fails before anything of it is made.
    pub fn fail(&mut self, place: usize, failure: Failure) {
        for progress in &mut self.each {
            if *progress == Progress::Unmade {
                *progress = Progress::Failed(failure.clone());
            }
        }
        self.failed = Some(place);
        self.progress = Progress::Failed(failure);
    }

    /// The failure of the Job that failed first, while others still run.
    pub fn failure(&self) -> Option<&Failure> {
        match self.each.get(self.failed?)? {
            Progress::Failed(failure) => Some(failure),
            _ => None,
        }
    }
}

/// How far the build and each of its Jobs are.
pub fn whole(observed: &Observed) -> Whole {
    let mut each: Vec<Progress> = observed
        .jobs
        .iter()
        .map(|seen| progress(observed, seen))
        .collect();
    if !order::has_index(&observed.build) {
        let progress = each.first().cloned().unwrap_or(Progress::Unmade);
        let failed = matches!(progress, Progress::Failed(_)).then_some(0);
        return Whole {
            progress,
            each,
            ready: Vec::new(),
            failed,
        };
    }
    let ready = ready(observed, &each);
    let publish = observed
        .jobs
        .iter()
        .position(|seen| seen.part == Part::Publish);
    let last = publish.and_then(|place| each.get(place).cloned());
    let (progress, failed) = if let (Some(ready), Some(last)) = (&ready, last) {
        finish(observed, &each, ready, last, publish)
    } else {
        if let Some(last) = publish.and_then(|place| each.get_mut(place)) {
            // There may be one all the same, if status was lost.
            if *last != Progress::Ending {
                *last = Progress::Later;
            }
        }
        platforms(observed, &mut each)
    };
    if let (Progress::Succeeded(Success::NotChanged { .. }), Some(place)) = (&progress, publish)
        && let Some(last) = each.get_mut(place)
    {
        *last = Progress::Later;
    }
    let ready = ready.unwrap_or_default();
    Whole {
        progress,
        each,
        ready,
        failed,
    }
}

/// What all platforms left; `None` while one did not do its part.
fn ready(observed: &Observed, each: &[Progress]) -> Option<Vec<PlatformManifest>> {
    let mut ready = Vec::new();
    for (seen, progress) in observed.jobs.iter().zip(each) {
        let Part::Platform(platform) = seen.part else {
            continue;
        };
        let Progress::Succeeded(success) = progress else {
            return None;
        };
        ready.push(manifest(observed, platform, success)?);
    }
    ready.sort_by(|a, b| a.platform.cmp(&b.platform));
    Some(ready)
}

fn manifest(
    observed: &Observed,
    platform: PlatformName,
    success: &Success,
) -> Option<PlatformManifest> {
    let (digest, temporary_tag) = match success {
        Success::Pushed(pushed) => {
            let tag = order::temporary_tag(&observed.build, platform);
            (pushed.digest.clone(), Some(tag))
        }
        // A published index keeps it, or the tag that the build before gave it, which is the same.
        Success::NotChanged { digest, .. } => {
            let tag = observed.previous.is_some();
            let tag = tag.then(|| order::temporary_tag(&observed.build, platform));
            (digest.clone()?, tag)
        }
        Success::Retagged { .. } | Success::Indexed { .. } => return None,
    };
    Some(PlatformManifest {
        platform: platform.as_str().to_owned(),
        digest,
        temporary_tag,
    })
}

/// All platforms did their part.
fn finish(
    observed: &Observed,
    each: &[Progress],
    ready: &[PlatformManifest],
    last: Progress,
    publish: Option<usize>,
) -> (Progress, Option<usize>) {
    let unchanged = each.iter().find_map(|progress| match progress {
        Progress::Succeeded(Success::NotChanged { drv, .. }) => Some(drv),
        _ => None,
    });
    let pushed = each
        .iter()
        .any(|progress| matches!(progress, Progress::Succeeded(Success::Pushed(_))));
    match (unchanged, last) {
        // Whoever said so had seen the index as well.
        (Some(drv), _) if !pushed && order::is_published(observed.known(), ready) => {
            let drv = drv.clone();
            let success = Success::NotChanged { drv, digest: None };
            (Progress::Succeeded(success), None)
        }
        (_, Progress::Failed(failure)) => (Progress::Failed(failure), publish),
        // The words of a Job that makes no index say nothing about one.
        (_, Progress::Succeeded(success @ Success::Indexed { .. })) => {
            (Progress::Succeeded(success), None)
        }
        (_, Progress::Succeeded(_)) => {
            let failure = Failure::new(
                Reason::InternalError,
                "publish ended well and made no index: operator and builder image may be of different versions",
            );
            (Progress::Failed(failure), publish)
        }
        (_, Progress::Running(words) | Progress::Queued(words)) => {
            (Progress::Running(format!("index: {words}")), None)
        }
        (_, Progress::Unmade | Progress::Next | Progress::Pending(None)) => (
            Progress::Running("index: waits for its pod".to_owned()),
            None,
        ),
        (_, last) => (last, None),
    }
}

/// Not all platforms did their part. Those that did not begin are given up when one has failed.
fn platforms(observed: &Observed, each: &mut [Progress]) -> (Progress, Option<usize>) {
    let runs = |progress: &Progress| matches!(progress, Progress::Running(_) | Progress::Ending);
    if observed.is_unwanted() {
        return if each.contains(&Progress::Ending) {
            (Progress::Ending, None)
        } else {
            (Progress::Cancelled, None)
        };
    }
    let failed = first_failed(observed, each);
    if let Some((place, failure)) = failed {
        if let Some(progress) = each.get_mut(place) {
            *progress = Progress::Failed(failure.clone());
        }
        let any_runs = each.iter().any(runs);
        for progress in each.iter_mut() {
            let waits = match progress {
                Progress::Pending(_) => !any_runs,
                Progress::Unmade | Progress::Refused(_) | Progress::Queued(_) | Progress::Next => {
                    true
                }
                _ => false,
            };
            if waits {
                *progress = Progress::Cancelled;
            }
        }
        return if any_runs {
            (Progress::Running(words(observed, each)), Some(place))
        } else {
            (Progress::Failed(failure), Some(place))
        };
    }
    let named = |place: usize, failure: &Failure| name(observed, place, failure);
    let waits = each
        .iter()
        .enumerate()
        .find_map(|(place, progress)| match progress {
            Progress::Refused(failure) => Some(Progress::Refused(named(place, failure))),
            Progress::Pending(Some(failure)) => {
                Some(Progress::Pending(Some(named(place, failure))))
            }
            _ => None,
        });
    let queued = |progress: &Progress| {
        matches!(
            progress,
            Progress::Unmade | Progress::Queued(_) | Progress::Later
        )
    };
    let progress = match waits {
        Some(waits) => waits,
        None if each.contains(&Progress::Unmade) && each.iter().all(queued) => Progress::Unmade,
        None if each.iter().all(queued) => Progress::Queued(words(observed, each)),
        None => Progress::Running(words(observed, each)),
    };
    (progress, None)
}

/// The failure that status has already, else the first in the order of platforms; with its
/// platform's name.
fn first_failed(observed: &Observed, each: &[Progress]) -> Option<(usize, Failure)> {
    let status = observed.build.status.as_ref();
    let told = status.and_then(|status| status.failure.as_ref()?.platform.as_deref());
    let failures = || {
        each.iter()
            .enumerate()
            .filter_map(|(place, progress)| match progress {
                Progress::Failed(failure) => Some((place, failure)),
                _ => None,
            })
    };
    let platform = |place: usize| {
        observed
            .jobs
            .get(place)
            .and_then(|seen| seen.part.platform())
    };
    let (place, failure) = failures()
        .find(|(place, _)| told.is_some() && platform(*place) == told)
        .or_else(|| failures().next())?;
    Some((place, name(observed, place, failure)))
}

fn name(observed: &Observed, place: usize, failure: &Failure) -> Failure {
    let platform = observed
        .jobs
        .get(place)
        .and_then(|seen| seen.part.platform());
    let prefix = platform.map_or_else(String::new, |platform| format!("{platform}: "));
    if failure.message.starts_with(&prefix) {
        return failure.clone();
    }
    Failure {
        message: format!("{prefix}{}", failure.message),
        ..failure.clone()
    }
}

/// Each platform in words.
fn words(observed: &Observed, each: &[Progress]) -> String {
    let said = observed
        .jobs
        .iter()
        .zip(each)
        .filter_map(|(seen, progress)| {
            let platform = seen.part.platform()?;
            let words = match progress {
                Progress::Unmade => "its Job is made".to_owned(),
                Progress::Queued(words) | Progress::Running(words) => words.clone(),
                Progress::Next | Progress::Pending(_) | Progress::Refused(_) => {
                    "waits for its pod".to_owned()
                }
                Progress::Ending => "its pod is being ended".to_owned(),
                Progress::Succeeded(_) => "done".to_owned(),
                Progress::Failed(failure) => format!("failed ({})", failure.reason),
                Progress::Cancelled => "given up".to_owned(),
                Progress::Later => return None,
            };
            Some(format!("{platform}: {words}"))
        });
    said.collect::<Vec<_>>().join("; ")
}
