//! The real operator's turns, with a client whose server is the world. What kube's runtime does
//! around them (watches, the queue of objects, back-off after errors) is done here, on the world's
//! time: watches lag and repeat themselves, and an operator may end at any call.

use std::collections::BTreeMap;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use clap::Parser as _;
use firn_crd::names::LABEL_BUILD;
use firn_operator::backoff;
use firn_operator::context::Context;
use firn_operator::error::Error;
use firn_operator::metrics::{self, Metrics};
use firn_operator::settings::{Args, Limits, Settings};
use firn_operator::source::ImageKey;
use futures::future::BoxFuture;
use http::{Request, Response};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::client::Body;
use kube::runtime::reflector;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;
use kube::{Client, ResourceExt};

use super::api::{Answer, Call, Verb, failure};
use super::repository::Memory;
use super::world::{Change, Key, Kind, NAMESPACE, News, Point, What, World};

/// Everybody's world.
pub type Shared = Arc<Mutex<World>>;

/// What the server says.
enum Reply {
    Is(Answer),
    /// Nothing, ever.
    Nothing,
}

/// The API server as one operator reaches it.
#[derive(Clone)]
struct Server {
    world: Shared,
    operator: usize,
}

impl tower::Service<Request<Body>> for Server {
    type Response = Response<Body>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { world, operator } = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let call = Call::read(&parts, body.collect_bytes().await?);
            let yields = world.lock().unwrap().rng.below(4);
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            let reply = serve(&mut world.lock().unwrap(), operator, &call);
            match reply {
                Reply::Is((code, bytes)) => {
                    Ok(Response::builder().status(code).body(Body::from(bytes))?)
                }
                Reply::Nothing => pending().await,
            }
        })
    }
}

fn serve(world: &mut World, operator: usize, call: &Call) -> Reply {
    world.rules.clock += 1;
    let busy = world.weather.busy;
    if world.rng.chance(busy) {
        let seconds = world.rng.between(0, 3);
        world.go_on(seconds);
    }
    world.rules.acting = Some(operator);
    if let Some((crash, after)) = world.crashes[operator] {
        let now = match crash {
            Point::After(calls) => calls == 0,
            Point::Next(label) => call.label() == label,
        };
        if now {
            let point = if after { "after" } else { "before" };
            world
                .tally
                .count("crash", &format!("{point} {}", call.label()));
            world.say(|| format!("operator {operator} ends {point} {}", call.label()));
            world.crashes[operator] = None;
            world.crashed[operator] = true;
            if after {
                world.answer(call);
            }
            return Reply::Nothing;
        }
        if let Point::After(calls) = crash {
            world.crashes[operator] = Some((Point::After(calls - 1), after));
        }
    }
    let errors = world.weather.errors;
    if world.rng.chance(errors) {
        world.tally.count("fault", &call.label());
        return match world.rng.below(4) {
            0 => Reply::Is(failure(
                500,
                "InternalError",
                "etcdserver: request timed out",
            )),
            1 => Reply::Is(failure(429, "TooManyRequests", "too many requests")),
            // Done, but nobody hears of it.
            2 => {
                world.answer(call);
                Reply::Nothing
            }
            _ => Reply::Nothing,
        };
    }
    if call.verb != Verb::Get && call.verb != Verb::List {
        world.tally.count("call", &call.label());
    }
    Reply::Is(world.answer(call))
}

fn settings(limits: Limits) -> Arc<Settings> {
    static BASE: OnceLock<Settings> = OnceLock::new();
    let base = BASE.get_or_init(|| {
        let args = [
            "firn-operator",
            "--builder-image",
            "registry.example/builder:1",
        ];
        Settings::resolve(Args::parse_from(args)).unwrap()
    });
    Arc::new(Settings {
        limits,
        ..base.clone()
    })
}

/// One process.
pub struct Operator {
    number: usize,
    pub life: u32,
    world: Shared,
    limits: Limits,
    running: Option<Running>,
}

struct Running {
    ctx: Context,
    jobs: Writer<Job>,
    store: reflector::Store<Job>,
    memory: Arc<Memory>,
    pending: BTreeMap<Key, (i64, u64)>,
    failing: BTreeMap<Key, u32>,
    /// No watch event comes before this.
    heard: i64,
}

impl Operator {
    pub fn new(number: usize, world: Shared, limits: Limits) -> Self {
        Self {
            number,
            life: 0,
            world,
            limits,
            running: None,
        }
    }

