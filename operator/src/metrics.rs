//! What the controllers count. Polls of sources are counted where they happen
//! ([`crate::source::Sources::register`]). Labels are closed sets: no object's name is ever one,
//! so the number of series does not grow with the cluster. Names, types and meanings are listed
//! in `docs/reference/metrics.md`; a test compares both.

use std::time::Duration;

use firn_crd::build_status::BuildOutcome;
use firn_crd::exit::Reason;
use firn_crd::report::{Pushed, Stage};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// Seconds: from a stage that only looked to the longest build that is usual.
const STAGE_BUCKETS: [f64; 12] = [
    1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 2400.0, 3600.0, 7200.0,
];
/// Seconds: from a free slot to an hour in the queue.
const QUEUE_BUCKETS: [f64; 10] = [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];
/// Seconds: a reconcile that reads caches to one that waits for the API server.
const RECONCILE_BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// An empty registry in which every name begins with `firn_`.
pub fn registry() -> Registry {
    Registry::with_prefix("firn")
}

/// The controllers' metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    images: Family<ImageLabels, Gauge>,
    drift: Family<DriftLabels, Gauge>,
    checks: Family<CheckLabels, Counter>,
    builds: Family<BuildLabels, Counter>,
    builds_running: Gauge,
    queue_depth: Gauge,
    stages: Family<StageLabels, Histogram, Buckets>,
    queue: Histogram,
    rampup: Histogram,
    push_bytes: Counter,
    layers: Family<LayerLabels, Counter>,
    retries: Family<RetryLabels, Counter>,
    reconciles: Family<KindLabels, Histogram, Buckets>,
    errors: Family<ErrorLabels, Counter>,
    leader: Gauge,
}

/// Which controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Controller {
    /// The one of `NixImage`.
    NixImage,
    /// The one of `NixImageBuild`.
    NixImageBuild,
}

/// A way for an image to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageState {
    /// Status of its condition Ready: `True`, `False` or `Unknown`.
    pub ready: &'static str,
    /// `spec.suspend`.
    pub suspended: bool,
    /// What the registry has other than what was published: the reason of its condition
    /// `TagDrift`.
    pub drift: Option<&'static str>,
}

