//! What people do, and what happens to the cluster around them.

use firn_crd::names::{ANNOTATION_BUILD, ANNOTATION_RECONCILE};
use firn_crd::output::Output;
use firn_crd::source::{GitSource, Source};
use firn_crd::{NixImage, NixImageSpec};
use firn_operator::source::Kind as SourceKind;
use serde_json::{Value, json};

use super::kubelet::{Fate, Step};
use super::rng::Rng;
use super::world::{Kind, Point, What, World, is_alive};

/// Something that is done.
#[derive(Debug, Clone, PartialEq, Eq, strum::IntoStaticStr)]
pub enum Deed {
    Create(&'static str),
    Label(i64),
    Tags(i64),
    Mode(i64),
    Move(i64),
    Platforms(bool),
    Retries(i64),
    History(i64),
    AskBuild(i64),
    AskLook(i64),
    Suspend(bool),
    DeleteImage(bool),
    DeleteOrphaning,
    DeleteBuild,
    DeleteJob,
    DeletePod,
    ForcePod,
    Cancel,
    BadSpec(i64),
    GoodSpec,
    Commit(bool, bool),
    SourceFails(i64),
    SourceWorks,
    HalfSource(bool),
    JobQuota(bool),
    PodQuota(bool),
    Policy(bool),
    Secrets(bool),
    Errors(u64),
    SquatBuild,
    SquatJob,
    Crash(usize, Point, bool),
    Clock(usize, i64),
    RunPolicy(i64),
    Queue(bool),
}

impl Deed {
    /// One of all.
    pub fn draw(rng: &mut Rng) -> Self {
        let n = rng.between(0, 5);
        let on = rng.chance(50);
        match rng.below(44) {
            0 => Self::Create(if on { "web" } else { "api" }),
            1 | 2 => Self::Label(n),
            3 | 4 => Self::Tags(n),
            5 | 6 => Self::Mode(n),
            7 => Self::Move(n % 2),
            8 => Self::Retries(n % 4),
            9 => Self::History(n % 3),
            10 | 11 => Self::AskBuild(n),
            12 => Self::AskLook(n),
            13 => Self::Suspend(true),
            14 => Self::Suspend(false),
            15 => Self::DeleteImage(on),
            38 => Self::Platforms(on),
            16 => Self::DeleteOrphaning,
            17 => Self::DeleteBuild,
            18 => Self::DeleteJob,
            19 => Self::DeletePod,
            20 => Self::ForcePod,
            21 => Self::Cancel,
            22 => Self::BadSpec(n),
            23 => Self::GoodSpec,
            24..=28 => Self::Commit(on, rng.chance(70)),
            29 => Self::SourceFails(rng.between(0, 9)),
            30 => Self::SourceWorks,
            31 => Self::HalfSource(on),
            32 => Self::JobQuota(on),
            33 => Self::PodQuota(on),
            34 => Self::Policy(on),
            35 => Self::Secrets(on),
            36 => Self::SquatBuild,
            37 => Self::SquatJob,
            39 => Self::Clock(0, rng.between(-3600, 3600)),
            41 | 42 => Self::RunPolicy(n),
            43 => Self::Queue(on),
            _ => Self::Create("api"),
        }
    }
}

/// An image as it is applied first.
fn fresh(name: &str) -> Value {
    thread_local! {
        static BASE: Value = {
            let mut git = GitSource::new("https://git.example/web");
            git.interval = serde_json::from_value(json!("5m")).unwrap();
            let source = Source { git: Some(git), oci: None };
            let mut spec = NixImageSpec::new(source, Output::new("registry.example/web"));
            spec.build.timeout = serde_json::from_value(json!("10m")).unwrap();
            spec.build.pending_timeout = serde_json::from_value(json!("2m")).unwrap();
            serde_json::to_value(NixImage::new("web", spec)).unwrap()
        };
    }
    let mut value = BASE.with(Clone::clone);
    value["metadata"]["name"] = json!(name);
    if name != "web" {
        value["spec"]["output"]["repository"] = json!("registry.example/api");
    }
    value
}

impl World {
    fn any(&mut self, kind: Kind) -> Option<String> {
        let names = self.names(kind);
        (!names.is_empty()).then(|| self.rng.pick(&names).clone())
    }

