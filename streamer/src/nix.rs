//! Nix by its own program: how it is configured, called and understood.

pub mod attribute;
pub mod config;
pub mod exit;
pub mod log;
pub mod path_info;
pub mod question;
pub mod words;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use tokio::time::Instant;

use crate::program::{Finished, Program, ProgramError};
use crate::stop::Stop;
use log::Log;

/// Nix with all that a call needs.
#[derive(Debug)]
pub struct Nix<'a> {
    /// Its whole environment.
    pub environment: BTreeMap<String, OsString>,
    /// Where it runs; nothing is written there.
    pub directory: PathBuf,
    /// When to give up.
    pub deadline: Instant,
    /// When to go.
    pub stop: &'a Stop,
}

impl Nix<'_> {
    /// Runs `nix` with its log in JSON, which `log` takes apart and shows.
    pub async fn run(&self, arguments: &[&str], log: &mut Log) -> Result<Finished, ProgramError> {
        let program = Program {
            name: "nix",
            arguments: ["--log-format", "internal-json"]
                .iter()
                .chain(arguments)
                .map(OsString::from)
                .collect(),
            environment: self.environment.clone(),
            directory: self.directory.clone(),
        };
        program
            .run(self.deadline, self.stop, |line| log.line(line))
            .await
    }
}