/// A retry's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Within the Job.
    Fast,
    /// By a build of its own.
    Slow,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ImageLabels {
    ready: &'static str,
    suspended: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DriftLabels {
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    outcome: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LayerLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetryLabels {
    reason: &'static str,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: Controller,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    kind: Controller,
    category: &'static str,
}

/// Makes the histograms of a family.
#[derive(Debug, Clone, Copy)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            images: Family::default(),
            drift: Family::default(),
            checks: Family::default(),
            builds: Family::default(),
            builds_running: Gauge::default(),
            queue_depth: Gauge::default(),
            stages: Family::new_with_constructor(Buckets(&STAGE_BUCKETS)),
            queue: Histogram::new(QUEUE_BUCKETS),
            rampup: Histogram::new(QUEUE_BUCKETS),
            push_bytes: Counter::default(),
            layers: Family::default(),
            retries: Family::default(),
            reconciles: Family::new_with_constructor(Buckets(&RECONCILE_BUCKETS)),
            errors: Family::default(),
            leader: Gauge::default(),
        };
        let m = &metrics;
        registry.register("images", "Images by readiness", m.images.clone());
        registry.register(
            "drift",
            "Images of which the registry has something else than was published",
            m.drift.clone(),
        );
        registry.register(
            "registry_checks",
            "Looks whether the registry has what was published, by result",
            m.checks.clone(),
        );
        registry.register("builds", "Builds that ended", m.builds.clone());
        registry.register(
            "builds_running",
            "Builds that hold a slot",
            m.builds_running.clone(),
        );
        registry.register(
            "queue_depth",
            "Builds that wait for a slot",
            m.queue_depth.clone(),
        );
        let seconds = || Unit::Seconds;
        registry.register_with_unit(
            "build_duration",
            "Time by stage of builds",
            seconds(),
            m.stages.clone(),
        );
        registry.register_with_unit(
            "queue",
            "Time until a build has a slot",
            seconds(),
            m.queue.clone(),
        );
        registry.register_with_unit(
            "rampup",
            "Time from a Job's start until its pod runs",
            seconds(),
            m.rampup.clone(),
        );
        registry.register_with_unit(
            "push",
            "Sent to registries",
            Unit::Bytes,
            m.push_bytes.clone(),
        );
        registry.register(
            "layers",
            "Layers of pushed images by what was done",
            m.layers.clone(),
        );
        registry.register("retries", "Attempts after a failure", m.retries.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "Time of one reconcile",
            seconds(),
            m.reconciles.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Reconciles that could not finish",
            m.errors.clone(),
        );
        registry.register(
            "leader",
            "1 while this process holds the lease",
            m.leader.clone(),
        );
        let info = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What runs", info);
        metrics
    }

    /// How many images are in each state; states that are not given have none.
    pub fn images(&self, counts: impl IntoIterator<Item = (ImageState, i64)>) {
        self.images.clear();
        self.drift.clear();
        for (state, count) in counts {
            let suspended = if state.suspended { "true" } else { "false" };
            let labels = ImageLabels {
                ready: state.ready,
                suspended,
            };
            self.images.get_or_create(&labels).inc_by(count);
            if let Some(r#type) = state.drift {
                let labels = DriftLabels { r#type };
                self.drift.get_or_create(&labels).inc_by(count);
            }
        }
    }

    /// A registry was asked what it has: `Found`, or why it did not say.
    pub fn checked(&self, result: &'static str) {
        self.checks.get_or_create(&CheckLabels { result }).inc();
    }

    /// A build ended. `reason`: of what did not go well.
    pub fn build_ended(&self, outcome: BuildOutcome, reason: Option<Reason>) {
        let labels = BuildLabels {
            outcome: outcome.into(),
            reason: reason.map_or("", Into::into),
        };
        self.builds.get_or_create(&labels).inc();
    }

    /// How long a pod's stages took.
    pub fn stages(&self, stages: &[Stage]) {
        for stage in stages {
            let labels = StageLabels {
                stage: stage.name.into(),
            };
            let length = u64::try_from(stage.millis).map(Duration::from_millis);
            self.stages
                .get_or_create(&labels)
                .observe(length.unwrap_or_default().as_secs_f64());
        }
    }

    /// An image is in the registry.
    pub fn pushed(&self, pushed: &Pushed) {
        self.push_bytes
            .inc_by(u64::try_from(pushed.bytes_pushed).unwrap_or(0));
        for (kind, count) in [
            ("pushed", pushed.layers_pushed),
            ("mounted", pushed.layers_mounted),
            ("reused", pushed.layers_reused),
        ] {
            let count = u64::try_from(count).unwrap_or(0);
            self.layers
                .get_or_create(&LayerLabels { kind })
                .inc_by(count);
        }
    }

    /// A failure is tried again.
    pub fn retried(&self, reason: Reason, kind: Retry) {
        let kind = match kind {
            Retry::Fast => "fast",
            Retry::Slow => "slow",
        };
        self.retries
            .get_or_create(&RetryLabels {
                reason: reason.into(),
                kind,
            })
            .inc();
    }

    /// How many builds run and how many wait.
    pub fn queue(&self, running: usize, waiting: usize) {
        self.builds_running
            .set(i64::try_from(running).unwrap_or(i64::MAX));
        self.queue_depth
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// A build waited so long for its slot.
    pub fn waited(&self, queue: Duration) {
        self.queue.observe(queue.as_secs_f64());
    }

    /// A pod runs, so long after its Job was let go.
    pub fn ramped_up(&self, rampup: Duration) {
        self.rampup.observe(rampup.as_secs_f64());
    }

    /// A reconcile ended; `error`: the category of what kept it from finishing.
    pub fn reconciled(&self, kind: Controller, took: Duration, error: Option<&'static str>) {
        self.reconciles
            .get_or_create(&KindLabels { kind })
            .observe(took.as_secs_f64());
        if let Some(category) = error {
            self.errors
                .get_or_create(&ErrorLabels { kind, category })
                .inc();
        }
    }

    /// Whether this process holds the lease.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }
}
