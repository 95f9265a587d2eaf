//! Events that people see in `kubectl describe`: one per transition. Plans say which; this module
//! publishes them.

use firn_crd::event::EventReason;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{self, EventType, Recorder};

/// Longest note that the API server takes, in bytes.
const NOTE_MAX: usize = 1024;

/// Something worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The stable word; it says too whether somebody should look.
    pub reason: EventReason,
    /// What it is about, such as the build's name. The recorder merges events that differ in
    /// nothing but the note, so each build has its own.
    pub action: String,
    /// For people.
    pub note: String,
}

impl Event {
    /// An event.
    pub fn new(reason: EventReason, action: impl Into<String>, note: impl Into<String>) -> Self {
        Self {
            reason,
            action: action.into(),
            note: note.into(),
        }
    }
}

/// Publishes events in their order. One that cannot be published is logged and forgotten: status
/// says the same.
pub async fn publish(recorder: &Recorder, about: &ObjectReference, events: &[Event]) {
    for event in events {
        let published = events::Event {
            type_: if event.reason.is_warning() {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: event.reason.to_string(),
            note: Some(firn_crd::report::first_bytes(&event.note, NOTE_MAX).to_owned()),
            action: event.action.clone(),
            secondary: None,
        };
        let call = recorder.publish(&published, about);
        match tokio::time::timeout(crate::apply::CALL_TIMEOUT, call).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(reason = %event.reason, %error, "failed to publish an event");
            }
            Err(_) => tracing::warn!(reason = %event.reason, "failed to publish an event in time"),
        }
    }
}
