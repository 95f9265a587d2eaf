//! What both controllers share: what is watched, how much is done at once, and what an error means.
//!
//! ```text
//! NixImage (spec, annotations) ─┐                      NixImageBuild (spec) ─┐
//! NixImageBuild ── owner ───────┼─▶ image controller   Job ── owner ─────────┼─▶ build controller
//! Sources::changes ─────────────┘                      Pod ── label ─────────┤
//!                                                      a Job's end ──────────┘ (queued builds)
//! ```
//!
//! Watches keep only what wakes or counts: metadata of everything, and of Jobs what the queue is
//! made of. What is decided upon is read again, object by object: one that cannot be read stops
//! nothing but itself.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::api::Api;
use kube::runtime::controller::{Action, Config};
use kube::runtime::utils::Backoff;
use kube::{Client, Resource, ResourceExt};
use tokio::sync::watch;

use crate::backoff;
use crate::error::Error;
use crate::source::ImageKey;

/// Objects that are reconciled at once, of each kind: an API server's fair share, and bounded memory.
const CONCURRENCY: u16 = 16;
/// One change of a Job comes as several events.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// No pause for a whole controller when one of its watches fails: each watch has its own. kube's
/// pause doubles with each error of any of them and stops them all meanwhile, so that after an API
/// server's restart of three seconds nothing woke a controller for up to a minute.
#[derive(Debug)]
pub struct EachWatchPauses;

impl Iterator for EachWatchPauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

impl Backoff for EachWatchPauses {
    fn reset(&mut self) {}
}

/// What is watched: one namespace, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope(pub Option<String>);

impl Scope {
    /// Access to the objects of a kind.
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match &self.0 {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        }
    }

    fn holds(&self, namespace: &str) -> bool {
        self.0.as_deref().is_none_or(|own| own == namespace)
    }
}

/// Sends each scope's share of the sources' changes to its controller. The future ends with the
/// stream.
pub fn fan_out(
    changes: impl Stream<Item = ImageKey> + Send + 'static,
    scopes: &[Scope],
) -> (
    impl Future<Output = ()> + Send + 'static,
    Vec<UnboundedReceiver<ImageKey>>,
) {
    // Unbounded, but it flows into a controller's queue, which keeps each object once.
    let (senders, receivers): (Vec<UnboundedSender<ImageKey>>, Vec<_>) =
        scopes.iter().map(|_| mpsc::unbounded()).unzip();
    let scopes = scopes.to_vec();
    let pump = changes.for_each(move |key| {
        for (scope, sender) in scopes.iter().zip(&senders) {
            if scope.holds(&key.namespace) {
                // A controller that ended does not want to know.
                drop(sender.unbounded_send(key.clone()));
            }
        }
        std::future::ready(())
    });
    (pump, receivers)
}

/// How much at once.
pub fn config() -> Config {
    Config::default()
        .concurrency(CONCURRENCY)
        .debounce(DEBOUNCE)
}

/// Drops what nobody reads: a quarter of an object's bytes.
pub fn trim(object: &mut impl ResourceExt) {
    object.managed_fields_mut().clear();
    object
        .annotations_mut()
        .remove("kubectl.kubernetes.io/last-applied-configuration");
}

/// Ends when `stop` turns true, or nobody is left who could turn it.
pub async fn stopped(mut stop: watch::Receiver<bool>) {
    // The error says that the sender is gone: the process ends.
    drop(stop.wait_for(|stop| *stop).await);
}

/// How long until that time; none if it has passed.
pub fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

/// After this, what changed while it was being observed is observed again: whoever changed it may
/// not be done.
pub const OUTDATED: Duration = Duration::from_secs(1);

/// Look again after that time, or when something changes.
pub fn look_again(pause: Option<Duration>) -> Action {
    pause.map_or_else(Action::await_change, Action::requeue)
}

/// How often each object's reconcile failed in a row. Holds the failing ones only.
#[derive(Debug, Default)]
pub struct Errors {
    failing: Mutex<BTreeMap<String, u32>>,
}

impl Errors {
    /// It went well.
    pub fn forget(&self, object: &str) {
        self.failing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(object);
    }

    /// It failed: when to try again.
    pub fn pause(&self, object: &str, error: &Error) -> Action {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failing.entry(object.to_owned()).or_default();
        *count = count.saturating_add(1);
        let pause = backoff::API.delay(*count, object);
        tracing::warn!(
            object,
            category = error.category(),
            error = chain(error),
            retry_in = pause.as_secs(),
            "failed to reconcile"
        );
        Action::requeue(pause)
    }
}

/// An error with its causes, on one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// `namespace/name`, for logs.
pub fn name_of(object: &impl ResourceExt) -> String {
    format!(
        "{}/{}",
        object.namespace().unwrap_or_default(),
        object.name_any()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_wait_longer_and_a_success_forgets_them() {
        let errors = Errors::default();
        let error = Error::Incomplete {
            kind: "NixImage",
            name: "web".into(),
            field: "metadata.uid",
        };
        let first = errors.pause("ns/web", &error);
        let second = errors.pause("ns/web", &error);
        assert_ne!(first, second);
        errors.forget("ns/web");
        assert_eq!(errors.pause("ns/web", &error), first);
    }

    #[tokio::test]
    async fn each_scope_hears_of_its_own_images() {
        let key = |namespace: &str| ImageKey {
            namespace: namespace.into(),
            name: "web".into(),
        };
        let scopes = [Scope(Some("a".into())), Scope(None)];
        let (pump, receivers) = fan_out(futures::stream::iter([key("a"), key("b")]), &scopes);
        pump.await;
        let mut heard = Vec::new();
        for receiver in receivers {
            heard.push(receiver.map(|key| key.namespace).collect::<Vec<_>>().await);
        }
        assert_eq!(heard, [vec!["a".to_owned()], vec!["a".into(), "b".into()]]);
    }
}
