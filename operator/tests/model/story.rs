//! One scenario from its seed: things happen, operators act, crash and come back; then all is well
//! again, and everything must come to rest with its image published.

use std::sync::{Arc, Mutex};

use firn_operator::settings::Limits;

use super::api::WRITES;
use super::operator::{Operator, Shared, everything};
use super::people::Deed;
use super::rng::Rng;
use super::tally::Tally;
use super::world::{Key, Point, What, World};

/// More happens in no story that comes to an end. The longest have two operators and
/// `CancelRunning`: until both have asked the source again, each takes its commit for the newer one.
const MOST: usize = 20_000;

/// What is special about a story.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kind {
    /// Two operators act at once.
    pub two: bool,
    /// The first operator ends at this call, before or after it is done.
    pub crash: Option<(u64, bool)>,
}

/// How it went.
pub struct Outcome {
    pub broken: Vec<String>,
    pub log: Vec<String>,
    pub tally: Tally,
    /// Calls of the operators.
    pub calls: u64,
}

struct Story {
    world: Shared,
    operators: Vec<Operator>,
    steps: usize,
}

/// Tells the story of a seed.
pub async fn tell(seed: u64, kind: Kind, log: bool) -> Outcome {
    let mut world = World::new(seed, log);
    let length = plan(&mut world, kind);
    let limit = u32::try_from(world.rng.between(1, 2)).unwrap();
    let limits = Limits {
        concurrent_builds: limit,
        concurrent_builds_per_namespace: limit,
    };
    let world = Arc::new(Mutex::new(world));
    let count = if kind.two { 2 } else { 1 };
    let mut story = Story {
        operators: (0..count)
            .map(|n| Operator::new(n, world.clone(), limits))
            .collect(),
        world,
        steps: 0,
    };
    story.run(length).await;
    if seed.is_multiple_of(3) {
        story.rest("in the middle").await;
    }
    story.world.lock().unwrap().mend_all();
    story.poll();
    let mended = story.world.lock().unwrap().now;
    story.run(mended + 6 * 3600).await;
    story.rest("at the end").await;
    let mut world = story.world.lock().unwrap();
    if world.broken.is_empty() {
        world.check_rest();
    }
    Outcome {
        broken: std::mem::take(&mut world.broken),
        log: world.log.take().unwrap_or_default(),
        tally: std::mem::take(&mut world.tally),
        calls: world.rules.clock,
    }
}

/// Writes what happens into the agenda; until when.
fn plan(world: &mut World, kind: Kind) -> i64 {
    let rng = &mut world.rng;
    let length = rng.between(300, 9000);
    let mut deeds: Vec<(i64, Deed)> = vec![(0, Deed::Create("web"))];
    if rng.chance(30) {
        deeds.push((rng.between(0, 60), Deed::Create("api")));
    }
    if rng.chance(25) {
        deeds.push((rng.between(0, 200), Deed::Platforms(true)));
    }
    for _ in 0..rng.between(1, 9) {
        // Half of it while something runs.
        let at = if rng.chance(50) {
            rng.between(5, 700)
        } else {
            rng.between(0, length)
        };
        deeds.push((at, Deed::draw(rng)));
    }
    let crashes = match kind.crash {
        Some((call, after)) => vec![(0, Deed::Crash(0, Point::After(call), after))],
        None if rng.chance(50) => {
            let draw = |rng: &mut Rng| {
                let operator = usize::from(kind.two && rng.chance(50));
                // Most calls are reads: writes are met by name.
                let point = if rng.chance(40) {
                    Point::Next(rng.pick::<&str>(&WRITES))
                } else {
                    Point::After(rng.below(12))
                };
                let crash = Deed::Crash(operator, point, rng.chance(70));
                (rng.between(0, length.min(1500)), crash)
            };
            (0..rng.between(1, 3)).map(|_| draw(rng)).collect()
        }
        None => Vec::new(),
    };
    deeds.extend(crashes);
    if rng.chance(10) {
        // Few changes meet a build that runs: here it is made sure of.
        let supersedes = Point::Next("patch NixImageBuild");
        let at = rng.between(20, 120);
        deeds.push((1, Deed::RunPolicy(2)));
        deeds.push((at, Deed::Crash(0, supersedes, rng.chance(50))));
        deeds.push((at + 1, Deed::Label(rng.between(0, 5))));
    }
    if rng.chance(25) {
        let (at, percent) = (rng.between(0, 400), *rng.pick(&[5, 20, 60]));
        deeds.push((at, Deed::Errors(percent)));
        deeds.push((at + rng.between(10, 600), Deed::Errors(0)));
    }
    world.weather.bad_pods = *rng.pick(&[0, 20, 50, 80]);
    world.weather.busy = *rng.pick(&[0, 10, 40]);
    for (at, deed) in deeds {
        world.later(at, What::Deed(deed));
    }
    world.later(0, What::Start(0));
    if kind.two {
        let pause = world.rng.between(0, 300);
        world.later(pause, What::Start(1));
    }
    let start = world.now;
    // Each commit is seen by the next poll.
    start + length
}

impl Story {
    fn is_broken(&self) -> bool {
        !self.world.lock().unwrap().broken.is_empty()
    }

