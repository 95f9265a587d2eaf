//! What a poll of a source is asked, what of its answer is kept, and when the next one is due. How
//! polls go on in the background is in `asking`. Knows nothing of git or HTTP.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use firn_crd::ssh::SshUrl;
use futures::Stream;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::metrics::Metrics;
use super::{Git, ImageKey, Kind, Observation, Observed, Query, Revision, SourceFailure, Target};
use crate::asking::entries::{self, Entries, Ticket};
use crate::asking::gate::Gate;
use crate::asking::schedule;

/// Reading a commit's hashes is tried again after this, doubled each time up to an hour; until
/// then polls go on at their interval, so that new commits are seen.
const REREAD: Duration = Duration::from_secs(60);

/// Between two polls that were hastened: whoever pushes all day makes no more of them than this.
const HASTE: Duration = Duration::from_secs(5);

/// Looks at a source.
pub(crate) trait Look: fmt::Debug + Send + Sync + 'static {
    /// One look. Bounded in time by whoever implements it.
    fn look<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Found, SourceFailure>>;
}

/// What a look is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Where Secrets and `ConfigMaps` are.
    pub(crate) namespace: String,
    /// The source.
    pub(crate) git: Git,
    /// `trigger.paths`.
    pub(crate) paths: Vec<String>,
    /// What was found last time.
    pub(crate) last: Option<Found>,
    /// Whether hashes that could not be read last time are tried again.
    pub(crate) reread: bool,
}

impl Ask {
    /// Last time's answer, if this commit need not be read (again).
    pub(crate) fn still_good(&self, reference: Option<&str>, commit: &str) -> Option<Found> {
        let last = self
            .last
            .as_ref()
            .filter(|last| last.revision.commit == commit)?;
        (last.incomplete.is_none() || !self.reread).then(|| {
            let mut found = last.clone();
            found.revision.reference = reference.map(str::to_owned);
            found
        })
    }
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The commit, with hashes as far as they could be read.
    pub(crate) revision: Revision,
    /// Why some could not.
    pub(crate) incomplete: Option<SourceFailure>,
}

/// All entries and what their tasks share.
#[derive(Debug)]
pub(crate) struct Poller {
    look: Arc<dyn Look>,
    gate: Gate,
    metrics: Metrics,
    entries: Arc<Entries<Entry>>,
}

#[derive(Debug)]
struct Entry {
    git: Git,
    paths: Vec<String>,
    asked: Option<String>,
    answered: Option<String>,
    observation: Observation,
    last: Option<Found>,
    failures: u32,
    rereads: u32,
    reread_at: Option<Instant>,
    due: Instant,
    /// Counts changes that a look under way may have missed.
    version: u64,
    last_success: Option<Instant>,
    hastened: Option<Instant>,
    /// A wall clock's time and when it was read: all others are counted from it.
    clock: (Timestamp, Instant),
}

impl entries::Entry for Entry {
    fn due(&self) -> Instant {
        self.due
    }
}

impl Entry {
    fn new(query: &Query, key: &ImageKey, now: Timestamp) -> Self {
        let instant = Instant::now();
        let last = query
            .known
            .as_ref()
            .filter(|known| is_complete(known, &query.paths))
            .map(|known| Found {
                revision: known.clone(),
                incomplete: None,
            });
        let first = if last.is_some() && query.asked.is_none() {
            schedule::first(key, query.git.interval)
        } else {
            Duration::ZERO
        };
        let mut entry = Self {
            git: query.git.clone(),
            paths: query.paths.clone(),
            asked: query.asked.clone(),
            answered: None,
            observation: Observation::Pending,
            last,
            failures: 0,
            rereads: 0,
            reread_at: None,
            due: instant + first,
            version: 0,
            last_success: None,
            hastened: None,
            clock: (now, instant),
        };
        entry.settle(now);
        entry
    }

    /// A commit given by its id whose hashes are known is never looked at again. Whether it was
    /// settled.
    fn settle(&mut self, at: Timestamp) -> bool {
        let (
            Target::Commit(commit),
            Some(Found {
                revision,
                incomplete: None,
            }),
        ) = (&self.git.target, &self.last)
        else {
            return false;
        };
        if revision.commit != *commit {
            return false;
        }
        if self.observation == Observation::Pending {
            self.observation = Observation::Resolved {
                revision: revision.clone(),
                at,
                incomplete: None,
            };
        }
        self.answered.clone_from(&self.asked);
        self.due = Instant::now() + self.git.interval;
        true
    }

