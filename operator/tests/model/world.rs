//! The objects of one namespace, as an API server keeps them: resource versions, generations, owner
//! references, deletion. What is done to them by the API is in `api`, by Kubernetes' controllers in
//! `jobs` and `kubelet`, by people in `people`; what must hold whenever one changes is in `rules`.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use firn_crd::names::{LABEL_BUILD, LABEL_IMAGE, LABEL_PLATFORM};
use serde_json::{Value, json};

use super::jobs::Jobs;
use super::kubelet::{Fate, Registry};
use super::people::Deed;
use super::repository::Repository;
use super::rng::Rng;
use super::rules::Rules;
use super::tally::Tally;

/// The one namespace.
pub const NAMESPACE: &str = "shop";
/// When the story begins: seconds since the epoch.
pub const START: i64 = 1_764_064_800;

/// Kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Image,
    Build,
    Job,
    Pod,
    Event,
    Account,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Image => "NixImage",
            Self::Build => "NixImageBuild",
            Self::Job => "Job",
            Self::Pod => "Pod",
            Self::Event => "Event",
            Self::Account => "ServiceAccount",
        }
    }

    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Image | Self::Build => "firn.dev/v1alpha1",
            Self::Job => "batch/v1",
            Self::Pod | Self::Event | Self::Account => "v1",
        }
    }
}

/// An object and its bytes.
#[derive(Debug, Clone)]
pub struct Object {
    pub value: Value,
    bytes: Option<Bytes>,
}

/// Text at a JSON pointer.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

impl Object {
    pub fn uid(&self) -> &str {
        text(&self.value, "/metadata/uid")
    }

    pub fn name(&self) -> &str {
        text(&self.value, "/metadata/name")
    }

    pub fn label(&self, name: &str) -> &str {
        self.value["metadata"]["labels"][name]
            .as_str()
            .unwrap_or("")
    }

    pub fn deleting(&self) -> bool {
        self.value["metadata"].get("deletionTimestamp").is_some()
    }

    pub fn generation(&self) -> i64 {
        self.value["metadata"]["generation"].as_i64().unwrap_or(0)
    }

    /// Kind, name and UID of the controller that owns it.
    pub fn owner(&self) -> Option<(Kind, &str, &str)> {
        let owner = self.value["metadata"]["ownerReferences"].get(0)?;
        let kind = match owner["kind"].as_str()? {
            "NixImage" => Kind::Image,
            "NixImageBuild" => Kind::Build,
            "Job" => Kind::Job,
            _ => return None,
        };
        Some((kind, owner["name"].as_str()?, owner["uid"].as_str()?))
    }
}

/// The call at which an operator ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The one after so many others.
    After(u64),
    /// The next of that label.
    Next(&'static str),
}

/// Something that happens at its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The Job controller looks at a Job.
    Job(String),
    /// Something happens to a pod: its name and what.
    Pod(String, super::kubelet::Step),
    /// Kueue admits a Job.
    Admit(String),
    /// The garbage collector looks at everything.
    Collect,
    /// Somebody does something.
    Deed(Deed),
    /// An operator looks at an object: its number, its life, and the object.
    Wake(usize, u32, Key),
    /// An operator hears that a Job is so, or gone.
    Hear(usize, u32, String, News),
    /// An operator has asked the source.
    Polled(usize, u32, String),
    /// An operator starts.
    Start(usize),
}

impl What {
    /// Whether it is the operator's business: then it does not happen in the middle of a call.
    pub const fn of_operator(&self) -> bool {
        matches!(
            self,
            Self::Wake(..) | Self::Hear(..) | Self::Polled(..) | Self::Start(_)
        )
    }
}

/// What a watch says about a Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It was so when this was sent.
    Is(Bytes),
    /// It was gone.
    Gone,
    /// It is as it is when this arrives.
    Now,
}

/// What an operator reconciles.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Kind,
    pub name: String,
}

