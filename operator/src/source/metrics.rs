//! What polls count.

use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::SourceFailure;
use super::poller::{Found, Poller};

/// One counter per result.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    polls: Family<Labels, Counter>,
}

/// `Found`, `Incomplete`, or a failure's kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

impl Metrics {
    /// Counts a poll.
    pub(crate) fn polled(&self, result: &Result<Found, SourceFailure>) {
        let result = match result {
            Ok(Found {
                incomplete: None, ..
            }) => "Found",
            Ok(_) => "Incomplete",
            Err(failure) => failure.kind.into(),
        };
        self.polls.get_or_create(&Labels { result }).inc();
    }
}

/// Registers what `poller` counts.
pub(crate) fn register(poller: &Arc<Poller>, registry: &mut Registry) {
    registry.register(
        "source_polls",
        "Polls of sources by result",
        poller.metrics().polls.clone(),
    );
    registry.register_collector(Box::new(OldestSuccess(Arc::downgrade(poller))));
}

/// Asked when scraped: an age cannot be kept.
#[derive(Debug)]
struct OldestSuccess(Weak<Poller>);

impl Collector for OldestSuccess {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let age = self
            .0
            .upgrade()
            .map(|poller| poller.oldest_success())
            .unwrap_or_default();
        let gauge = ConstGauge::new(age.as_secs_f64());
        let encoder = encoder.encode_descriptor(
            "source_oldest_success",
            "Age of the successful poll that lies back furthest among all images",
            Some(&Unit::Seconds),
            gauge.metric_type(),
        )?;
        gauge.encode(encoder)
    }
}