    pub const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The process ends: what it knew is gone.
    pub fn stop(&mut self) {
        self.life += 1;
        self.running = None;
    }

    /// A new process: lists everything, and looks at all of it.
    pub fn start(&mut self) {
        let (number, world) = (self.number, self.world.clone());
        let server = Server {
            world: world.clone(),
            operator: number,
        };
        let client = Client::new(server, NAMESPACE);
        let memory = Arc::new(Memory::new(world.clone(), number, self.life));
        let (store, mut jobs) = reflector::store();
        let counted = Metrics::register(&mut metrics::registry());
        let clock = world.clone();
        let ctx = Context::new(
            client,
            settings(self.limits),
            memory.clone(),
            counted,
            vec![store.clone()],
        )
        .with_clock(move || {
            let world = clock.lock().unwrap();
            Timestamp::from_second(world.now + world.skews[number]).unwrap()
        });
        let mut world = world.lock().unwrap();
        world.crashed[number] = false;
        jobs.apply_watcher_event(&Event::Init);
        for name in world.names(Kind::Job) {
            if let Some(job) = world.bytes(Kind::Job, &name).as_deref().and_then(read) {
                jobs.apply_watcher_event(&Event::InitApply(job));
            }
        }
        jobs.apply_watcher_event(&Event::InitDone);
        self.running = Some(Running {
            ctx,
            jobs,
            store,
            memory,
            pending: BTreeMap::new(),
            failing: BTreeMap::new(),
            heard: 0,
        });
        for key in everything(&world) {
            let pause = world.rng.between(0, 3);
            self.schedule(&mut world, key, pause);
        }
    }

    /// The object's turn comes after so many seconds, unless it comes before.
    pub fn schedule(&mut self, world: &mut World, key: Key, pause: i64) {
        let Some(running) = &mut self.running else {
            return;
        };
        let at = world.now + pause;
        if let Some(old) = running.pending.get(&key) {
            if old.0 <= at {
                return;
            }
            world.agenda.remove(old);
        }
        let id = world.later(pause, What::Wake(self.number, self.life, key.clone()));
        running.pending.insert(key, id);
    }

    /// What the watches make of a change.
    pub fn watch(&mut self, world: &mut World, change: &Change) {
        let Some(running) = &mut self.running else {
            return;
        };
        let lag = match world.rng.below(20) {
            0 => world.rng.between(5, 40),
            _ => world.rng.between(0, 2),
        };
        let mut keys = Vec::new();
        match change.kind {
            Kind::Image if change.spec && !change.gone => {
                keys.push((Kind::Image, change.name.clone()));
            }
            Kind::Build => {
                if change.spec && !change.gone {
                    keys.push((Kind::Build, change.name.clone()));
                }
                keys.extend(change.owner.clone().map(|owner| (Kind::Image, owner)));
            }
            Kind::Pod => keys.push((Kind::Build, change.build.clone())),
            Kind::Job => {
                // Those without the label are not watched.
                if change.build.is_empty() {
                    return;
                }
                keys.extend(change.owner.clone().map(|owner| (Kind::Build, owner)));
                let at = running.heard.max(world.now + lag);
                running.heard = at;
                let news = match &change.bytes {
                    Some(bytes) if !change.gone => News::Is(bytes.clone()),
                    _ => News::Gone,
                };
                let (number, life, name) = (self.number, self.life, change.name.clone());
                world.later(
                    at - world.now,
                    What::Hear(number, life, name.clone(), news.clone()),
                );
                if world.rng.chance(5) {
                    // The watch begins anew with an older world, and catches up.
                    let again = at - world.now + world.rng.between(1, 20);
                    world.later(again, What::Hear(number, life, name.clone(), news));
                    let now = again + world.rng.between(0, 5);
                    world.later(now, What::Hear(number, life, name, News::Now));
                }
            }
            _ => {}
        }
        if change.gone && change.kind == Kind::Image {
            let key = ImageKey {
                namespace: NAMESPACE.into(),
                name: change.name.clone(),
            };
            running.ctx.forget(&key);
        }
        let repeat = world.rng.chance(5);
        for (kind, name) in keys {
            let key = Key { kind, name };
            self.schedule(world, key.clone(), lag + 1);
            if repeat {
                let pause = lag + world.rng.between(2, 30);
                self.schedule(world, key, pause);
            }
        }
    }