    /// What the watches tell.
    fn watch(&mut self) {
        let mut world = self.world.lock().unwrap();
        while let Some(change) = world.changes.pop_front() {
            for operator in &mut self.operators {
                operator.watch(&mut world, &change);
            }
        }
    }

    /// Everything up to this time.
    async fn run(&mut self, until: i64) {
        while !self.is_broken() {
            self.watch();
            let next = {
                let mut world = self.world.lock().unwrap();
                let Some((at, _)) = world.agenda.first_key_value() else {
                    break;
                };
                let at = *at;
                if at.0 > until {
                    break;
                }
                world.now = world.now.max(at.0);
                world.agenda.remove(&at).map(|what| (at, what))
            };
            let Some((at, what)) = next else {
                break;
            };
            self.steps += 1;
            if self.steps > MOST {
                self.world
                    .lock()
                    .unwrap()
                    .violated("it does not come to rest");
                break;
            }
            self.happen(at, what).await;
        }
        let mut world = self.world.lock().unwrap();
        world.now = world.now.max(until);
    }

    async fn happen(&mut self, at: (i64, u64), what: What) {
        match what {
            What::Wake(number, life, key) => {
                let operator = &mut self.operators[number];
                if operator.life == life && operator.takes(&key, at) {
                    self.turn(number, key).await;
                }
            }
            What::Hear(number, life, name, news) => {
                let operator = &mut self.operators[number];
                if operator.life == life {
                    operator.hear(&mut self.world.lock().unwrap(), &name, &news);
                }
            }
            What::Polled(number, life, image) => {
                let operator = &mut self.operators[number];
                if operator.life == life {
                    operator.polled(&mut self.world.lock().unwrap(), &image);
                }
            }
            What::Start(number) => {
                if let Some(operator) = self.operators.get_mut(number)
                    && !operator.is_running()
                {
                    operator.start();
                }
            }
            what => {
                let source = matches!(
                    what,
                    What::Deed(
                        Deed::Commit(..)
                            | Deed::SourceFails(_)
                            | Deed::SourceWorks
                            | Deed::HalfSource(_)
                    )
                );
                self.world.lock().unwrap().happen(what);
                if source {
                    self.poll();
                }
            }
        }
    }

    /// The source is another: each operator's next poll of each image sees it.
    fn poll(&mut self) {
        let mut world = self.world.lock().unwrap();
        for (number, operator) in self.operators.iter().enumerate() {
            for image in operator.polls() {
                let pause = world.rng.between(1, 300);
                world.later(pause, What::Polled(number, operator.life, image));
            }
        }
    }

    /// An operator's turn; sometimes the other's about the same object, at the same time.
    async fn turn(&mut self, number: usize, key: Key) {
        let other = (self.operators.len() > 1 && self.world.lock().unwrap().rng.chance(60))
            .then_some(1 - number)
            .filter(|other| self.operators[*other].is_running());
        if let Some(other) = other {
            let (mine, others) = tokio::join!(
                self.operators[number].turn(&key),
                self.operators[other].turn(&key)
            );
            self.operators[number].after(key.clone(), mine);
            self.operators[other].after(key, others);
        } else {
            let mine = self.operators[number].turn(&key).await;
            self.operators[number].after(key, mine);
        }
    }

    /// Everything is looked at again and again, and nothing else happens: soon nothing is written.
    async fn rest(&mut self, when: &str) {
        let running: Vec<usize> = (0..self.operators.len())
            .filter(|n| self.operators[*n].is_running())
            .collect();
        let calm = {
            let world = self.world.lock().unwrap();
            world.weather.errors == 0 && world.crashes == [None; 2]
        };
        if running.is_empty() || !calm {
            return;
        }
        let busy = std::mem::take(&mut self.world.lock().unwrap().weather.busy);
        let mut written = 0;
        for _ in 0..8 {
            if self.is_broken() {
                return;
            }
            self.watch();
            for operator in &mut self.operators {
                for image in operator.polls() {
                    operator.polled(&mut self.world.lock().unwrap(), &image);
                }
            }
            let news: Vec<What> = {
                let mut world = self.world.lock().unwrap();
                let ids: Vec<(i64, u64)> = world
                    .agenda
                    .iter()
                    .filter(|(_, what)| matches!(what, What::Hear(..) | What::Polled(..)))
                    .map(|(id, _)| *id)
                    .collect();
                ids.iter()
                    .filter_map(|id| world.agenda.remove(id))
                    .collect()
            };
            for what in news {
                self.happen((0, 0), what).await;
            }
            let before = self.world.lock().unwrap().writes;
            let keys = everything(&self.world.lock().unwrap());
            for number in &running {
                for key in &keys {
                    let result = self.operators[*number].turn(key).await;
                    self.operators[*number].after(key.clone(), result);
                }
            }
            written = self.world.lock().unwrap().writes - before;
            if written == 0 {
                break;
            }
        }
        let mut world = self.world.lock().unwrap();
        world.weather.busy = busy;
        if written > 0 {
            world.violated(format!("{written} writes at rest, {when}"));
        }
    }
}
