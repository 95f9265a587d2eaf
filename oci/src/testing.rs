//! A fake registry for tests: the distribution protocol in memory, with faults on demand and a
//! record of all requests, so that a test can say how many a fast path may take.
//!
//! Not a registry: it checks what a client must get right and forgives nothing else.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::registry::{Limits, Registry, RegistrySettings, SettingsError};
use crate::{Digest, RegistryHost};

mod access;
mod habits;
pub mod parsers;
mod protocol;
mod referrers;
mod uploads;
mod wire;

pub use access::Access;
pub use habits::{Deletions, Habits, Uploads};
use uploads::Session;

/// A registry on a port of this machine. Ends when it is dropped.
#[derive(Debug)]
pub struct FakeRegistry {
    host: RegistryHost,
    shared: Shared,
    server: JoinHandle<()>,
}

type Shared = Arc<Mutex<State>>;

#[derive(Debug, Default)]
struct State {
    host: String,
    access: Access,
    habits: Habits,
    seen: Vec<Seen>,
    faults: VecDeque<Fault>,
    /// By repository and digest.
    blobs: BTreeMap<(String, Digest), Bytes>,
    /// By repository and tag or digest: media type and bytes.
    manifests: BTreeMap<(String, String), (String, Bytes)>,
    /// By number.
    uploads: BTreeMap<u64, Session>,
    /// Tags that somebody wanted to point to something that is not all there.
    dangling: Vec<String>,
    next: u64,
    /// Tokens that were issued and still hold, with their scopes.
    tokens: BTreeMap<String, Vec<String>>,
}

/// A request that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `GET` and so on.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The header `Authorization`.
    pub authorization: Option<String>,
    /// Bytes of the body that were read.
    pub body: usize,
}

/// Something that goes wrong, once, with the first request that fits.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The method it needs.
    pub method: &'static str,
    /// What the path and query must contain.
    pub path: &'static str,
    /// What happens.
    pub answer: Answer,
}

/// What a request gets instead of its answer.
#[derive(Debug, Clone)]
pub enum Answer {
    /// This status, these headers, this body; nothing is done.
    Status(u16, Vec<(&'static str, String)>, &'static str),
    /// It is carried out, and then said to have failed.
    DoneBut(u16),
    /// The ordinary answer with another `Location`.
    Location(String),
    /// The ordinary answer with another status.
    StatusOnly(u16),
    /// After so many bytes of the request's body: this status, and the connection is closed.
    AfterBytes(usize, u16),
    /// The ordinary answer, cut off in the middle of its body.
    Truncated,
    /// No answer, ever.
    Silence,
    /// The body of the request is not read, nor is it answered.
    Deafness,
    /// After so many bytes of the request's body; it is not carried out.
    Before(usize, Harm),
    /// It is carried out, and so many bytes of its answer (with its head) get through.
    After(usize, Harm),
}

/// How a request is spoiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// The connection is reset.
    Reset,
    /// Nothing comes any more.
    Hang,
    /// This status instead of the answer, with what belongs to it (a challenge, a pause of no
    /// time). An answer of which some bytes get through is cut off in its body.
    Status(u16),
    /// The connection ends as if all had been said.
    Close,
}

