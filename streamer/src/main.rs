//! `firn-streamer`: the program of a build pod. See the library for what it does.

use std::process::ExitCode;

use clap::Parser as _;
use firn_streamer::settings::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    firn_streamer::telemetry::start(arguments.log_format);
    ExitCode::from(firn_streamer::run::run(arguments))
}
