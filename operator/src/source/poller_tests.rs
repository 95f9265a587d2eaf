//! The poller with a made-up world and virtual time: hours pass in milliseconds.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use futures::StreamExt;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Answers looks as the test says and keeps when they were.
#[derive(Debug)]
struct World {
    start: Instant,
    looks: Mutex<Vec<(Duration, Ask)>>,
    answers: Mutex<VecDeque<Result<Found, SourceFailure>>>,
    /// How long a host takes to answer.
    slow: Mutex<HashMap<String, Duration>>,
    busy: Mutex<(usize, usize)>,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            looks: Mutex::default(),
            answers: Mutex::default(),
            slow: Mutex::default(),
            busy: Mutex::default(),
        })
    }

    fn answers(&self, answers: impl IntoIterator<Item = Result<Found, SourceFailure>>) {
        self.answers.lock().unwrap().extend(answers);
    }

    fn looks(&self) -> Vec<Duration> {
        self.looks
            .lock()
            .unwrap()
            .iter()
            .map(|(at, _)| *at)
            .collect()
    }

    fn last_ask(&self) -> Ask {
        self.looks.lock().unwrap().last().unwrap().1.clone()
    }
}

impl Look for World {
    fn look<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Found, SourceFailure>> {
        Box::pin(async move {
            self.looks
                .lock()
                .unwrap()
                .push((self.start.elapsed(), ask.clone()));
            {
                let mut busy = self.busy.lock().unwrap();
                busy.0 += 1;
                busy.1 = busy.1.max(busy.0);
            }
            let slow = self.slow.lock().unwrap().get(&host(&ask.git.url)).copied();
            tokio::time::sleep(slow.unwrap_or(Duration::from_millis(100))).await;
            self.busy.lock().unwrap().0 -= 1;
            if slow.is_some() {
                return Err(failure(Kind::Unreachable));
            }
            self.answers
                .lock()
                .unwrap()
                .pop_front()
                .unwrap_or_else(|| Ok(found("c0")))
        })
    }
}

fn failure(kind: Kind) -> SourceFailure {
    SourceFailure::new(kind, "made up")
}

fn found(commit: &str) -> Found {
    Found {
        revision: revision(commit),
        incomplete: None,
    }
}

fn revision(commit: &str) -> Revision {
    Revision {
        reference: Some("refs/heads/main".into()),
        commit: commit.into(),
        lock_hash: Some("lock".into()),
        paths_hash: None,
        commit_time: Some(Timestamp::UNIX_EPOCH),
    }
}

