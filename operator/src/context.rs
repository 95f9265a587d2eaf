//! What every reconcile is given: handles, no decisions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use firn_crd::condition::{ConditionReason, ConditionType, find_condition};
use firn_crd::{NixImage, NixImageStatus};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::Store;

use crate::apply::Cluster;
use crate::build::job::Site as PodSite;
use crate::controllers::Scope;
use crate::image::Site;
use crate::metrics::{ImageState, Metrics};
use crate::registry;
use crate::settings::{Settings, Watch};
use crate::source::{Answers, ImageKey};

/// What every reconcile is given.
pub struct Context {
    /// The API server.
    pub cluster: Cluster,
    /// Where sources are.
    pub sources: Arc<dyn Answers>,
    /// What registries have.
    pub registries: Arc<dyn registry::Answers>,
    /// What whoever runs the operator decided about specs.
    pub site: Arc<Site>,
    /// The same about pods.
    pub pods: Arc<PodSite>,
    /// All settings.
    pub settings: Arc<Settings>,
    /// What is watched.
    pub scopes: Vec<Scope>,
    /// Jobs as the watches see them, one store for each scope.
    pub jobs: Vec<Store<Job>>,
    /// What is counted.
    pub metrics: Metrics,
    census: Mutex<BTreeMap<ImageKey, ImageState>>,
    /// Tells events about images.
    pub image_events: Recorder,
    /// Tells events about builds.
    pub build_events: Recorder,
    clock: Clock,
}

/// Where the time comes from.
type Clock = Box<dyn Fn() -> Timestamp + Send + Sync>;

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context {
    /// With these handles.
    pub fn new(
        client: Client,
        settings: Arc<Settings>,
        sources: Arc<dyn Answers>,
        metrics: Metrics,
        jobs: Vec<Store<Job>>,
    ) -> Self {
        let recorder = |controller: &str| {
            let reporter = Reporter {
                controller: controller.to_owned(),
                instance: Some(settings.pod_name.clone()),
            };
            Recorder::new(client.clone(), reporter)
        };
        let site = Site {
            allowed: settings.allowed.clone(),
            resources: settings.pods.resources.clone(),
        };
        let proxies = settings.network.proxies.environment();
        let pods = PodSite {
            builder_image: settings.pods.builder_image.clone(),
            pull_secrets: settings.pods.pull_secrets.clone(),
            environment: proxies
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            cluster_ca: settings
                .network
                .ca_pem
                .as_ref()
                .map(|pem| String::from_utf8_lossy(pem).into_owned()),
        };
        Self {
            image_events: recorder("firn.dev/image"),
            build_events: recorder("firn.dev/build"),
            cluster: Cluster::new(client),
            sources,
            registries: Arc::new(registry::Nobody),
            site: Arc::new(site),
            pods: Arc::new(pods),
            scopes: scopes(&settings),
            settings,
            jobs,
            metrics,
            census: Mutex::default(),
            clock: Box::new(wall_clock),
        }
    }

    /// The same with another clock: in model tests, time is a value.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self {
            clock: Box::new(clock),
            ..self
        }
    }

    /// The same with somebody who asks registries.
    #[must_use]
    pub fn with_registries(self, registries: Arc<dyn registry::Answers>) -> Self {
        Self { registries, ..self }
    }

    /// Counts an image, `new` being the status it was given.
    pub fn count(&self, key: &ImageKey, image: &NixImage, new: Option<&NixImageStatus>) {
        let conditions = new
            .or(image.status.as_ref())
            .map_or(&[][..], |status| status.conditions.as_slice());
        let ready = find_condition(conditions, ConditionType::Ready);
        let state = ImageState {
            ready: match ready.map(|condition| condition.status.as_str()) {
                Some("True") => "True",
                Some("False") => "False",
                _ => "Unknown",
            },
            suspended: image.spec.suspend,
            drift: find_condition(conditions, ConditionType::TagDrift)
                .filter(|condition| condition.status == "True")
                .and_then(|condition| condition.reason.parse::<ConditionReason>().ok())
                .map(Into::into),
        };
        let mut census = self.census.lock().unwrap_or_else(PoisonError::into_inner);
        if census.insert(key.clone(), state) != Some(state) {
            self.tell(&census);
        }
    }

    /// An image is gone: nobody polls its source, nobody counts it.
    pub fn forget(&self, key: &ImageKey) {
        self.sources.forget(key);
        self.registries.forget(key);
        let mut census = self.census.lock().unwrap_or_else(PoisonError::into_inner);
        if census.remove(key).is_some() {
            self.tell(&census);
        }
    }

    fn tell(&self, census: &BTreeMap<ImageKey, ImageState>) {
        let mut counts: HashMap<ImageState, i64> = HashMap::new();
        for state in census.values() {
            *counts.entry(*state).or_default() += 1;
        }
        self.metrics.images(counts);
    }

    /// The time. Plans get it as a value.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge where observations get their time"
)]
fn wall_clock() -> Timestamp {
    Timestamp::now()
}

/// All namespaces at once, or each that is served.
pub fn scopes(settings: &Settings) -> Vec<Scope> {
    match &settings.watch {
        Watch::All => vec![Scope(None)],
        Watch::Only(names) => names.iter().map(|name| Scope(Some(name.clone()))).collect(),
    }
}
