//! What a look at a registry is asked, what of its answer is kept, and when the next one is due. How
//! looks go on in the background is in `asking`. Knows nothing of HTTP.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{Found, Observation, Query};
use crate::asking::entries::{self, Entries, Ticket};
use crate::asking::gate::Gate;
use crate::asking::schedule;
use crate::metrics::Metrics;
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
    entries: Arc<Entries<Entry>>,
}

#[derive(Debug)]
struct Entry {
    query: Query,
    observation: Observation,
    failures: u32,
    due: Instant,
    /// Counts changes that a look under way may have missed.
    version: u64,
}

impl entries::Entry for Entry {
    fn due(&self) -> Instant {
        self.due
    }
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
            entries: Entries::new(),
        })
    }

    /// What is known; starts asking what is new.
    pub(super) fn observe(self: &Arc<Self>, key: &ImageKey, query: &Query) -> Observation {
        let before = self.entries.with(key, |entry| {
            entry.asks_the_same(query).then(|| {
                entry.update(query);
                entry.observation.clone()
            })
        });
        if let Some(Some(observation)) = before {
            return observation;
        }
        let first = if query.asked.is_some() {
            Duration::ZERO
        } else if before.is_some() {
            // It was published a moment ago, and a registry of several places may not say so
            // everywhere yet.
            schedule::after_success(key, query.interval)
        } else {
            schedule::first(key, query.interval)
        };
        let entry = Entry {
            query: query.clone(),
            observation: Observation::Pending,
            failures: 0,
            due: Instant::now() + first,
            version: 0,
        };
        let ticket = self.entries.insert(key, entry);
        tokio::spawn(Arc::clone(self).run(ticket));
        Observation::Pending
    }

    /// Stops asking for an image.
    pub(super) fn forget(&self, key: &ImageKey) {
        self.entries.forget(key);
    }

    /// Images about which something else is known. One consumer.
    pub(super) fn changes(&self) -> impl Stream<Item = ImageKey> + Send + 'static {
        self.entries.changes()
    }

    /// Looks until the entry is gone.
    async fn run(self: Arc<Self>, ticket: Ticket) {
        while self.check(&ticket).await.is_some() {}
    }

    /// Waits for the next look and makes it. `None`: the entry is gone, or another one by now.
    async fn check(&self, ticket: &Ticket) -> Option<()> {
        let Self { entries, .. } = self;
        entries.due(ticket).await?;
        let host = entries.of(ticket, |entry| host(&entry.query.repository).to_owned())?;
        let place = self.gate.enter(&host).await?;
        // Asked after the wait, which may have been long.
        let (query, version) = entries.of(ticket, |entry| (entry.query.clone(), entry.version))?;
        let result = self.look.look(&ticket.key.namespace, &query).await;
        place.was_silent(matches!(&result, Err(failure) if failure.kind == Kind::Unreachable));
        drop(place);
        self.metrics.checked(match &result {
            Ok(_) => "Found",
            Err(failure) => failure.kind.into(),
        });
        let news = entries.of(ticket, |entry| entry.record(&ticket.key, version, result))?;
        if news {
            entries.tell(&ticket.key);
        }
        Some(())
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
    use std::sync::Mutex;

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