    fn edit(&mut self, edit: impl FnOnce(&mut Value)) {
        if let Some(name) = self.any(Kind::Image) {
            self.change(Kind::Image, &name, edit);
        }
    }

    /// It is done.
    pub fn perform(&mut self, deed: &Deed) {
        let word: &'static str = deed.into();
        self.tally.count("deed", word);
        self.say(|| format!("{deed:?}"));
        match deed {
            Deed::Create(name) => {
                if self.get(Kind::Image, name).is_none() {
                    self.insert(Kind::Image, fresh(name));
                }
            }
            Deed::Label(n) => {
                self.edit(|v| v["spec"]["output"]["labels"]["n"] = json!(n.to_string()));
            }
            Deed::Tags(n) => {
                let tags = match n % 4 {
                    0 => json!(["latest"]),
                    1 => json!(["latest", "${shortRev}"]),
                    2 => json!(["stable"]),
                    _ => json!(["n-${buildNumber}", "latest"]),
                };
                self.edit(|v| v["spec"]["output"]["tags"] = tags);
            }
            Deed::Mode(n) => {
                let mode = ["LockFile", "Revision", "Manual"][usize::try_from(n % 3).unwrap()];
                self.edit(|v| v["spec"]["trigger"]["mode"] = json!(mode));
            }
            Deed::Move(n) => {
                self.edit(|v| {
                    v["spec"]["output"]["repository"] = json!(format!("registry.example/r{n}"));
                });
            }
            Deed::Platforms(two) => {
                let list = if *two {
                    json!([{"platform": "linux/amd64"}, {"platform": "linux/arm64"}])
                } else {
                    json!([{"platform": "linux/amd64"}])
                };
                self.edit(|v| v["spec"]["output"]["platforms"] = list);
            }
            Deed::Retries(n) => self.edit(|v| v["spec"]["build"]["retries"] = json!(n)),
            Deed::History(n) => {
                self.edit(|v| v["spec"]["history"] = json!({"succeeded": n, "failed": n}));
            }
            Deed::AskBuild(n) => self.annotate(ANNOTATION_BUILD, *n),
            Deed::AskLook(n) => self.annotate(ANNOTATION_RECONCILE, *n),
            Deed::Suspend(on) => self.edit(|v| v["spec"]["suspend"] = json!(on)),
            Deed::DeleteImage(foreground) => {
                if let Some(name) = self.any(Kind::Image) {
                    self.delete(Kind::Image, &name, *foreground);
                }
            }
            Deed::DeleteOrphaning => self.orphan(),
            Deed::DeleteBuild => self.delete_any(Kind::Build),
            Deed::DeleteJob => self.delete_any(Kind::Job),
            Deed::DeletePod => self.delete_any(Kind::Pod),
            Deed::ForcePod => {
                if let Some(name) = self.any(Kind::Pod) {
                    self.fates.remove(&name);
                    self.remove(Kind::Pod, &name);
                }
            }
            Deed::Cancel => {
                if let Some(name) = self.any(Kind::Build) {
                    self.change(Kind::Build, &name, |v| v["spec"]["cancel"] = json!(true));
                }
            }
            Deed::BadSpec(n) => self.edit(|v| match n {
                0 => v["spec"]["output"]["plainHTTP"] = json!(true),
                1 => v["spec"]["build"]["substituters"] = json!(["https://evil.example"]),
                2 => v["spec"]["output"]["tags"] = json!(["${tag}"]),
                3 => v["spec"]["build"]["isolation"] = json!("Privileged"),
                4 => v["spec"]["output"]["repository"] = json!("registry.example/web"),
                _ => v["spec"]["deletionPolicy"] = json!("Delete"),
            }),
            Deed::GoodSpec => {
                for name in self.names(Kind::Image) {
                    self.mend(&name);
                }
            }
            Deed::Commit(lock, content) => self.repository.push(*lock, *content),
            Deed::SourceFails(n) => {
                let kinds = [
                    SourceKind::AuthFailed,
                    SourceKind::CredentialsForbidden,
                    SourceKind::SecretMissing,
                    SourceKind::RevisionNotFound,
                    SourceKind::Unreachable,
                    SourceKind::RateLimited,
                    SourceKind::CertificateUnknown,
                    SourceKind::Invalid,
                    SourceKind::NotSupported,
                    SourceKind::Internal,
                ];
                self.repository.failure = kinds.get(usize::try_from(*n).unwrap()).copied();
            }
            Deed::SourceWorks => self.repository.failure = None,
            Deed::HalfSource(on) => self.repository.incomplete = *on,
            Deed::JobQuota(on) => self.weather.no_jobs = *on,
            Deed::PodQuota(on) => self.weather.no_pods = *on,
            Deed::Policy(on) => self.weather.no_pod_is_good = *on,
            Deed::Secrets(on) => self.weather.secrets_missing = *on,
            Deed::Errors(percent) => self.weather.errors = *percent,
            Deed::SquatBuild => self.squat(Kind::Build),
            Deed::SquatJob => self.squat(Kind::Job),
            Deed::Crash(operator, point, after) => {
                self.crashes[*operator] = Some((*point, *after));
            }
            Deed::RunPolicy(n) => {
                let policies = ["Serial", "SerialLatestOnly", "CancelRunning"];
                let policy = policies[usize::try_from(n % 3).unwrap()];
                self.edit(|v| v["spec"]["runPolicy"] = json!(policy));
            }
            Deed::Queue(on) => {
                let queue = if *on { json!("builds") } else { json!(null) };
                self.edit(|v| v["spec"]["build"]["queueName"] = queue);
            }
            Deed::Clock(operator, skew) => self.skews[*operator] = *skew,
        }
    }