impl FakeRegistry {
    /// Starts an open registry on a free port.
    ///
    /// # Errors
    /// No port is to be had.
    pub async fn start() -> io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let host = address.parse().map_err(io::Error::other)?;
        let shared = Shared::default();
        lock(&shared).host = address;
        let service = axum::Router::new()
            .fallback(protocol::answer)
            .with_state(Arc::clone(&shared))
            .into_make_service_with_connect_info::<wire::Wire>();
        let server = tokio::spawn(async move {
            // Ends with the task.
            let _ = axum::serve(wire::Ports(listener), service).await;
        });
        Ok(Self {
            host,
            shared,
            server,
        })
    }

    /// Where it is.
    pub const fn host(&self) -> &RegistryHost {
        &self.host
    }

    /// Settings for a client of it, anonymous, with short pauses between retries.
    pub fn settings(&self) -> RegistrySettings {
        RegistrySettings {
            plain_http: true,
            limits: Limits {
                first_pause: std::time::Duration::from_millis(2),
                ..Limits::default()
            },
            ..RegistrySettings::new(self.host.clone())
        }
    }

    /// An anonymous client of it.
    ///
    /// # Errors
    /// See [`Registry::new`].
    pub fn client(&self) -> Result<Registry, SettingsError> {
        Registry::new(self.settings())
    }

    /// Who may do what from now on.
    pub fn set_access(&self, access: Access) {
        self.lock().access = access;
    }

    /// What kind of registry it is from now on.
    pub fn set_habits(&self, habits: Habits) {
        self.lock().habits = habits;
    }

    /// Tokens that were issued hold no more.
    pub fn expire_tokens(&self) {
        self.lock().tokens.clear();
    }

    /// Queues a fault; the first one that fits a request is used up by it.
    pub fn fault(&self, method: &'static str, path: &'static str, answer: Answer) {
        self.lock().faults.push_back(Fault {
            method,
            path,
            answer,
        });
    }

    /// Faults that no request has met yet: a test that expects one can see that it happened.
    pub fn faults_left(&self) -> usize {
        self.lock().faults.len()
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// How many requests of this method had a path and query that contain this.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.lock()
            .seen
            .iter()
            .filter(|seen| seen.method == method && seen.path.contains(path))
            .count()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.lock().seen.clear();
    }

    /// A blob as it is stored.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        let key = (repository.to_owned(), *digest);
        self.lock().blobs.get(&key).cloned()
    }

    /// Stores a blob.
    pub fn put_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.lock()
            .blobs
            .insert((repository.to_owned(), digest), bytes);
        digest
    }

    /// Stores other bytes under a digest, as a disk that rots does.
    pub fn spoil_blob(&self, repository: &str, digest: Digest, bytes: impl Into<Bytes>) {
        let key = (repository.to_owned(), digest);
        self.lock().blobs.insert(key, bytes.into());
    }

    /// Removes a blob, as a garbage collection does.
    pub fn remove_blob(&self, repository: &str, digest: &Digest) {
        self.lock().blobs.remove(&(repository.to_owned(), *digest));
    }

    /// Removes a manifest, by tag or digest.
    pub fn remove_manifest(&self, repository: &str, name: &str) {
        let key = (repository.to_owned(), name.to_owned());
        self.lock().manifests.remove(&key);
    }

    /// Stores a manifest under a tag and its digest, whatever it points to.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) {
        let mut state = self.lock();
        for name in [tag.to_owned(), Digest::of(bytes).to_string()] {
            let stored = (media_type.to_owned(), Bytes::copy_from_slice(bytes));
            state
                .manifests
                .insert((repository.to_owned(), name), stored);
        }
    }

    /// Tags that somebody wanted to point to something that was not all there. It was refused, unless
    /// the registry does not look.
    pub fn dangling(&self) -> Vec<String> {
        self.lock().dangling.clone()
    }

    /// Whether all that any tag leads to is there.
    pub fn is_whole(&self) -> bool {
        let state = self.lock();
        state.manifests.iter().all(|((repository, _), (_, bytes))| {
            protocol::missing(&state, repository, bytes).is_none()
        })
    }

    /// A manifest as it is stored, by tag or digest.
    pub fn manifest(&self, repository: &str, name: &str) -> Option<Bytes> {
        let key = (repository.to_owned(), name.to_owned());
        self.lock()
            .manifests
            .get(&key)
            .map(|(_, bytes)| bytes.clone())
    }

    /// Upload sessions that were neither committed nor cancelled.
    pub fn open_uploads(&self) -> usize {
        self.lock().uploads.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.shared)
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