    /// The store of Jobs hears something.
    pub fn hear(&mut self, world: &mut World, name: &str, news: &News) {
        let Some(running) = &mut self.running else {
            return;
        };
        let bytes = match news {
            News::Is(bytes) => Some(bytes.clone()),
            News::Gone => None,
            News::Now => world.bytes(Kind::Job, name),
        };
        let job = bytes.as_deref().and_then(read);
        let finished = job
            .as_ref()
            .is_none_or(firn_operator::build::progress::is_finished);
        let event = if let Some(job) = job {
            Event::Apply(job)
        } else {
            let mut gone = Job::default();
            gone.metadata.name = Some(name.to_owned());
            gone.metadata.namespace = Some(NAMESPACE.to_owned());
            Event::Delete(gone)
        };
        running.jobs.apply_watcher_event(&event);
        if finished {
            let waiting: Vec<String> = running
                .store
                .state()
                .iter()
                .filter(|job| firn_operator::build::progress::is_suspended(job))
                .filter_map(|job| job.labels().get(LABEL_BUILD).cloned())
                .collect();
            for name in waiting {
                let key = Key {
                    kind: Kind::Build,
                    name,
                };
                self.schedule(world, key, 1);
            }
        }
    }

    /// A poll of the source ends.
    pub fn polled(&mut self, world: &mut World, image: &str) {
        let Some(running) = &self.running else {
            return;
        };
        if running.memory.polled(image, world) {
            let key = Key {
                kind: Kind::Image,
                name: image.to_owned(),
            };
            self.schedule(world, key, 0);
        }
    }

    /// Images whose source it polls.
    pub fn polls(&self) -> Vec<String> {
        self.running
            .as_ref()
            .map(|running| running.memory.images())
            .unwrap_or_default()
    }

    /// Whether this turn is still wanted; it is begun.
    pub fn takes(&mut self, key: &Key, at: (i64, u64)) -> bool {
        let Some(running) = &mut self.running else {
            return false;
        };
        let wanted = running.pending.get(key) == Some(&at);
        if wanted {
            running.pending.remove(key);
        }
        wanted
    }

    /// One turn of the real code. `None`: the process ended in its middle.
    pub async fn turn(&self, key: &Key) -> Option<Result<Option<Duration>, Error>> {
        let running = self.running.as_ref()?;
        {
            let mut world = self.world.lock().unwrap();
            world.rules.clock += 1;
            world.rules.began[self.number] = world.rules.clock;
            let number = self.number;
            world.say(|| format!(" operator {number}: {} {}", key.kind.name(), key.name));
        }
        let turn = async {
            match key.kind {
                Kind::Image => {
                    let key = ImageKey {
                        namespace: NAMESPACE.into(),
                        name: key.name.clone(),
                    };
                    firn_operator::image::controller::turn(&running.ctx, &key).await
                }
                _ => {
                    firn_operator::build::controller::turn(&running.ctx, NAMESPACE, &key.name).await
                }
            }
        };
        self.world
            .lock()
            .unwrap()
            .tally
            .count("turn", key.kind.name());
        let mut turn = pin!(turn);
        poll_fn(|cx| match turn.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if self.world.lock().unwrap().crashed[self.number] => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// What follows a turn.
    pub fn after(&mut self, key: Key, result: Option<Result<Option<Duration>, Error>>) {
        let world = self.world.clone();
        let mut world = world.lock().unwrap();
        let Some(result) = result else {
            self.stop();
            let pause = world.rng.between(1, 40);
            world.later(pause, What::Start(self.number));
            return;
        };
        let Some(running) = &mut self.running else {
            return;
        };
        let pause = match result {
            Ok(pause) => {
                running.failing.remove(&key);
                pause
            }
            Err(error) => {
                world.tally.count("error", error.category());
                world.say(|| format!("  {error}"));
                let count = running.failing.entry(key.clone()).or_default();
                *count += 1;
                Some(backoff::API.delay(*count, &key.name))
            }
        };
        if let Some(pause) = pause {
            let mut seconds = pause.as_secs().cast_signed() + i64::from(pause.subsec_nanos() > 0);
            if seconds <= 20 {
                // A slow operator: it polls what waits less often, and thousands of stories fit
                // into a minute.
                seconds *= world.rng.between(3, 12);
            }
            self.schedule(&mut world, key, seconds);
        }
    }
}

fn read(bytes: &[u8]) -> Option<Job> {
    serde_json::from_slice(bytes).ok()
}

/// All that is reconciled.
pub fn everything(world: &World) -> Vec<Key> {
    let keys = |kind| {
        let names = world.names(kind).into_iter();
        names.map(move |name| Key { kind, name })
    };
    keys(Kind::Image).chain(keys(Kind::Build)).collect()
}
