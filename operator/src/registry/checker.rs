//! Asks registries in the background: one task per image, which sleeps until its next check is due,
//! waits for a place at the gate, looks, and keeps what it found. Knows nothing of HTTP.
//!
//! Tasks end when their image is forgotten or the question becomes another: each holds the
//! generation it was started for. Memory is one entry and one task per image that is verified.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Found, Observation, Query};
use crate::metrics::Metrics;
use crate::source::gate::Gate;
use crate::source::schedule;
use crate::source::{ImageKey, Kind, SourceFailure};

/// Looks at a registry.
pub(super) trait Look: fmt::Debug + Send + Sync + 'static {
    /// One look. Bounded in time by whoever implements it.
    fn look<'a>(
        &'a self,
        namespace: &'a str,
        query: &'a Query,
    ) -> BoxFuture<'a, Result<Found, SourceFailure>>;
}

/// All entries and what their tasks share.
#[derive(Debug)]
pub(super) struct Checker {
    look: Arc<dyn Look>,
    gate: Gate,
    metrics: Metrics,
    state: Mutex<State>,
    /// One permit at most: "something changed since you looked".
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<ImageKey, Entry>,
    generation: u64,
    /// Not told yet; a set, so that who is slow to listen misses nothing and costs nothing.
    changes: BTreeSet<ImageKey>,
}

#[derive(Debug)]
struct Entry {
    generation: u64,
    query: Query,
    observation: Observation,
    failures: u32,
    due: Instant,
    /// Counts changes that a look under way may have missed.
    version: u64,
    wake: Arc<Notify>,
}

impl Entry {
    fn asks_the_same(&self, query: &Query) -> bool {
        self.query.repository == query.repository
            && self.query.digest == query.digest
            && self.query.tags == query.tags
            && self.query.since == query.since
    }

    /// Takes over what may change without making it another question, and asks now if it did.
    fn update(&mut self, query: &Query) {
        let other = self.query.access != query.access || self.query.interval != query.interval;
        let asked = query.asked.is_some() && query.asked != self.query.asked;
        if other || asked {
            self.query = query.clone();
            self.version += 1;
            self.failures = 0;
            self.due = Instant::now();
            self.wake.notify_one();
        }
    }

    /// Keeps what a look found. Whether that is news.
    fn record(
        &mut self,
        key: &ImageKey,
        version: u64,
        result: Result<Found, SourceFailure>,
    ) -> bool {
        let interval = self.query.interval;
        let (pause, now) = match result {
            Ok(found) => {
                self.failures = 0;
                let pause = schedule::after_success(key, interval);
                (pause, Observation::Found(found))
            }
            Err(failure) => {
                self.failures = self.failures.saturating_add(1);
                let pause = schedule::after_failure(key, interval, self.failures, &failure);
                (pause, Observation::Unknown(failure))
            }
        };
        // This look may have begun too early to see what was meant.
        let pause = if self.version == version {
            pause
        } else {
            Duration::ZERO
        };
        self.due = Instant::now() + pause;
        // How long a server wants us to wait is no news.
        let news = match (&self.observation, &now) {
            (Observation::Unknown(before), Observation::Unknown(now)) => {
                (before.kind, &before.message) != (now.kind, &now.message)
            }
            (before, now) => before != now,
        };
        self.observation = now;
        news
    }
}

impl Checker {
    /// Nothing is asked yet.
    pub(super) fn new(look: Arc<dyn Look>, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            look,
            gate: Gate::new(),
            metrics,
            state: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// What is known; starts asking what is new.
    pub(super) fn observe(self: &Arc<Self>, key: &ImageKey, query: &Query) -> Observation {
        let mut state = self.lock();
        let state = &mut *state;
        let before = state.entries.get_mut(key);
        let known = before.is_some();
        if let Some(entry) = before.filter(|entry| entry.asks_the_same(query)) {
            entry.update(query);
            return entry.observation.clone();
        }
        let first = if query.asked.is_some() {
            Duration::ZERO
        } else if known {
            // It was published a moment ago, and a registry of several places may not say so
            // everywhere yet.
            schedule::after_success(key, query.interval)
        } else {
            schedule::first(key, query.interval)
        };
        state.generation += 1;
        let generation = state.generation;
        let entry = Entry {
            generation,
            query: query.clone(),
            observation: Observation::Pending,
            failures: 0,
            due: Instant::now() + first,
            version: 0,
            wake: Arc::new(Notify::new()),
        };
        if let Some(old) = state.entries.insert(key.clone(), entry) {
            old.wake.notify_one();
        }
        tokio::spawn(Arc::clone(self).run(key.clone(), generation));
        Observation::Pending
    }

    /// Stops asking for an image.
    pub(super) fn forget(&self, key: &ImageKey) {
        let mut state = self.lock();
        state.changes.remove(key);
        if let Some(entry) = state.entries.remove(key) {
            entry.wake.notify_one();
        }
    }

    /// Images about which something else is known. One consumer.
    pub(super) fn changes(self: &Arc<Self>) -> impl Stream<Item = ImageKey> + Send + 'static {
        futures::stream::unfold(Arc::clone(self), |checker| async move {
            loop {
                let next = checker.lock().changes.pop_first();
                if let Some(key) = next {
                    return Some((key, checker));
                }
                checker.changed.notified().await;
            }
        })
    }

