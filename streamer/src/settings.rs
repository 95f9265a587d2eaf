//! What the process was told: command line and environment, read once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use firn_crd::exit::Reason;
use firn_crd::pod;
use firn_crd::run::{CONTRACTS, RUN_MAX, Run};
use serde::Deserialize;

use crate::failure::{Failure, Result};
use crate::local::{InspectArguments, LoadArguments, PlanArguments, PushArguments};
use crate::paths::Paths;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "firn-streamer", version, about, long_about = None)]
pub struct Arguments {
    /// What this container does.
    #[command(subcommand)]
    pub command: Command,
    /// Directory that stands for the pod's `/`, except for programs.
    #[arg(long, env = "FIRN_ROOT", default_value = "/", global = true)]
    pub root: PathBuf,
    /// Format of the log on standard error.
    #[arg(
        long,
        env = "FIRN_LOG_FORMAT",
        default_value = "compact",
        global = true
    )]
    pub log_format: LogFormat,
}

/// Format of the log on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One short line per event.
    Compact,
    /// One JSON object per event.
    Json,
}

/// What a container does.
#[derive(Debug, Clone, Subcommand, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Command {
    /// May we push there, and is what is published still there?
    Check,
    /// Get the source and the flake's inputs.
    Fetch,
    /// Evaluate and build the flake's package.
    Build,
    /// Make layers and push the image, then move the tags. In a pod nothing else is said.
    Push(Box<PushArguments>),
    /// Move tags to an image that is in the registry already.
    Publish,
    /// Tell what the layers of an image would be, and why; without a cluster.
    Plan(Box<PlanArguments>),
    /// Tell what an image in a registry is made of; without a cluster.
    Inspect(Box<InspectArguments>),
    /// Make an image and leave it on this machine; without a cluster.
    Load(Box<LoadArguments>),
}

/// Everything a subcommand needs to know from outside.
#[derive(Debug)]
pub struct Settings {
    /// The orders.
    pub run: Run,
    /// Where things are.
    pub paths: Paths,
    /// Proxy variables, for programs that are started.
    pub proxies: BTreeMap<String, String>,
    /// `PATH`, for programs that are started.
    pub search_path: String,
    /// The cluster's own CA certificates.
    pub cluster_ca: PathBuf,
    /// The system's CA certificates, if there are any.
    pub system_ca: Option<PathBuf>,
    /// The container's memory limit in bytes, for messages.
    pub memory_limit: Option<u64>,
}

/// Variables that programs understand as proxies, in both spellings that are in use.
const PROXIES: [&str; 8] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
];

/// Where distributions keep the certificates they trust.
const SYSTEM_CA: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/certs/ca-bundle.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

impl Settings {
    /// Reads the environment. Fails as `InternalError` if operator and builder image do not
    /// understand each other.
    pub fn read(root: PathBuf) -> Result<Self> {
        let paths = Paths::new(root);
        let run = parse_run(&variable(pod::ENV_RUN).unwrap_or_default())?;
        let cluster_ca = variable(pod::ENV_CLUSTER_CA)
            .map_or_else(|| paths.at(pod::CLUSTER_CA).join("ca.crt"), PathBuf::from);
        let system_ca = variable("SSL_CERT_FILE")
            .map(PathBuf::from)
            .into_iter()
            .chain(SYSTEM_CA.iter().map(PathBuf::from))
            .find(|file| file.is_file());
        Ok(Self {
            run,
            paths,
            proxies: PROXIES
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), variable(name)?)))
                .collect(),
            search_path: variable("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
            cluster_ca,
            system_ca,
            memory_limit: variable(pod::ENV_MEMORY_LIMIT).and_then(|limit| limit.parse().ok()),
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the environment is read"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Reads the run; the contract first, since another version may look different.
fn parse_run(json: &str) -> Result<Run> {
    #[derive(Deserialize)]
    struct Version {
        contract: u32,
    }
    let broken = |what: String| {
        Failure::new(
            Reason::InternalError,
            format!("the environment variable {} {what}", pod::ENV_RUN),
        )
    };
    if json.is_empty() {
        return Err(broken(
            "is not set: in a pod the operator sets it; without a cluster say what to push, and `--to` where"
                .into(),
        ));
    }
    if json.len() > RUN_MAX {
        return Err(broken(format!(
            "has {} bytes; at most {RUN_MAX} are read",
            json.len()
        )));
    }
    let version: Version = serde_json::from_str(json)
        .map_err(|error| broken(format!("does not name a contract: {error}")))?;
    if !CONTRACTS.contains(&version.contract) {
        return Err(Failure::new(
            Reason::InternalError,
            format!(
                "the operator speaks contract {}, this builder image contracts {} to {}: \
                 let both be of the same version of Firn",
                version.contract,
                CONTRACTS.start(),
                CONTRACTS.end()
            ),
        ));
    }
    serde_json::from_str(json).map_err(|error| broken(format!("cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn another_contract_is_refused_with_both_versions() {
        let failure = parse_run(r#"{"contract":7,"orders":"in another language"}"#).unwrap_err();
        assert_eq!(failure.reason(), Reason::InternalError);
        let message = &failure.0.message;
        assert!(
            message.contains("contract 7") && message.contains("contracts 1 to 3"),
            "{message}"
        );
    }

    #[test]
    fn a_run_that_is_no_run_is_refused() {
        for json in ["", "{}", r#"{"contract":1}"#, "nonsense"] {
            assert_eq!(
                parse_run(json).unwrap_err().reason(),
                Reason::InternalError,
                "{json}"
            );
        }
    }
}