    fn is_same_source(&self, query: &Query) -> bool {
        self.git.url == query.git.url
            && self.git.target == query.git.target
            && self.git.dir == query.git.dir
            && self.paths == query.paths
    }

    /// Takes over what may change without making it another source, and polls now if it did.
    fn update(&mut self, query: &Query, now: Timestamp) {
        let instant = Instant::now();
        self.clock = (now, instant);
        let asked = query.asked.is_some() && query.asked != self.asked;
        let other = self.git != query.git;
        if !asked && !other {
            return;
        }
        self.version += 1;
        self.git = query.git.clone();
        if asked {
            self.asked.clone_from(&query.asked);
        }
        self.failures = 0;
        self.rereads = 0;
        self.reread_at = None;
        if !self.settle(now) {
            self.due = instant;
        }
    }

    /// Makes the next poll due now, or as soon as it may be.
    fn hasten(&mut self) {
        if let Observation::Failed { failure, .. } = &self.observation
            && failure.retry_after.is_some()
        {
            return;
        }
        let now = Instant::now();
        let soonest = self.hastened.map_or(now, |last| now.max(last + HASTE));
        // A look under way may have begun before the push.
        self.version += 1;
        if soonest < self.due {
            self.due = soonest;
            self.hastened = Some(soonest);
        }
    }

    fn at(&self, instant: Instant) -> Timestamp {
        let (then, base) = self.clock;
        let ahead =
            SignedDuration::try_from(instant.saturating_duration_since(base)).unwrap_or_default();
        let behind =
            SignedDuration::try_from(base.saturating_duration_since(instant)).unwrap_or_default();
        then.checked_add(ahead)
            .and_then(|t| t.checked_sub(behind))
            .unwrap_or(then)
    }

    /// Keeps what a look found. Whether that is news.
    fn record(
        &mut self,
        key: &ImageKey,
        began: Began,
        result: Result<Found, SourceFailure>,
    ) -> bool {
        let now = Instant::now();
        let at = self.at(now);
        let before = (self.observation.clone(), self.answered.clone());
        match result {
            Ok(found) => {
                self.failures = 0;
                self.last_success = Some(now);
                self.due = now + schedule::after_success(key, self.git.interval);
                self.plan_reread(&found, now);
                let since = match &self.observation {
                    Observation::Resolved { revision, at, .. } if *revision == found.revision => {
                        *at
                    }
                    _ => at,
                };
                let Found {
                    revision,
                    incomplete,
                } = found.clone();
                self.observation = Observation::Resolved {
                    revision,
                    at: since,
                    incomplete,
                };
                self.last = Some(found);
            }
            Err(failure) => {
                self.failures = self.failures.saturating_add(1);
                self.due =
                    now + schedule::after_failure(key, self.git.interval, self.failures, &failure);
                let since = match &self.observation {
                    Observation::Failed { failure: old, at }
                        if old.kind == failure.kind && old.message == failure.message =>
                    {
                        *at
                    }
                    _ => at,
                };
                self.observation = Observation::Failed { failure, at: since };
            }
        }
        self.answered = began.asked;
        // This look may have begun too early to see what was meant.
        if self.version != began.version {
            self.due = now;
        }
        before != (self.observation.clone(), self.answered.clone())
    }

    fn plan_reread(&mut self, found: &Found, now: Instant) {
        if found.incomplete.is_none() {
            (self.rereads, self.reread_at) = (0, None);
            return;
        }
        let other = self
            .last
            .as_ref()
            .is_none_or(|last| last.revision.commit != found.revision.commit);
        if other {
            self.rereads = 0;
        }
        // Not read this time: the plan of last time stands.
        if other || self.reread_at.is_none_or(|at| at <= now) {
            let pause = REREAD
                .saturating_mul(1 << self.rereads.min(6))
                .min(Duration::from_secs(3600));
            self.rereads += 1;
            self.reread_at = Some(now + pause);
        }
    }
}

/// An entry's state when a look began.
#[derive(Debug)]
struct Began {
    version: u64,
    asked: Option<String>,
}

/// Whether every hash is there; one that is not may be unknown or absent, so it is read.
fn is_complete(revision: &Revision, paths: &[String]) -> bool {
    revision.lock_hash.is_some()
        && revision.commit_time.is_some()
        && (paths.is_empty() || revision.paths_hash.is_some())
}

impl Poller {
    /// Nothing is polled yet.
    pub(crate) fn new(look: Arc<dyn Look>) -> Arc<Self> {
        Arc::new(Self {
            look,
            gate: Gate::new(),
            metrics: Metrics::default(),
            entries: Entries::new(),
        })
    }

