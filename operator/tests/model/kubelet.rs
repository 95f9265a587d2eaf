//! Nodes, and what runs on them: each pod has a fate, drawn when it is made. A pod's last act is to
//! move tags in the registry; one whose node is lost may do it without anybody seeing.

use std::collections::BTreeMap;

use firn_crd::exit::{Container, Reason};
use firn_crd::names::{LABEL_BUILD, LABEL_PLATFORM};
use firn_crd::report::{Failed, Outcome, Pushed, Report, Stage, StageName};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use strum::IntoEnumIterator;

use super::jobs::{Known, started};
use super::world::{Kind, Object, What, World, is_alive, text};

/// What becomes of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// All goes well, after so many seconds.
    Well(i64),
    /// A container fails with this reason; whether it leaves a report.
    Fails(Container, Reason, bool),
    /// A container needs too much memory.
    OutOfMemory(Container),
    /// It ends well and leaves nothing to believe.
    Mute,
    /// Ended from outside, with the pod's reason or the condition's.
    Disrupted(&'static str),
    /// The node does not want it.
    Refused,
    /// No node fits.
    Unschedulable,
    /// The image cannot be pulled.
    NoImage,
    /// A Secret is missing.
    NoSecret,
    /// The volume does not come, and nobody says why.
    NoVolume,
    /// The node stops answering: when it is back, if ever, and whether the pod did its work
    /// meanwhile.
    NodeLost(Option<i64>, bool),
    /// It runs for ever.
    Hangs,
}

/// What happens to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A node is looked for.
    Schedule,
    /// Its first container runs.
    Start,
    /// Tags are moved.
    Publish,
    /// It ends as its fate says.
    End,
    /// It is to end, and does.
    Stop,
    /// Its node is given up.
    GiveUp,
    /// Its node is back.
    Back,
    /// The object goes.
    Remove,
}

/// Tags, and what is there.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    /// Digest, and the highest number of a build that pushed it, by repository and tag.
    pub tags: BTreeMap<(String, String), (String, i64)>,
    /// The highest number of a build that pushed it, by image, repository and digest.
    pub digests: BTreeMap<(String, String, String), i64>,
    /// Pods that moved their tags.
    pub done: BTreeMap<String, Told>,
}

/// What a push container says.
#[derive(Debug, Clone)]
pub enum Told {
    Pushed(String),
    NotChanged(String),
    Retagged(String),
    Indexed(String),
}

