//! What the registry has of what was published: its digest and its tags, asked in the background, so
//! that no reconcile ever waits for a registry. Only read: all writes to a registry happen in pods.
//!
//! ```text
//! reconcile ──observe──▶ Registries ──one task per image──▶ gate (16 at once, 4 per host) ──▶ HEAD
//!     ▲                      │ last answer                                                     │
//!     └──────changes()───────┘◀───────────────── another answer than before ◀─────────────────┘
//! ```
//!
//! Not in it: whether an answer is a drift and what follows (`image::drift`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;

use crate::metrics::Metrics;
use crate::settings::Network;
use crate::source::{ImageKey, SourceFailure};

mod checker;
mod look;

/// What a reconcile wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// `registry.example/web`.
    pub repository: String,
    /// `sha256:…`
    pub digest: String,
    /// Tags that were moved to it.
    pub tags: Vec<String>,
    /// Number of the build that published or tagged last: what was found before it says nothing
    /// about what it left.
    pub since: i64,
    /// How the registry is reached.
    pub access: Access,
    /// Time between two checks.
    pub interval: Duration,
    /// A person's request to look again: a new one is looked at now.
    pub asked: Option<String>,
}

/// How a registry is reached: as the push does it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Secret of the type `kubernetes.io/dockerconfigjson`.
    pub secret: Option<String>,
    /// `ConfigMap` and key of a PEM bundle trusted besides the others.
    pub ca: Option<(String, String)>,
    /// http instead of https.
    pub plain_http: bool,
}

/// What is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Whether the digest is.
    pub digest: bool,
    /// Where each tag points; `None`: it is not there.
    pub tags: BTreeMap<String, Option<String>>,
}

/// What is known about what was published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Observation {
    /// Nobody asked since it was published, or nobody wants to know.
    #[default]
    Pending,
    /// The registry answered.
    Found(Found),
    /// It did not, or not to us: nothing is known. The words are the same as long as the cause is.
    Unknown(SourceFailure),
}

/// Whoever knows what registries have: [`Registries`], and in tests a value.
pub trait Answers: fmt::Debug + Send + Sync {
    /// What is known. Never waits.
    fn observe(&self, image: &ImageKey, query: &Query) -> Observation;

    /// Nobody wants to know about this image any more.
    fn forget(&self, image: &ImageKey);
}

/// Nothing is ever known.
#[derive(Debug, Clone, Copy)]
pub struct Nobody;

impl Answers for Nobody {
    fn observe(&self, _: &ImageKey, _: &Query) -> Observation {
        Observation::Pending
    }

    fn forget(&self, _: &ImageKey) {}
}

/// All registries of all images. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registries {
    checker: Arc<checker::Checker>,
}

impl Registries {
    /// Reads Secrets and `ConfigMaps` with `client`, trusts what `network` says, and goes through
    /// the proxies of the environment.
    pub fn new(client: kube::Client, network: &Network, metrics: Metrics) -> Self {
        let servers = look::Servers::new(client, network.ca_pem.clone());
        Self {
            checker: checker::Checker::new(Arc::new(servers), metrics),
        }
    }

    /// Images about which something else is known than before. One consumer.
    pub fn changes(&self) -> impl Stream<Item = ImageKey> + Send + 'static {
        self.checker.changes()
    }
}

impl Answers for Registries {
    /// The first call, and each with another question, starts asking; must be called within a tokio
    /// runtime.
    fn observe(&self, image: &ImageKey, query: &Query) -> Observation {
        self.checker.observe(image, query)
    }

    fn forget(&self, image: &ImageKey) {
        self.checker.forget(image);
    }
}
