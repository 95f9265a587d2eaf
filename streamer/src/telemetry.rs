//! Firn's own log, on standard error. Nix's goes to standard output.

use std::io;

use tracing_subscriber::EnvFilter;

use crate::settings::LogFormat;

/// Begins to log. `RUST_LOG` chooses what; `info` by default.
pub fn start(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    // An error means that somebody else logs already.
    let _ = match format {
        LogFormat::Compact => builder.compact().with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