    fn annotate(&mut self, annotation: &str, n: i64) {
        let value = format!("{n}-{}", self.now);
        self.edit(|v| v["metadata"]["annotations"][annotation] = json!(value));
    }

    fn delete_any(&mut self, kind: Kind) {
        if let Some(name) = self.any(kind) {
            let foreground = self.rng.chance(30);
            self.delete(kind, &name, foreground);
        }
    }

    /// `kubectl delete --cascade=orphan`, of an image.
    fn orphan(&mut self) {
        let Some(name) = self.any(Kind::Image) else {
            return;
        };
        let Some(uid) = self
            .get(Kind::Image, &name)
            .map(|image| image.uid().to_owned())
        else {
            return;
        };
        for build in self.names(Kind::Build) {
            let owned = self
                .get(Kind::Build, &build)
                .and_then(|build| build.owner().map(|(_, _, owner)| owner == uid));
            if owned == Some(true) {
                self.change(Kind::Build, &build, |v| {
                    v["metadata"]["ownerReferences"] = json!([]);
                });
            }
        }
        self.remove(Kind::Image, &name);
    }

    /// Somebody else's object has the name that the next build or its Job would have.
    fn squat(&mut self, kind: Kind) {
        let Some(name) = self.any(Kind::Image) else {
            return;
        };
        let counter = self
            .get(Kind::Image, &name)
            .and_then(|image| image.value["status"]["buildCounter"].as_i64())
            .unwrap_or(0);
        let build = format!("{name}-{}", counter + 1);
        if kind == Kind::Build {
            // A copy of another, by hand: the words are right, the owner is not.
            let Some(other) = self.any(Kind::Build) else {
                return;
            };
            let Some(mut value) = self.get(Kind::Build, &other).map(|o| o.value.clone()) else {
                return;
            };
            if self.get(Kind::Build, &build).is_some() {
                return;
            }
            value["metadata"] = json!({"name": build});
            value["status"] = json!({"outcome": "Cancelled"});
            value["spec"]["image"]["name"] = json!(name);
            value["spec"]["image"]["uid"] = json!("another");
            self.insert(Kind::Build, value);
        } else {
            let job = format!("{build}-amd64");
            if self.get(Kind::Job, &job).is_none() {
                let value = json!({
                    "metadata": {"name": job}, "spec": {"suspend": true, "template": {}},
                    "status": {},
                });
                self.insert(Kind::Job, value);
            }
        }
    }