fn digest(of: &str) -> String {
    let bytes = Sha256::digest(of.as_bytes());
    bytes
        .iter()
        .fold("sha256:".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
}

const POD_REASONS: [&str; 6] = [
    "Evicted",
    "EvictedDisk",
    "Shutdown",
    "PreemptionByScheduler",
    "EvictionByEvictionAPI",
    "DeletionByPodGC",
];

impl World {
    /// What becomes of a pod of this Job.
    pub fn draw(&mut self, job: &Known) -> Fate {
        let rng = &mut self.rng;
        let length = rng.between(5, 400);
        if self.weather.secrets_missing && rng.chance(50) {
            return Fate::NoSecret;
        }
        if !rng.chance(self.weather.bad_pods) {
            return Fate::Well(length);
        }
        let containers: Vec<Container> = job
            .containers
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        match rng.below(16) {
            0..=6 => {
                let all: Vec<(Container, Reason)> = containers
                    .iter()
                    .flat_map(|c| Reason::iter().map(move |reason| (*c, reason)))
                    .filter(|(c, reason)| reason.containers().contains(c))
                    .collect();
                let (container, reason) = *rng.pick(&all);
                Fate::Fails(container, reason, rng.chance(80))
            }
            7 => Fate::OutOfMemory(*rng.pick(&containers)),
            8 => Fate::Mute,
            9 => Fate::Disrupted(rng.pick::<&str>(&POD_REASONS)),
            10 => match rng.below(2) {
                0 => Fate::Refused,
                _ => Fate::Disrupted(rng.pick::<&str>(&POD_REASONS)),
            },
            11 => Fate::Unschedulable,
            12 => Fate::NoImage,
            13 => match rng.below(2) {
                0 => Fate::NoVolume,
                _ => Fate::NoSecret,
            },
            14 => {
                let back = rng.chance(70).then(|| rng.between(400, 9000));
                Fate::NodeLost(back, rng.chance(50))
            }
            _ => Fate::Hangs,
        }
    }

    /// Something happens to a pod.
    pub fn step(&mut self, name: &str, step: Step) {
        let Some(pod) = self.get(Kind::Pod, name).cloned() else {
            return;
        };
        let Some(fate) = self.fates.get(name).cloned() else {
            return;
        };
        if step == Step::Remove {
            if !is_alive(&pod) {
                self.remove(Kind::Pod, name);
            }
            return;
        }
        if !is_alive(&pod) {
            self.remove_soon(&pod);
            return;
        }
        match step {
            Step::Schedule => self.schedule(&pod, &fate),
            Step::Start => self.run_pod(&pod, &fate),
            Step::Publish => self.publish(&pod),
            Step::End => self.end(&pod, &fate),
            Step::Stop => {
                if self.registry.done.contains_key(name) {
                    self.ends_well(&pod);
                } else {
                    self.killed(&pod, 143);
                }
            }
            Step::GiveUp => {
                let condition = json!([{"type": "DisruptionTarget", "status": "True",
                    "reason": "DeletionByTaintManager", "message": "its node does not answer"}]);
                self.change(Kind::Pod, name, |pod| {
                    pod["status"]["conditions"] = condition;
                });
                self.delete(Kind::Pod, name, false);
            }
            Step::Back => {
                if self.registry.done.contains_key(name) {
                    self.ends_well(&pod);
                } else {
                    self.killed(&pod, 137);
                }
            }
            Step::Remove => {}
        }
    }

    fn schedule(&mut self, pod: &Object, fate: &Fate) {
        let name = pod.name();
        let waiting = |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
        match fate {
            Fate::Unschedulable => {
                let condition = json!([{"type": "PodScheduled", "status": "False",
                    "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient cpu."}]);
                self.change(Kind::Pod, name, |pod| {
                    pod["status"]["conditions"] = condition;
                });
            }
            Fate::NoImage => {
                let state = waiting("ImagePullBackOff", "Back-off pulling image");
                self.contain(pod, "Pending", &[state]);
            }
            Fate::NoVolume => self.contain(pod, "Pending", &[waiting("ContainerCreating", "")]),
            Fate::NoSecret => {
                self.contain(pod, "Pending", &[waiting("ContainerCreating", "")]);
                let words =
                    "MountVolume.SetUp failed for volume \"push\" : secret \"push\" not found";
                self.warn(pod.uid(), "FailedMount", words);
            }
            Fate::Refused => {
                self.change(Kind::Pod, name, |pod| {
                    pod["status"] = json!({"phase": "Failed", "reason": "OutOfcpu",
                        "message": "Node didn't have enough resource: cpu"});
                });
            }
            _ => {
                let pause = self.rng.between(1, 5);
                self.later(pause, What::Pod(name.to_owned(), Step::Start));
            }
        }
    }

    fn run_pod(&mut self, pod: &Object, fate: &Fate) {
        let name = pod.name().to_owned();
        let now = self.time();
        self.contain(pod, "Running", &[json!({"running": {"startedAt": now}})]);
        let length = self.rng.between(5, 300);
        match fate {
            Fate::Well(length) => {
                self.later(length - 1, What::Pod(name.clone(), Step::Publish));
                self.later(*length, What::Pod(name, Step::End));
            }
            Fate::NodeLost(back, worked) => {
                if *worked {
                    self.later(length, What::Pod(name.clone(), Step::Publish));
                }
                self.later(340, What::Pod(name.clone(), Step::GiveUp));
                if let Some(back) = back {
                    self.later(*back, What::Pod(name, Step::Back));
                }
            }
            Fate::Hangs => {}
            _ => {
                self.later(length, What::Pod(name, Step::End));
            }
        }
    }

    /// The containers of a pod: these ended well but the last of them, which is so; the rest wait.
    fn contain(&mut self, pod: &Object, phase: &str, states: &[Value]) {
        let waiting = json!({"waiting": {"reason": "PodInitializing"}});
        let containers = self.containers(pod);
        let list: Vec<Value> = containers
            .iter()
            .enumerate()
            .map(|(index, name)| {
                json!({"name": name, "image": "b", "imageID": "", "ready": false, "restartCount": 0,
                       "state": states.get(index).unwrap_or(&waiting)})
            })
            .collect();
        let (main, init) = list.split_last().unwrap();
        let now = json!({"phase": phase, "initContainerStatuses": init, "containerStatuses": [main],
            "conditions": pod.value["status"]["conditions"]});
        self.change(Kind::Pod, pod.name(), |value| {
            value["status"] = now;
            if value["status"]["conditions"].is_null() {
                value["status"]["conditions"] = json!([]);
            }
            value["spec"]["nodeName"] = json!("node-1");
        });
    }

    fn containers(&self, pod: &Object) -> Vec<String> {
        let job = pod
            .owner()
            .map(|(_, job, _)| job.to_owned())
            .unwrap_or_default();
        let known = self.jobs.get(&job).map(|known| known.containers.clone());
        known
            .filter(|containers| !containers.is_empty())
            .unwrap_or_else(|| vec!["push".to_owned()])
    }

    fn exited(&self, code: i64, reason: &str, message: &str) -> Value {
        json!({"terminated": {"exitCode": code, "reason": reason, "message": message,
            "startedAt": self.time(), "finishedAt": self.time()}})
    }

    fn passed(&self) -> Value {
        self.exited(
            0,
            "Completed",
            &Report::new(Outcome::Passed, Vec::new()).to_message(),
        )
    }

    fn killed(&mut self, pod: &Object, code: i64) {
        let state = self.exited(code, "Error", "");
        let containers = self.containers(pod).len();
        let at = usize::try_from(self.rng.below(containers as u64)).unwrap();
        let mut states = vec![self.passed(); at];
        states.push(state);
        self.contain(pod, "Failed", &states);
        self.remove_soon(pod);
    }

    fn remove_soon(&mut self, pod: &Object) {
        if self
            .get(Kind::Pod, pod.name())
            .is_some_and(Object::deleting)
        {
            let pause = self.rng.between(1, 3);
            self.later(pause, What::Pod(pod.name().to_owned(), Step::Remove));
        }
    }

    /// A pod got a deletion time: its node ends it, if it can.
    pub fn end_pod_softly(&mut self, name: &str) {
        let lost = matches!(self.fates.get(name), Some(Fate::NodeLost(..)))
            && self
                .get(Kind::Pod, name)
                .is_some_and(|pod| is_alive(pod) && pod.value["spec"].get("nodeName").is_some());
        if lost {
            return;
        }
        let pause = self.rng.between(0, 30);
        self.later(pause, What::Pod(name.to_owned(), Step::Stop));
        let alive = self.get(Kind::Pod, name).is_some_and(is_alive);
        if !alive {
            self.later(1, What::Pod(name.to_owned(), Step::Remove));
        }
    }

    /// Push looks at its deadline and at SIGTERM before it moves a tag.
    fn publish(&mut self, pod: &Object) {
        let job_name = pod
            .owner()
            .map(|(_, job, _)| job.to_owned())
            .unwrap_or_default();
        let lost = matches!(self.fates.get(pod.name()), Some(Fate::NodeLost(..)));
        if pod.deleting() && !lost {
            return;
        }
        if let Some(job) = self.get(Kind::Job, &job_name) {
            let deadline = job.value["spec"]["activeDeadlineSeconds"]
                .as_i64()
                .unwrap_or(0);
            if started(job).is_some_and(|started| self.now >= started + deadline) {
                return;
            }
        }
        let Some(known) = self.jobs.get(&job_name) else {
            return;
        };
        let run = known.run.clone();
        let build = pod.label(LABEL_BUILD).to_owned();
        let repository = text(&run, "/output/repository").to_owned();
        let tags: Vec<String> = run["output"]["tags"]
            .as_array()
            .map(|tags| {
                tags.iter()
                    .filter_map(|t| t.as_str().map(ToOwned::to_owned))
                    .collect()
            })
            .unwrap_or_default();
        let (image, number) = self.rules.number_of(&build);
        let told = if run["work"].get("publish").is_some() {
            Told::Retagged(text(&run, "/work/publish/digest").to_owned())
        } else if let Some(index) = run["work"].get("index") {
            Told::Indexed(digest(&index.to_string()))
        } else {
            let build = &run["work"]["build"];
            let content = self.repository.content(text(build, "/source/commit"));
            let drv = format!(
                "/nix/store/{content}-{}.drv",
                text(build, "/platform").replace('/', "-")
            );
            if build["published"]["drvPath"] == drv.as_str() {
                Told::NotChanged(drv)
            } else {
                let what = format!("{drv} {} {}", build["attribute"], build["image"]);
                Told::Pushed(digest(&what))
            }
        };
        self.say(|| format!("{}: {told:?} {tags:?}", pod.name()));
        let moved = match &told {
            Told::Pushed(digest) | Told::Indexed(digest) => {
                let id = (image.clone(), repository.clone(), digest.clone());
                self.registry.digests.insert(id, number);
                Some((digest.clone(), number))
            }
            Told::Retagged(digest) => {
                let id = (image.clone(), repository.clone(), digest.clone());
                let number = self.registry.digests.get(&id).copied();
                if number.is_none() {
                    self.violated(format!("{build} tags {digest}, which is not there"));
                }
                number.map(|number| (digest.clone(), number))
            }
            Told::NotChanged(_) => None,
        };
        if let Some((digest, number)) = moved {
            for tag in tags {
                self.check_tag(&image, &repository, &tag, number, &build);
                self.registry
                    .tags
                    .insert((repository.clone(), tag), (digest.clone(), number));
            }
        }
        self.registry.done.insert(pod.name().to_owned(), told);
    }

    fn ends_well(&mut self, pod: &Object) {
        let Some(told) = self.registry.done.get(pod.name()).cloned() else {
            // Its time was over, or it was asked to end: 46, and no tag was moved.
            self.fails(pod, Container::Push, Reason::NotLatest, true);
            return;
        };
        let result = match told {
            Told::Pushed(digest) => {
                let job = pod
                    .owner()
                    .map(|(_, job, _)| job.to_owned())
                    .unwrap_or_default();
                let commit = self
                    .jobs
                    .get(&job)
                    .map(|known| text(&known.run, "/work/build/source/commit").to_owned())
                    .unwrap_or_default();
                let content = self.repository.content(&commit);
                let platform = pod.label(LABEL_PLATFORM).to_owned();
                Outcome::Pushed(Box::new(Pushed {
                    platform: platform.replace('-', "/"),
                    digest,
                    media_type: "application/vnd.oci.image.manifest.v1+json".into(),
                    size_bytes: 1 << 20,
                    layers_total: 3,
                    layers_pushed: 1,
                    layers_reused: 2,
                    drv_path: format!("/nix/store/{content}-{platform}.drv"),
                    ..Pushed::default()
                }))
            }
            Told::NotChanged(drv) => Outcome::NotChanged { drv },
            Told::Indexed(digest) => Outcome::Published {
                digest,
                media_type: Some("application/vnd.oci.image.index.v1+json".into()),
                note: None,
                kept: Vec::new(),
            },
            Told::Retagged(digest) => Outcome::Published {
                digest,
                media_type: None,
                note: None,
                kept: Vec::new(),
            },
        };
        let pushing = Stage {
            name: StageName::Push,
            start: self.now * 1000 - 1500,
            millis: 1500,
        };
        let message = Report::new(result, vec![pushing]).to_message();
        let state = self.exited(0, "Completed", &message);
        self.succeed(pod, state);
    }

    fn succeed(&mut self, pod: &Object, last: Value) {
        let mut states = vec![self.passed(); self.containers(pod).len() - 1];
        states.push(last);
        self.contain(pod, "Succeeded", &states);
        self.remove_soon(pod);
    }

    fn fails(&mut self, pod: &Object, container: Container, reason: Reason, report: bool) {
        let code = i64::from(reason.exit_code().unwrap_or(70));
        let failed = Failed {
            reason,
            message: format!("{reason}: the model says so"),
            drv_path: None,
            log_tail: Some("one\ntwo".into()),
            retry_after: (reason == Reason::RegistryRateLimited).then_some(90),
        };
        let message = if report {
            Report::new(Outcome::Failed(Box::new(failed)), Vec::new()).to_message()
        } else {
            "the end of a log".to_owned()
        };
        self.stop_at(pod, container, code, "Error", &message);
    }

    fn stop_at(
        &mut self,
        pod: &Object,
        container: Container,
        code: i64,
        reason: &str,
        words: &str,
    ) {
        let names = self.containers(pod);
        let at = names
            .iter()
            .position(|name| *name == container.to_string())
            .unwrap_or(names.len() - 1);
        let mut states = vec![self.passed(); at];
        states.push(self.exited(code, reason, words));
        self.contain(pod, "Failed", &states);
        self.remove_soon(pod);
    }

    fn end(&mut self, pod: &Object, fate: &Fate) {
        match fate {
            Fate::Well(_) => self.ends_well(pod),
            Fate::Fails(container, reason, report) => {
                self.fails(pod, *container, *reason, *report);
            }
            Fate::OutOfMemory(container) => {
                self.stop_at(pod, *container, 137, "OOMKilled", "");
            }
            Fate::Mute => {
                let state = self.exited(0, "Completed", "{\"v\":99}");
                self.succeed(pod, state);
            }
            Fate::Disrupted(reason) => {
                let status = match *reason {
                    "Evicted" => json!({"phase": "Failed", "reason": "Evicted",
                        "message": "The node was low on resource: memory.",
                        "conditions": [{"type": "DisruptionTarget", "status": "True",
                            "reason": "TerminationByKubelet"}]}),
                    "EvictedDisk" => json!({"phase": "Failed", "reason": "Evicted",
                        "message": "Usage of EmptyDir volume \"nix\" exceeds the limit"}),
                    "Shutdown" => json!({"phase": "Failed", "reason": "Terminated",
                        "message": "Pod was terminated in response to imminent node shutdown."}),
                    condition => json!({"phase": "Failed", "conditions": [{
                        "type": "DisruptionTarget", "status": "True", "reason": condition,
                        "message": "made room"}]}),
                };
                self.change(Kind::Pod, pod.name(), |pod| pod["status"] = status);
                self.remove_soon(pod);
            }
            _ => {}
        }
    }
}
