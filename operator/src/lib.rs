//! The operator: it observes images, sources and Jobs, plans in pure functions, and acts on the
//! cluster. It never opens a layer and never writes to a registry.

pub mod apply;
mod asking;
pub mod backoff;
pub mod build;
pub mod context;
pub mod controllers;
pub mod error;
pub mod events;
pub mod history;
pub mod hooks;
pub mod image;
pub mod lease;
pub mod metrics;
pub mod process;
pub mod registry;
pub mod server;
pub mod settings;
pub mod source;
pub mod telemetry;
