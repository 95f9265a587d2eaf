//! Where an image's source is, and what it says now: polled in the background, so that no
//! reconcile ever waits for a git server. A poll asks for one ref (`ls-refs`, in-process) and, when
//! the commit is new, reads the lock file and the object ids of `trigger.paths` with the git
//! program. Nothing here is ever cloned in full.
//!
//! ```text
//! reconcile ──observe──▶ Sources ──one task per image──▶ gate (16 at once, 4 per host) ──▶ Remote
//!     ▲                     │ last answer                                                    │
//!     └──────changes()──────┘◀───────────── new revision, or another failure ◀───────────────┘
//! ```
//!
//! Not in it: whether a new revision means a build (`image::plan`).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use jiff::Timestamp;
use prometheus_client::registry::Registry;

use crate::settings::Network;

mod classify;
pub(crate) mod credentials;
pub mod failure;
mod git_program;
mod http;
mod ls_refs;
mod metrics;
mod pkt_line;
mod poller;
mod remote;
mod semver;
pub mod ssh_program;

pub use credentials::webhook_secret;
pub use failure::{Kind, SourceFailure};

/// Which `NixImage`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageKey {
    /// Its namespace; Secrets and `ConfigMaps` are read there.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A git source as `spec.source.git` describes it, its durations read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Git {
    /// `https://…`, `ssh://…` or `user@host:path`, without credentials.
    pub url: String,
    /// What is looked up there.
    pub target: Target,
    /// Directory of `flake.nix`, relative to the root; `.` is the root.
    pub dir: String,
    /// Secret with `username` and `password`, or `bearerToken`, and optionally `ca.crt`; for ssh,
    /// with `identity` and `known_hosts`.
    pub secret: Option<String>,
    /// `ConfigMap` and key of a PEM bundle trusted besides the others.
    pub ca: Option<(String, String)>,
    /// Secret of those who may hasten a poll.
    pub webhook: Option<String>,
    /// Time between two polls.
    pub interval: Duration,
    /// Longest time for one poll, the lock file's fetch not counted: that has the same again.
    pub timeout: Duration,
}

/// What is looked up in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The remote's HEAD.
    Head,
    /// `refs/heads/<name>`.
    Branch(String),
    /// `refs/tags/<name>`, peeled to its commit.
    Tag(String),
    /// The highest tag in a range of semantic versions.
    Semver(String),
    /// A full commit id: never polled, only its lock file is read once.
    Commit(String),
}

/// What a reconcile wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The source.
    pub git: Git,
    /// `trigger.paths`.
    pub paths: Vec<String>,
    /// The revision in status, if status speaks of this very spec (`observedGeneration` equals
    /// `generation`); `None` otherwise. Saves reading a known commit's lock file after a restart.
    pub known: Option<Revision>,
    /// Value of the `reconcile.firn.dev/requestedAt` annotation: a new value polls now and
    /// forgets the back-off.
    pub asked: Option<String>,
}

/// One commit and what decides whether it means a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// `refs/heads/main`; `None` for a commit given by its id.
    pub reference: Option<String>,
    /// Full commit id.
    pub commit: String,
    /// sha256 of `<dir>/flake.lock`, 64 hex digits. `None`: there is none, or it could not be
    /// read, which [`Observation::Resolved::incomplete`] tells apart.
    pub lock_hash: Option<String>,
    /// sha256 over the object ids of `trigger.paths`, 64 hex digits. `None`: no paths, or not read.
    pub paths_hash: Option<String>,
    /// The committer's time. Data, never an order: it may lie in the future.
    pub commit_time: Option<Timestamp>,
}

/// What is known about a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// No poll of this spec has ended yet.
    Pending,
    /// The last poll found this.
    Resolved {
        /// The commit and its hashes.
        revision: Revision,
        /// When this revision was first seen by this process; stays the same while it does.
        at: Timestamp,
        /// Why the hashes or the commit's time could not be read. `trigger.mode: Revision` and
        /// tags without `${lockHash}` and `${commitDate}` need none of them: such a build goes on.
        /// `LockFile` must treat it as a failure of the source. Tried again like a failed poll.
        incomplete: Option<SourceFailure>,
    },
    /// The last poll failed.
    Failed {
        /// How.
        failure: SourceFailure,
        /// When this failure was first seen; stays the same while its kind and message do.
        at: Timestamp,
    },
}