fn key(name: &str) -> ImageKey {
    ImageKey {
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn query() -> Query {
    Query {
        git: Git {
            url: "https://git.example.com/shop".into(),
            target: Target::Branch("main".into()),
            dir: ".".into(),
            secret: None,
            ca: None,
            interval: 5 * MINUTE,
            webhook: None,
            timeout: MINUTE,
        },
        paths: vec![],
        known: None,
        asked: None,
    }
}

const T0: Timestamp = Timestamp::UNIX_EPOCH;

fn commit(observed: &Observed) -> &str {
    match &observed.observation {
        Observation::Resolved { revision, .. } => &revision.commit,
        Observation::Pending => "pending",
        Observation::Failed { failure, .. } => failure.kind.into(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_image_is_polled_at_once_and_then_at_its_interval() {
    let world = World::new();
    let poller = Poller::new(Arc::clone(&world) as Arc<dyn Look>);
    assert_eq!(
        commit(&poller.observe(&key("web"), &query(), T0)),
        "pending"
    );
    tokio::time::sleep(16 * MINUTE).await;
    let looks = world.looks();
    assert_eq!(looks.len(), 4, "{looks:?}");
    assert!(looks[0] < Duration::from_secs(1));
    let pause = looks[2].checked_sub(looks[1]).unwrap();
    assert!(pause > MINUTE * 4 && pause < MINUTE * 6, "{pause:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_once_and_a_repetition_is_not() {
    let world = World::new();
    world.answers([Ok(found("c0")), Ok(found("c0")), Ok(found("c1"))]);
    let poller = Poller::new(Arc::clone(&world) as Arc<dyn Look>);
    poller.observe(&key("web"), &query(), T0);
    let told = Arc::new(Mutex::new(Vec::new()));
    let (changes, list) = (poller.changes(), Arc::clone(&told));
    let listening = tokio::spawn(changes.for_each(move |key| {
        list.lock().unwrap().push(key);
        async {}
    }));
    tokio::time::sleep(8 * MINUTE).await;
    assert_eq!((world.looks().len(), told.lock().unwrap().len()), (2, 1));
    let before = poller.observe(&key("web"), &query(), T0);
    tokio::time::sleep(5 * MINUTE).await;
    assert_eq!(*told.lock().unwrap(), [key("web"), key("web")]);
    let after = poller.observe(&key("web"), &query(), T0);
    assert_eq!((commit(&before), commit(&after)), ("c0", "c1"));
    listening.abort();
}

#[tokio::test(start_paused = true)]
async fn the_time_of_an_observation_stays_while_it_does() {
    let world = World::new();
    let poller = Poller::new(Arc::clone(&world) as Arc<dyn Look>);
    poller.observe(&key("web"), &query(), T0);
    tokio::time::sleep(MINUTE).await;
    let first = poller.observe(&key("web"), &query(), Timestamp::from_second(60).unwrap());
    tokio::time::sleep(9 * MINUTE).await;
    let later = poller.observe(&key("web"), &query(), Timestamp::from_second(600).unwrap());
    assert_eq!(world.looks().len(), 2);
    assert_eq!(first.observation, later.observation);
    assert!(matches!(first.observation, Observation::Resolved { at, .. } if at.as_second() == 0));
}

#[tokio::test(start_paused = true)]
async fn failures_are_asked_about_ever_more_seldom_until_one_succeeds() {
    let world = World::new();
    world.answers(vec![Err(failure(Kind::AuthFailed)); 4]);
    let poller = Poller::new(Arc::clone(&world) as Arc<dyn Look>);
    poller.observe(&key("web"), &query(), T0);
    tokio::time::sleep(90 * MINUTE).await;
    let looks = world.looks();
    let pauses: Vec<_> = looks
        .windows(2)
        .map(|w| w[1].checked_sub(w[0]).unwrap().as_secs() / 60)
        .collect();
    assert_eq!(
        pauses[..5].iter().map(|p| (p + 2) / 5).collect::<Vec<_>>(),
        [1, 2, 4, 8, 1],
        "{pauses:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_asks_is_answered_at_once_even_after_failures() {
    let world = World::new();
    world.answers(vec![Err(failure(Kind::RevisionNotFound)); 5]);
    let poller = Poller::new(Arc::clone(&world) as Arc<dyn Look>);
    poller.observe(&key("web"), &query(), T0);
    tokio::time::sleep(3 * 60 * MINUTE).await;
    let polls = world.looks().len();
    let asking = Query {
        asked: Some("now".into()),
        ..query()
    };
    let observed = poller.observe(&key("web"), &asking, T0);
    assert_eq!(observed.answered, None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.looks().len(), polls + 1);
    let observed = poller.observe(&key("web"), &asking, T0);
    assert_eq!(observed.answered.as_deref(), Some("now"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.looks().len(), polls + 1, "one question is one poll");
}

#[tokio::test(start_paused = true)]
async fn a_question_during_a_poll_gets_a_poll_of_its_own() {
    let world = World::new();
    let poller = Poller::new(Arc::clone(&world) as Arc<dyn Look>);
    poller.observe(&key("web"), &query(), T0);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asking = Query {
        asked: Some("now".into()),
        ..query()
    };
    poller.observe(&key("web"), &asking, T0);
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert_eq!(poller.observe(&key("web"), &asking, T0).answered, None);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.looks().len(), 2);
    assert_eq!(
        poller.observe(&key("web"), &asking, T0).answered.as_deref(),
        Some("now")
    );
}

#[tokio::test(start_paused = true)]
async fn another_source_begins_anew_and_new_credentials_only_ask_again() {
    let world = World::new();
    let poller = Poller::new(Arc::clone(&world) as Arc<dyn Look>);
    poller.observe(&key("web"), &query(), T0);
    tokio::time::sleep(MINUTE).await;
    let mut other = query();
    other.git.secret = Some("deploy".into());
    assert_eq!(commit(&poller.observe(&key("web"), &other, T0)), "c0");
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.looks().len(), 2);
    assert_eq!(world.last_ask().git.secret.as_deref(), Some("deploy"));
    other.git.target = Target::Tag("v1".into());
    assert_eq!(commit(&poller.observe(&key("web"), &other, T0)), "pending");
    tokio::time::sleep(MINUTE).await;
    assert_eq!((world.looks().len(), world.last_ask().last), (3, None));
}

#[tokio::test(start_paused = true)]
async fn a_known_commit_is_told_to_the_look_and_a_pinned_one_needs_none() {
    let world = World::new();
    let poller = Poller::new(Arc::clone(&world) as Arc<dyn Look>);
    let mut known = Query {
        known: Some(revision("c0")),
        ..query()
    };
    poller.observe(&key("web"), &known, T0);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.last_ask().last, Some(found("c0")));
    known.git.target = Target::Commit("c0".into());
    assert_eq!(commit(&poller.observe(&key("pinned"), &known, T0)), "c0");
    tokio::time::sleep(60 * MINUTE).await;
    assert!(
        world
            .looks
            .lock()
            .unwrap()
            .iter()
            .all(|(_, ask)| ask.git.target != known.git.target)
    );
    let asking = Query {
        asked: Some("now".into()),
        ..known
    };
    assert_eq!(
        poller
            .observe(&key("pinned"), &asking, T0)
            .answered
            .as_deref(),
        Some("now")
    );
}

#[tokio::test(start_paused = true)]
async fn hashes_that_cannot_be_read_do_not_slow_polls_down() {
    let world = World::new();
    let unread = || {
        Ok(Found {
            incomplete: Some(failure(Kind::Invalid)),
            ..found("c0")
        })
    };
    world.answers(std::iter::repeat_with(unread).take(1000));
    let poller = Poller::new(Arc::clone(&world) as Arc<dyn Look>);
    poller.observe(&key("web"), &query(), T0);
    tokio::time::sleep(12 * 60 * MINUTE).await;
    let looks = world.looks.lock().unwrap();
    let rereads = looks.iter().filter(|(_, ask)| ask.reread).count();
    assert!(looks.len() > 120, "{} polls", looks.len());
    assert!(
        (10..25).contains(&rereads),
        "{rereads} of {} polls read again",
        looks.len()
    );
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_image_is_not_polled_and_its_task_ends() {
    let world = World::new();
    let poller = Poller::new(Arc::clone(&world) as Arc<dyn Look>);
    poller.observe(&key("web"), &query(), T0);
    tokio::time::sleep(MINUTE).await;
    poller.forget(&key("web"));
    tokio::time::sleep(60 * MINUTE).await;
    assert_eq!(world.looks().len(), 1);
    assert_eq!(
        Arc::strong_count(&poller),
        1,
        "a task still holds the poller"
    );
}

#[tokio::test(start_paused = true)]
async fn dead_hosts_block_nobody() {
    let world = World::new();
    let poller = Poller::new(Arc::clone(&world) as Arc<dyn Look>);
    for host in 0..3 {
        let name = format!("https://dead-{host}.example.com");
        world.slow.lock().unwrap().insert(name.clone(), MINUTE);
        for image in 0..40 {
            let mut query = query();
            query.git.url = format!("{name}/{image}");
            poller.observe(&key(&format!("dead-{host}-{image}")), &query, T0);
        }
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    for image in 0..40 {
        poller.observe(&key(&format!("live-{image}")), &query(), T0);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let resolved = (0..40)
        .filter(|i| commit(&poller.observe(&key(&format!("live-{i}")), &query(), T0)) == "c0");
    assert_eq!(resolved.count(), 40);
    assert!(world.busy.lock().unwrap().1 <= 16);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_did_not_answer_gets_one_place() {
    let world = World::new();
    let poller = Poller::new(Arc::clone(&world) as Arc<dyn Look>);
    world
        .slow
        .lock()
        .unwrap()
        .insert("https://git.example.com".into(), MINUTE);
    for image in 0..40 {
        poller.observe(&key(&image.to_string()), &query(), T0);
    }
    tokio::time::sleep(10 * MINUTE).await;
    // At first four; those waiting at the gate already go on four at a time, later ones singly.
    world.busy.lock().unwrap().1 = 0;
    tokio::time::sleep(60 * MINUTE).await;
    assert_eq!(world.busy.lock().unwrap().1, 1);
}

#[tokio::test(start_paused = true)]
async fn who_knows_of_a_push_is_heard_at_once_and_not_all_the_time() {
    let world = World::new();
    let poller = Poller::new(world.clone());
    poller.observe(&key("web"), &query(), Timestamp::UNIX_EPOCH);
    tokio::time::sleep(MINUTE).await;
    let before = world.looks().len();
    for _ in 0..10 {
        assert!(poller.hasten(&key("web")));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let hastened = world.looks().split_off(before);
    let pauses: Vec<_> = hastened.iter().map(Duration::as_secs).collect();
    assert_eq!(pauses, [60, 65]);
    assert!(!poller.hasten(&key("nobody")));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asked_us_to_wait_is_not_hastened() {
    let world = World::new();
    let mut limited = failure(Kind::RateLimited);
    limited.retry_after = Some(MINUTE * 10);
    world.answers([Err(limited)]);
    let poller = Poller::new(world.clone());
    poller.observe(&key("web"), &query(), Timestamp::UNIX_EPOCH);
    tokio::time::sleep(MINUTE).await;
    assert!(poller.hasten(&key("web")));
    tokio::time::sleep(MINUTE).await;
    assert_eq!(world.looks().len(), 1);
}