    async fn run(self: Arc<Self>, key: ImageKey, generation: u64) {
        loop {
            let Some((due, wake, host)) = self.of(&key, generation, |entry| {
                let host = host(&entry.query.repository).to_owned();
                (entry.due, Arc::clone(&entry.wake), host)
            }) else {
                return;
            };
            if due > Instant::now() {
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = wake.notified() => {}
                }
                continue;
            }
            let Some(place) = self.gate.enter(&host).await else {
                return;
            };
            // Asked after the wait, which may have been long.
            let Some((query, version)) = self.of(&key, generation, |entry| {
                (entry.query.clone(), entry.version)
            }) else {
                return;
            };
            let result = self.look.look(&key.namespace, &query).await;
            place.was_silent(matches!(&result, Err(failure) if failure.kind == Kind::Unreachable));
            drop(place);
            self.metrics.checked(
                result
                    .as_ref()
                    .map_or_else(|failure| failure.kind.into(), |_| "Found"),
            );
            let news = self.of(&key, generation, |entry| {
                entry.record(&key, version, result)
            });
            if news == Some(true) {
                self.lock().changes.insert(key.clone());
                self.changed.notify_one();
            }
        }
    }

    /// The entry, if it is still the one its task was started for.
    fn of<T>(
        &self,
        key: &ImageKey,
        generation: u64,
        use_it: impl FnOnce(&mut Entry) -> T,
    ) -> Option<T> {
        self.lock()
            .entries
            .get_mut(key)
            .filter(|entry| entry.generation == generation)
            .map(use_it)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Key of the gate.
fn host(repository: &str) -> &str {
    repository
        .split_once('/')
        .map_or(repository, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::metrics;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Answers as the test says, and keeps when it was asked what.
    #[derive(Debug)]
    struct World {
        start: Instant,
        looks: Mutex<Vec<(Duration, Query)>>,
        answer: Mutex<Result<Found, SourceFailure>>,
    }

    impl Look for World {
        fn look<'a>(
            &'a self,
            _: &'a str,
            query: &'a Query,
        ) -> BoxFuture<'a, Result<Found, SourceFailure>> {
            Box::pin(async move {
                let at = self.start.elapsed();
                self.looks.lock().unwrap().push((at, query.clone()));
                self.answer.lock().unwrap().clone()
            })
        }
    }

    impl World {
        fn looks(&self) -> Vec<Duration> {
            self.looks
                .lock()
                .unwrap()
                .iter()
                .map(|look| look.0)
                .collect()
        }

        fn answers(&self, answer: Result<Found, SourceFailure>) {
            *self.answer.lock().unwrap() = answer;
        }
    }

    fn world() -> (Arc<World>, Arc<Checker>) {
        let world = Arc::new(World {
            start: Instant::now(),
            looks: Mutex::default(),
            answer: Mutex::new(Ok(there())),
        });
        let metrics = Metrics::register(&mut metrics::registry());
        let checker = Checker::new(world.clone(), metrics);
        (world, checker)
    }

    fn there() -> Found {
        Found {
            digest: true,
            tags: [("latest".to_owned(), Some("sha256:aa".to_owned()))].into(),
        }
    }

    fn key() -> ImageKey {
        ImageKey {
            namespace: "shop".into(),
            name: "web".into(),
        }
    }

    fn query() -> Query {
        Query {
            repository: "registry.example/web".into(),
            digest: "sha256:aa".into(),
            tags: vec!["latest".into()],
            since: 1,
            access: super::super::Access::default(),
            interval: HOUR,
            asked: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_asked_soon_after_a_start_and_then_once_an_interval() {
        let (world, checker) = world();
        assert_eq!(checker.observe(&key(), &query()), Observation::Pending);
        tokio::time::sleep(Duration::from_secs(31)).await;
        assert_eq!(world.looks().len(), 1);
        let now = checker.observe(&key(), &query());
        assert_eq!(now, Observation::Found(there()));
        tokio::time::sleep(HOUR * 10).await;
        let count = world.looks().len();
        assert!((9..=12).contains(&count), "{count}");
        // Ten equal answers are one change.
        let mut changes = Box::pin(checker.changes());
        assert_eq!(changes.next().await, Some(key()));
        let more = tokio::time::timeout(HOUR * 3, changes.next()).await;
        assert!(more.is_err(), "{more:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_published_since_is_another_question_and_not_asked_at_once() {
        let (world, checker) = world();
        checker.observe(&key(), &query());
        tokio::time::sleep(Duration::from_secs(31)).await;
        let since = Query {
            since: 2,
            ..query()
        };
        assert_eq!(checker.observe(&key(), &since), Observation::Pending);
        tokio::time::sleep(HOUR / 2).await;
        assert_eq!(world.looks().len(), 1);
        tokio::time::sleep(HOUR).await;
        assert_eq!(world.looks().len(), 2);
        assert_eq!(world.looks.lock().unwrap()[1].1.since, 2);
        checker.forget(&key());
        tokio::time::sleep(HOUR * 5).await;
        assert_eq!(world.looks().len(), 2, "nobody wants to know");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_or_another_login_asks_now_and_a_dead_registry_ever_less_often() {
        let (world, checker) = world();
        let short = Query {
            interval: Duration::from_secs(300),
            ..query()
        };
        checker.observe(&key(), &short);
        tokio::time::sleep(Duration::from_secs(31)).await;
        world.answers(Err(SourceFailure::new(Kind::Unreachable, "no answer")));
        let asked = Query {
            asked: Some("look 1".into()),
            ..short.clone()
        };
        checker.observe(&key(), &asked);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.looks().len(), 2);
        assert!(matches!(
            checker.observe(&key(), &asked),
            Observation::Unknown(_)
        ));
        tokio::time::sleep(HOUR * 6).await;
        let failed = world.looks().len() - 2;
        assert!((5..12).contains(&failed), "{failed}");
        let mut login = asked;
        login.access.secret = Some("login".into());
        let before = world.looks().len();
        checker.observe(&key(), &login);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.looks().len(), before + 1);
    }
}
