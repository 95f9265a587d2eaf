//! Logs: JSON in a cluster, compact on a terminal, on standard error. Fields are `image namespace
//! generation revision build job digest`; values of Secrets never reach a log, because the types
//! that hold them print nothing.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::settings::{LogFormat, Settings};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is malformed.
    #[error(
        "--log {filter:?} is no log filter: give a level (info) or directives (info,kube=warn)"
    )]
    ParseFilter {
        /// The filter.
        filter: String,
        /// Why.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logging was set up before.
    #[error("failed to set up logging twice")]
    Init(#[source] TryInitError),
}

/// Starts logging for the whole process.
pub fn init(settings: &Settings) -> Result<(), TelemetryError> {
    let filter =
        EnvFilter::try_new(&settings.log).map_err(|source| TelemetryError::ParseFilter {
            filter: settings.log.clone(),
            source,
        })?;
    let registry = tracing_subscriber::registry().with(filter);
    let json = match settings.log_format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Json => true,
        LogFormat::Compact => false,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if json {
        registry
            .with(
                layer
                    .json()
                    .flatten_event(true)
                    .with_current_span(true)
                    .with_span_list(false),
            )
            .try_init()
    } else {
        registry.with(layer.compact()).try_init()
    }
    .map_err(TelemetryError::Init)
}
