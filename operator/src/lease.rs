//! Which of several operators acts: the one that holds a `Lease`. The others are ready and wait.
//!
//! ```text
//! GET ──▶ Memory::decide ──▶ wait, or PUT with the resource version that was read
//! ```
//!
//! Clocks of machines differ, so none of another machine is believed: a lease is over when this
//! process saw no renewal for as long as the lease says, by its own clock that only goes forward. A
//! leader stops earlier than that, counted from before its last renewal was sent. Nothing that is
//! safe depends on it (names and adoption do that): it saves two operators from doing the work of
//! one.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};

mod memory;

pub use memory::{Memory, Moment, Seen, Step};

/// The lease's name, in the operator's own namespace.
const NAME: &str = "firn-operator";
/// Whoever waits takes a lease that was not renewed for this long.
pub const DURATION: Duration = Duration::from_secs(15);
/// Whoever leads and could not renew for this long stops.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest time of one call. The client must not try again by itself: what it would send late is
/// no longer true.
const CALL: Duration = Duration::from_secs(4);

/// This process's part in the election.
#[derive(Debug)]
pub struct Candidate {
    leases: Api<Lease>,
    me: String,
    memory: Memory,
    epoch: Instant,
}

/// Why this process leads no longer.
#[derive(Debug, thiserror::Error)]
#[error(
    "another operator holds the lease, or the API server took no renewal for {} s: ending, so that two do not act",
    PATIENCE.as_secs()
)]
pub struct Lost;

/// What a try came to.
enum Tried {
    Held,
    NotHeld,
    Lost,
}

impl Candidate {
    /// A candidate called `me`, the name of its pod: a process that finds its own name there is the
    /// next life of a container that ended. `client` must not try again by itself.
    pub fn new(client: Client, namespace: &str, me: &str) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            me: me.to_owned(),
            memory: Memory::default(),
            epoch: Instant::now(),
        }
    }

    /// Ends when this process leads.
    pub async fn acquire(&mut self) {
        while !matches!(self.attempt().await, Tried::Held) {
            tokio::time::sleep(PAUSE).await;
        }
        tracing::info!(lease = NAME, holder = self.me, "this operator leads");
    }

    /// Renews the lease; ends when it is lost.
    pub async fn keep(&mut self) -> Lost {
        loop {
            tokio::time::sleep(PAUSE).await;
            let left = self.memory.left(self.now());
            match tokio::time::timeout(left, self.attempt()).await {
                Ok(Tried::Held) => {}
                Ok(Tried::NotHeld) if !self.memory.left(self.now()).is_zero() => {}
                Ok(Tried::NotHeld | Tried::Lost) | Err(_) => return Lost,
            }
        }
    }

    /// Lets another take the lease at once. Nothing of this process may act any more.
    pub async fn release(&mut self) {
        self.memory = Memory::default();
        let Ok(Some(mut lease)) = self.read().await else {
            return;
        };
        let ours = |spec: &&mut LeaseSpec| spec.holder_identity.as_deref() == Some(&self.me);
        let Some(spec) = lease.spec.as_mut().filter(ours) else {
            return;
        };
        spec.holder_identity = None;
        match self.write(&lease).await {
            Ok(()) => tracing::info!(lease = NAME, "lease released"),
            Err(error) => tracing::warn!(%error, "failed to release the lease: it runs out"),
        }
    }

    fn now(&self) -> Moment {
        self.epoch.elapsed()
    }

    async fn attempt(&mut self) -> Tried {
        let began = self.now();
        let lease = match self.read().await {
            Ok(lease) => lease,
            Err(error) => {
                tracing::warn!(error, "failed to read the lease");
                return Tried::NotHeld;
            }
        };
        let seen = lease.as_ref().map(seen);
        let step = self.memory.decide(&self.me, seen.as_ref(), self.now());
        let written = match (step, lease) {
            (Step::Wait, _) => return Tried::NotHeld,
            (Step::Lost, _) => return Tried::Lost,
            (Step::Create, _) | (_, None) => self.create().await,
            (Step::Take, Some(lease)) => self.write(&self.taken(lease)).await,
            (Step::Renew, Some(lease)) => self.write(&renewed(lease)).await,
        };
        match written {
            Ok(()) => {
                self.memory.won(began);
                Tried::Held
            }
            Err(Refused::Conflict) if self.memory.leads() => Tried::Lost,
            Err(Refused::Conflict) => Tried::NotHeld,
            Err(Refused::Other(error)) => {
                tracing::warn!(error, "failed to write the lease");
                Tried::NotHeld
            }
        }
    }

    async fn read(&self) -> Result<Option<Lease>, String> {
        match tokio::time::timeout(CALL, self.leases.get_opt(NAME)).await {
            Ok(lease) => lease.map_err(|error| error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    async fn create(&self) -> Result<(), Refused> {
        let now = MicroTime(wall_clock());
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.me.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            }),
        };
        let params = PostParams::default();
        written(tokio::time::timeout(CALL, self.leases.create(&params, &lease)).await)
    }

    async fn write(&self, lease: &Lease) -> Result<(), Refused> {
        let params = PostParams::default();
        written(tokio::time::timeout(CALL, self.leases.replace(NAME, &params, lease)).await)
    }

    fn taken(&self, lease: Lease) -> Lease {
        let mut lease = renewed(lease);
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(self.me.clone());
            spec.acquire_time = spec.renew_time.clone();
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
        }
        lease
    }
}

/// The time is for people; nothing is decided by it.
fn renewed(mut lease: Lease) -> Lease {
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.renew_time = Some(MicroTime(wall_clock()));
    spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
    lease
}

/// Why a lease was not written.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// Somebody else wrote it since it was read.
    #[error("it changed since it was read")]
    Conflict,
    /// It is not known whether it was written.
    #[error("{0}")]
    Other(String),
}

fn written<T, E>(result: Result<kube::Result<T>, E>) -> Result<(), Refused> {
    match result {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Refused::Conflict),
        Ok(Err(error)) => Err(Refused::Other(error.to_string())),
        Err(_) => Err(Refused::Other("no answer in time".to_owned())),
    }
}

fn seen(lease: &Lease) -> Seen {
    let spec = lease.spec.as_ref();
    Seen {
        version: lease.resource_version().unwrap_or_default(),
        holder: spec
            .and_then(|spec| spec.holder_identity.clone())
            .filter(|holder| !holder.is_empty()),
        duration: spec
            .and_then(|spec| u64::try_from(spec.lease_duration_seconds?).ok())
            .map_or(DURATION, Duration::from_secs),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a time for people who read the lease"
)]
fn wall_clock() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests;