/// What [`Sources::observe`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// What the last poll said.
    pub observation: Observation,
    /// The last [`Query::asked`] that a poll begun afterwards has answered: what
    /// `status.lastHandledReconcileAt` may say.
    pub answered: Option<String>,
    /// When the next poll is due. Only to be shown: polls happen by themselves, and
    /// [`Sources::changes`] tells what they found.
    pub next_poll: Timestamp,
}

/// Whoever knows what sources say: [`Sources`], and in model tests a world made of values.
pub trait Answers: fmt::Debug + Send + Sync {
    /// What is known about the image's source. Never waits.
    fn observe(&self, image: &ImageKey, query: &Query, now: Timestamp) -> Observed;

    /// Nobody asks for this image any more: it is deleted or suspended.
    fn forget(&self, image: &ImageKey);
}

/// All sources of all images. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sources {
    poller: Arc<poller::Poller>,
}

/// Why sources cannot be polled at all.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// A proxy's URL or the CA bundle is unusable.
    #[error(
        "failed to prepare HTTP clients for git servers: check the proxy settings and the CA file"
    )]
    BuildClient(#[source] reqwest::Error),
    /// git calls the operator's own program as ssh.
    #[error("failed to find the operator's own program")]
    FindProgram(#[source] std::io::Error),
}

impl Sources {
    /// Reads Secrets and `ConfigMaps` with `client` and reaches git servers as `network` says.
    pub fn new(client: kube::Client, network: &Network) -> Result<Self, SourcesError> {
        let operator = std::env::current_exe().map_err(SourcesError::FindProgram)?;
        Self::with(client, network, false, operator)
    }

    /// For tests against servers on this machine.
    #[doc(hidden)]
    pub fn new_with_plain_http(
        client: kube::Client,
        network: &Network,
    ) -> Result<Self, SourcesError> {
        let operator = std::env::current_exe().map_err(SourcesError::FindProgram)?;
        Self::with(client, network, true, operator)
    }

    /// For tests of ssh: git calls the operator's program, which this process is not.
    #[doc(hidden)]
    pub fn new_with_operator(
        client: kube::Client,
        network: &Network,
        operator: PathBuf,
    ) -> Result<Self, SourcesError> {
        Self::with(client, network, false, operator)
    }

    fn with(
        client: kube::Client,
        network: &Network,
        plain_http: bool,
        operator: PathBuf,
    ) -> Result<Self, SourcesError> {
        let http =
            http::Http::new(network.clone(), plain_http).map_err(SourcesError::BuildClient)?;
        let program = git_program::GitProgram::new(network, plain_http, operator);
        let servers = remote::Servers::new(client, http, program, plain_http);
        Ok(Self {
            poller: poller::Poller::new(Arc::new(servers)),
        })
    }

    /// Registers the metrics of polls.
    pub fn register(&self, registry: &mut Registry) {
        metrics::register(&self.poller, registry);
    }

    /// Polls now instead of when it is due: somebody knows of a push. Not for a server that asked
    /// us to wait, and not more often than once in some seconds, after which it is made up for.
    /// Whether the image is polled at all.
    pub fn hasten(&self, image: &ImageKey) -> bool {
        self.poller.hasten(image)
    }

    /// Name of the Secret of those who may hasten its polls. `None`: nobody may, or the image is
    /// not polled.
    pub fn webhook(&self, image: &ImageKey) -> Option<String> {
        self.poller.webhook(image)
    }

    /// Images whose observation changed, for `Controller::reconcile_on`. One consumer.
    pub fn changes(&self) -> impl Stream<Item = ImageKey> + Send + 'static {
        self.poller.changes()
    }
}

impl Answers for Sources {
    /// The first call, and each call with another source, starts polling it; must be called within
    /// a tokio runtime.
    fn observe(&self, image: &ImageKey, query: &Query, now: Timestamp) -> Observed {
        self.poller.observe(image, query, now)
    }

    /// Stops polling for it.
    fn forget(&self, image: &ImageKey) {
        self.poller.forget(image);
    }
}