    fn mend(&mut self, name: &str) {
        let base = fresh(name);
        self.change(Kind::Image, name, |v| {
            for pointer in [
                "/output/plainHTTP",
                "/build/isolation",
                "/build/substituters",
                "/deletionPolicy",
            ] {
                let (parent, field) = pointer.rsplit_once('/').unwrap();
                let good = base["spec"].pointer(pointer).cloned();
                let Some(parent) = v["spec"].pointer_mut(parent) else {
                    continue;
                };
                match good {
                    Some(good) => parent[field] = good,
                    None => {
                        parent.as_object_mut().unwrap().remove(field);
                    }
                }
            }
            if v["spec"]["output"]["tags"] == json!(["${tag}"]) {
                v["spec"]["output"]["tags"] = json!(["latest"]);
            }
        });
    }

    /// All is well from now on, and people mend what they broke and ask for another try.
    pub fn mend_all(&mut self) {
        self.say(|| "from now on all goes well".to_owned());
        let busy = self.weather.busy;
        self.weather = super::world::Weather {
            busy,
            ..Default::default()
        };
        self.repository.failure = None;
        self.repository.incomplete = false;
        self.crashes = [None; 2];
        self.skews = [0; 2];
        self.agenda.retain(|_, what| !matches!(what, What::Deed(_)));
        if self.get(Kind::Image, "web").is_none() {
            self.insert(Kind::Image, fresh("web"));
        }
        for name in self.names(Kind::Image) {
            self.mend(&name);
            let value = format!("mended-{}", self.now);
            self.change(Kind::Image, &name, |v| {
                v["spec"]["suspend"] = json!(false);
                v["spec"]["output"]["repository"] = json!(format!("registry.example/{name}"));
                v["metadata"]["annotations"][ANNOTATION_BUILD] = json!(value);
                v["metadata"]["annotations"][ANNOTATION_RECONCILE] = json!(value);
            });
        }
        for name in self.names(Kind::Job) {
            if self
                .get(Kind::Job, &name)
                .is_some_and(|job| job.owner().is_none())
            {
                self.remove(Kind::Job, &name);
            }
        }
        for name in self.names(Kind::Build) {
            if self
                .get(Kind::Build, &name)
                .is_some_and(|build| build.owner().is_none())
            {
                self.remove(Kind::Build, &name);
            }
        }
        for name in self.names(Kind::Pod) {
            let Some(pod) = self.get(Kind::Pod, &name).cloned() else {
                continue;
            };
            if !is_alive(&pod) {
                continue;
            }
            let lost = matches!(self.fates.get(&name), Some(Fate::NodeLost(..)));
            let started = pod.value["status"]["phase"] == "Running";
            let step = match (lost, pod.deleting(), started) {
                (true, ..) => Step::Back,
                (_, true, _) => Step::Stop,
                (_, _, true) => Step::End,
                _ => Step::Schedule,
            };
            let fate = self.fates.entry(name.clone()).or_insert(Fate::Well(5));
            if !started || matches!(fate, Fate::Hangs) {
                *fate = Fate::Well(5);
            }
            if step == Step::End {
                self.later(1, What::Pod(name.clone(), Step::Publish));
            }
            self.later(2, What::Pod(name, step));
        }
    }
}
