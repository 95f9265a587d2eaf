//! How many of one kind, polls of sources or looks at registries, run at once: 16 in all, 4 per host, and 1 for a host that did not answer last
//! time. So a dead host, waited for until its timeout, takes one place of the 16 and blocks nobody.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Polls at once.
const POLLS_MAX: usize = 16;
/// Polls of one host at once.
const HOST_MAX: usize = 4;

/// Lets polls through.
#[derive(Debug)]
pub(crate) struct Gate {
    all: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

#[derive(Debug)]
struct Host {
    polls: Arc<Semaphore>,
    single: Arc<Semaphore>,
    silent: AtomicBool,
}

/// A poll's place; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Place {
    host: Arc<Host>,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Place {
    /// How the host behaved.
    pub(crate) fn was_silent(&self, silent: bool) {
        self.host.silent.store(silent, Ordering::Relaxed);
    }
}

impl Gate {
    /// Nobody is in yet.
    pub(crate) fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(POLLS_MAX)),
            hosts: Mutex::default(),
        }
    }

    /// Waits for a place at this host. `None`: never, the semaphores are not closed.
    pub(crate) async fn enter(&self, host: &str) -> Option<Place> {
        let host = self.host(host);
        let mut permits = Vec::with_capacity(3);
        // The host's first: who waits for a slow host must not keep a place of all.
        if host.silent.load(Ordering::Relaxed) {
            permits.push(Arc::clone(&host.single).acquire_owned().await.ok()?);
        }
        permits.push(Arc::clone(&host.polls).acquire_owned().await.ok()?);
        permits.push(Arc::clone(&self.all).acquire_owned().await.ok()?);
        Some(Place {
            host,
            _permits: permits,
        })
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        // Bounded by the hosts in use: what nobody polls right now, and answers, is forgotten.
        if hosts.len() > 1024 {
            hosts.retain(|_, host| {
                Arc::strong_count(host) > 1 || host.silent.load(Ordering::Relaxed)
            });
        }
        let host = hosts.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Host {
                polls: Arc::new(Semaphore::new(HOST_MAX)),
                single: Arc::new(Semaphore::new(1)),
                silent: AtomicBool::new(false),
            })
        });
        Arc::clone(host)
    }
}