    /// Counters of all polls.
    pub(crate) const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What is known; starts polling what is new.
    pub(crate) fn observe(
        self: &Arc<Self>,
        key: &ImageKey,
        query: &Query,
        now: Timestamp,
    ) -> Observed {
        let known = self.entries.with(key, |entry| {
            entry.is_same_source(query).then(|| {
                entry.update(query, now);
                observed(entry)
            })
        });
        if let Some(answer) = known.flatten() {
            return answer;
        }
        let entry = Entry::new(query, key, now);
        let answer = observed(&entry);
        let ticket = self.entries.insert(key, entry);
        tokio::spawn(Arc::clone(self).run(ticket));
        answer
    }

    /// Stops polling for an image.
    pub(crate) fn forget(&self, key: &ImageKey) {
        self.entries.forget(key);
    }

    /// Polls now. Whether the image is polled at all.
    pub(crate) fn hasten(&self, key: &ImageKey) -> bool {
        self.entries.with(key, Entry::hasten).is_some()
    }

    /// Name of the Secret of those who may hasten.
    pub(crate) fn webhook(&self, key: &ImageKey) -> Option<String> {
        let webhook = self.entries.with(key, |entry| entry.git.webhook.clone());
        webhook.flatten()
    }

    /// Images whose observation changed. One consumer.
    pub(crate) fn changes(&self) -> impl Stream<Item = ImageKey> + Send + 'static {
        self.entries.changes()
    }

    /// Age of the success that lies back furthest; 0 where nothing was polled with success.
    pub(crate) fn oldest_success(&self) -> Duration {
        let oldest = self
            .entries
            .all(|entries| entries.filter_map(|entry| entry.last_success).min());
        oldest.map_or(Duration::ZERO, |instant| instant.elapsed())
    }

    /// Polls until the entry is gone.
    async fn run(self: Arc<Self>, ticket: Ticket) {
        while self.poll(&ticket).await.is_some() {}
    }

    /// Waits for the next poll and makes it. `None`: the entry is gone, or another one by now.
    async fn poll(&self, ticket: &Ticket) -> Option<()> {
        let Self { entries, .. } = self;
        entries.due(ticket).await?;
        let settled = entries.of(ticket, |entry| {
            let at = entry.at(Instant::now());
            entry.settle(at)
        })?;
        if settled {
            return Some(());
        }
        let host = entries.of(ticket, |entry| host(&entry.git.url))?;
        let place = self.gate.enter(&host).await?;
        // Asked after the wait, which may have been long.
        let now = Instant::now();
        let (ask, began) = entries.of(ticket, |entry| {
            let ask = Ask {
                namespace: ticket.key.namespace.clone(),
                git: entry.git.clone(),
                paths: entry.paths.clone(),
                last: entry.last.clone(),
                reread: entry.reread_at.is_none_or(|at| at <= now),
            };
            let began = Began {
                version: entry.version,
                asked: entry.asked.clone(),
            };
            (ask, began)
        })?;
        let result = self.look.look(&ask).await;
        place.was_silent(matches!(&result, Err(failure) if failure.kind == Kind::Unreachable));
        drop(place);
        self.metrics.polled(&result);
        log(&ticket.key, &result);
        let news = entries.of(ticket, |entry| entry.record(&ticket.key, began, result))?;
        if news {
            entries.tell(&ticket.key);
        }
        Some(())
    }
}

fn observed(entry: &Entry) -> Observed {
    Observed {
        observation: entry.observation.clone(),
        answered: entry.answered.clone(),
        next_poll: entry.at(entry.due),
    }
}

/// Key of the gate: hosts differ by port too. What is no URL fails at once wherever it waits.
fn host(url: &str) -> String {
    if SshUrl::is(url) {
        return SshUrl::parse(url).map_or_else(|_| String::new(), |url| url.endpoint());
    }
    reqwest::Url::parse(url)
        .ok()
        .map(|url| url.origin().ascii_serialization())
        .unwrap_or_default()
}

fn log(key: &ImageKey, result: &Result<Found, SourceFailure>) {
    let ImageKey {
        namespace,
        name: image,
    } = key;
    match result {
        Ok(found) => {
            let revision = &found.revision.commit;
            tracing::debug!(%namespace, %image, %revision, incomplete = ?found.incomplete.as_ref().map(|f| &f.message), "polled");
        }
        Err(failure) => {
            let kind: &'static str = failure.kind.into();
            tracing::debug!(%namespace, %image, kind, message = %failure.message, "poll failed");
        }
    }
}

#[cfg(test)]
#[path = "poller_tests.rs"]
mod tests;