/// Something that a watch tells.
#[derive(Debug, Clone)]
pub struct Change {
    pub kind: Kind,
    pub name: String,
    /// Who owns it.
    pub owner: Option<String>,
    /// The build in its label.
    pub build: String,
    /// Its spec or annotations are new.
    pub spec: bool,
    pub gone: bool,
    /// Jobs only: what it is now.
    pub bytes: Option<Bytes>,
}

/// What may go wrong now.
#[expect(clippy::struct_excessive_bools, reason = "each of them may be")]
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// Calls of a hundred that fail.
    pub errors: u64,
    /// Calls of a hundred in whose middle the world goes on.
    pub busy: u64,
    /// A quota leaves no room for Jobs.
    pub no_jobs: bool,
    /// A quota leaves no room for pods.
    pub no_pods: bool,
    /// A policy refuses the pods.
    pub no_pod_is_good: bool,
    /// Pods of a hundred that end badly.
    pub bad_pods: u64,
    /// Secrets that are missing.
    pub secrets_missing: bool,
}

/// All there is.
#[derive(Debug)]
pub struct World {
    pub now: i64,
    pub rng: Rng,
    pub objects: BTreeMap<(Kind, String), Object>,
    pub agenda: BTreeMap<(i64, u64), What>,
    pub changes: VecDeque<Change>,
    pub weather: Weather,
    pub jobs: Jobs,
    pub fates: BTreeMap<String, Fate>,
    pub registry: Registry,
    pub repository: Repository,
    pub rules: Rules,
    pub tally: Tally,
    /// What was done, for people who replay a seed.
    pub log: Option<Vec<String>>,
    /// What was broken.
    pub broken: Vec<String>,
    /// Writes so far, events not counted.
    pub writes: u64,
    /// After how many calls an operator ends, and whether the last one is still done.
    pub crashes: [Option<(Point, bool)>; 2],
    /// Whether it has.
    pub crashed: [bool; 2],
    /// How wrong each operator's clock is, in seconds.
    pub skews: [i64; 2],
    version: u64,
    sequence: u64,
    /// The garbage collector is on its way.
    collects: bool,
}

impl World {
    pub fn new(seed: u64, log: bool) -> Self {
        Self {
            now: START,
            rng: Rng::new(seed),
            objects: BTreeMap::new(),
            agenda: BTreeMap::new(),
            changes: VecDeque::new(),
            weather: Weather::default(),
            jobs: Jobs::default(),
            fates: BTreeMap::new(),
            registry: Registry::default(),
            repository: Repository::default(),
            rules: Rules::default(),
            tally: Tally::default(),
            log: log.then(Vec::new),
            broken: Vec::new(),
            writes: 0,
            crashes: [None; 2],
            crashed: [false; 2],
            skews: [0; 2],
            version: 0,
            sequence: 0,
            collects: false,
        }
    }

    pub fn say(&mut self, words: impl FnOnce() -> String) {
        let at = self.now - START;
        if let Some(log) = &mut self.log {
            log.push(format!("{at:>7} {}", words()));
        }
    }

    /// Something that must hold does not.
    pub fn violated(&mut self, words: impl Into<String>) {
        let words = words.into();
        self.say(|| format!("BROKEN {words}"));
        self.broken.push(words);
    }

    pub fn later(&mut self, pause: i64, what: What) -> (i64, u64) {
        self.sequence += 1;
        let at = (self.now + pause.max(0), self.sequence);
        self.agenda.insert(at, what);
        at
    }

    /// A number that grows.
    pub const fn serial(&self) -> u64 {
        self.version
    }

    pub fn time(&self) -> String {
        time(self.now)
    }

