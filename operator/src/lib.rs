//! The operator: it observes images, sources and Jobs, plans in pure functions, and acts on the
//! cluster. It never opens a layer and never writes to a registry.

pub mod metrics;
pub mod server;
pub mod settings;
pub mod source;
pub mod telemetry;