    pub fn get(&self, kind: Kind, name: &str) -> Option<&Object> {
        self.objects.get(&(kind, name.to_owned()))
    }

    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects
            .range((kind, String::new())..)
            .take_while(move |((k, _), _)| *k == kind)
            .map(|(_, object)| object)
    }

    pub fn names(&self, kind: Kind) -> Vec<String> {
        self.of_kind(kind).map(|o| o.name().to_owned()).collect()
    }

    pub fn bytes(&mut self, kind: Kind, name: &str) -> Option<Bytes> {
        let object = self.objects.get_mut(&(kind, name.to_owned()))?;
        if object.bytes.is_none() {
            object.bytes = serde_json::to_vec(&object.value).ok().map(Bytes::from);
        }
        object.bytes.clone()
    }

    /// A new object: gets what the API server adds. It must not be there yet.
    pub fn insert(&mut self, kind: Kind, mut value: Value) {
        self.version += 1;
        let version = self.version;
        let metadata = &mut value["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default().to_owned();
        metadata["uid"] = json!(format!("{}-{version}", kind.name().to_lowercase()));
        metadata["namespace"] = json!(NAMESPACE);
        metadata["resourceVersion"] = json!(version.to_string());
        metadata["generation"] = json!(1);
        metadata["creationTimestamp"] = json!(time(self.now));
        value["kind"] = json!(kind.name());
        value["apiVersion"] = json!(kind.api_version());
        let object = Object { value, bytes: None };
        let owned = object.owner().is_none_or(|(kind, name, uid)| {
            self.get(kind, name).is_some_and(|owner| owner.uid() == uid)
        });
        if !owned {
            self.collect_soon(60);
        }
        self.objects.insert((kind, name.clone()), object);
        self.touched(kind, &name, true);
    }

    /// Changes an object; nothing happens if that changes nothing, or it is gone. Changes of spec
    /// make a new generation.
    pub fn change(&mut self, kind: Kind, name: &str, edit: impl FnOnce(&mut Value)) -> bool {
        let Some(object) = self.objects.get_mut(&(kind, name.to_owned())) else {
            return false;
        };
        let before = object.value.clone();
        edit(&mut object.value);
        if object.value == before {
            return false;
        }
        let spec = object.value["spec"] != before["spec"]
            || object.value["metadata"].get("deletionTimestamp")
                != before["metadata"].get("deletionTimestamp");
        let annotations =
            object.value["metadata"]["annotations"] != before["metadata"]["annotations"];
        self.version += 1;
        object.value["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if spec {
            object.value["metadata"]["generation"] = json!(object.generation() + 1);
        }
        object.bytes = None;
        self.check_change(kind, name, &before);
        self.touched(kind, name, spec || annotations);
        true
    }

    fn touched(&mut self, kind: Kind, name: &str, spec: bool) {
        if matches!(kind, Kind::Event | Kind::Account) {
            return;
        }
        let bytes = (kind == Kind::Job)
            .then(|| self.bytes(kind, name))
            .flatten();
        if kind == Kind::Job {
            self.later(1, What::Job(name.to_owned()));
        }
        let Some(object) = self.get(kind, name) else {
            return;
        };
        let change = Change {
            kind,
            name: name.to_owned(),
            owner: object.owner().map(|(_, name, _)| name.to_owned()),
            build: object.label(LABEL_BUILD).to_owned(),
            spec,
            gone: false,
            bytes,
        };
        if let (Kind::Pod, Some(job)) = (kind, &change.owner) {
            let job = job.clone();
            self.later(1, What::Job(job));
        }
        self.changes.push_back(change);
    }

    /// Takes an object away at once.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        let Some(object) = self.objects.remove(&(kind, name.to_owned())) else {
            return;
        };
        self.say(|| format!("{} {name} is gone", kind.name()));
        self.check_gone(kind, &object);
        self.changes.push_back(Change {
            kind,
            name: name.to_owned(),
            owner: object.owner().map(|(_, name, _)| name.to_owned()),
            build: object.label(LABEL_BUILD).to_owned(),
            spec: true,
            gone: true,
            bytes: None,
        });
        self.collect_soon(3);
        if let Some((Kind::Job, job, _)) = object.owner() {
            let job = job.to_owned();
            self.later(1, What::Job(job));
        }
    }

    /// Deletes as the API server does. Pods are ended by their kubelet.
    pub fn delete(&mut self, kind: Kind, name: &str, foreground: bool) {
        let now = self.time();
        let mark = |value: &mut Value| {
            if value["metadata"].get("deletionTimestamp").is_none() {
                value["metadata"]["deletionTimestamp"] = json!(now);
            }
        };
        match kind {
            Kind::Pod => {
                if self.change(kind, name, mark) {
                    self.end_pod_softly(name);
                }
            }
            _ if foreground => {
                self.change(kind, name, |value| {
                    mark(value);
                    value["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
                });
                self.collect_soon(2);
            }
            _ => self.remove(kind, name),
        }
    }

    /// What is of the world happens.
    pub fn happen(&mut self, what: What) {
        self.rules.acting = None;
        match what {
            What::Job(name) => self.sync_job(&name),
            What::Pod(name, step) => self.step(&name, step),
            What::Admit(name) => self.admit(&name),
            What::Collect => self.collect(),
            What::Deed(deed) => self.perform(&deed),
            What::Wake(..) | What::Hear(..) | What::Polled(..) | What::Start(_) => {}
        }
    }

    /// In the middle of a turn, the world goes on for some seconds.
    pub fn go_on(&mut self, seconds: i64) {
        for _ in 0..3 {
            let until = (self.now + seconds, u64::MAX);
            let next = self
                .agenda
                .range(..until)
                .find(|(_, what)| !what.of_operator())
                .map(|(at, _)| *at);
            let Some(at) = next else {
                return;
            };
            if let Some(what) = self.agenda.remove(&at) {
                self.now = self.now.max(at.0);
                self.happen(what);
            }
        }
    }

    /// One pass of the garbage collector.
    pub fn collect(&mut self) {
        self.collects = false;
        let mut again = false;
        let ids: Vec<(Kind, String)> = self.objects.keys().cloned().collect();
        for (kind, name) in ids {
            let Some(object) = self.get(kind, &name) else {
                continue;
            };
            let waits = object.deleting() && kind != Kind::Pod;
            let uid = object.uid().to_owned();
            if waits {
                let children: Vec<(Kind, String)> = self
                    .objects
                    .iter()
                    .filter(|(_, o)| o.owner().is_some_and(|(_, _, owner)| owner == uid))
                    .map(|(id, _)| id.clone())
                    .collect();
                if children.is_empty() {
                    self.remove(kind, &name);
                } else {
                    for (kind, name) in children {
                        // One that goes already may wait long for the node of a pod.
                        if self.get(kind, &name).is_some_and(|child| !child.deleting()) {
                            self.delete(kind, &name, true);
                        }
                    }
                    again = true;
                }
                continue;
            }
            let orphan = object.owner().is_some_and(|(kind, name, uid)| {
                self.get(kind, name).is_none_or(|owner| owner.uid() != uid)
            });
            if orphan && !object.deleting() {
                self.delete(kind, &name, false);
            }
        }
        if again {
            self.collect_soon(60);
        }
    }

    fn collect_soon(&mut self, seconds: i64) {
        if !std::mem::replace(&mut self.collects, true) {
            let pause = self.rng.between(0, seconds);
            self.later(pause, What::Collect);
        }
    }

    /// Pods of an image and platform that may still run, with the image in their label.
    pub fn living_pods(&self, image: &str, platform: &str) -> Vec<String> {
        self.of_kind(Kind::Pod)
            .filter(|pod| pod.label(LABEL_IMAGE) == image && pod.label(LABEL_PLATFORM) == platform)
            .filter(|pod| is_alive(pod))
            .map(|pod| pod.name().to_owned())
            .collect()
    }
}

/// Whether a pod may still do something.
pub fn is_alive(pod: &Object) -> bool {
    !matches!(text(&pod.value, "/status/phase"), "Succeeded" | "Failed")
}

/// Whether a Job is over.
pub fn is_finished(job: &Object) -> bool {
    job.value["status"]["conditions"]
        .as_array()
        .is_some_and(|list| {
            list.iter()
                .any(|c| c["type"] == "Complete" || c["type"] == "Failed")
        })
}

/// Seconds since the epoch as Kubernetes writes them.
pub fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap().to_string()
}
