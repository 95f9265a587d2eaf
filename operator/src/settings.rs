//! What whoever runs the operator decides. [`Args`] is what the command line and the environment
//! say, [`Settings`] what it means; every flag has an environment twin, and nothing else reads the
//! environment.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, ValueEnum};

mod resolve;

pub use resolve::SettingsError;

/// Builds container images from Nix flakes inside the cluster.
#[derive(Debug, Clone, Parser)]
#[command(name = "firn-operator", version)]
pub struct Args {
    /// Namespace of the operator itself: its lease is kept there
    #[arg(long, env = "POD_NAMESPACE", default_value = "firn-system")]
    pub namespace: String,
    /// Name of the operator's pod: holder of the lease, reporter of events
    #[arg(long, env = "POD_NAME", default_value = "firn-operator")]
    pub pod_name: String,
    /// Namespaces to serve; empty: all
    #[arg(long, env = "FIRN_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, env = "FIRN_LISTEN", default_value = "[::]:8080")]
    pub listen: SocketAddr,
    /// Where webhooks are served, by which forges tell of pushes; without it nowhere
    #[arg(long, env = "FIRN_WEBHOOK_LISTEN")]
    pub webhook_listen: Option<SocketAddr>,
    /// Log filter: a level, or tracing directives such as `info,firn_operator=debug`
    #[arg(long, env = "FIRN_LOG", default_value = "info")]
    pub log: String,
    /// How log lines look
    #[arg(long, env = "FIRN_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
    /// What build pods are made of.
    #[command(flatten)]
    pub pods: PodArgs,
    /// What specs may ask for.
    #[command(flatten)]
    pub allowed: AllowedArgs,
    /// How much at once.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// How clients reach the world.
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// What build pods are made of.
#[derive(Debug, Clone, ClapArgs)]
#[command(next_help_heading = "Build pods")]
pub struct PodArgs {
    /// Image of the build pods' containers, best given by digest
    #[arg(long, env = "FIRN_BUILDER_IMAGE")]
    pub builder_image: String,
    /// Secrets for pulling the builder image; they must exist in the namespaces of the images
    #[arg(long, env = "FIRN_BUILDER_PULL_SECRETS", value_delimiter = ',')]
    pub builder_pull_secrets: Vec<String>,
    /// CPU that the build container requests, unless the spec says otherwise
    #[arg(long, env = "FIRN_BUILD_CPU_REQUEST", default_value = "500m")]
    pub build_cpu_request: String,
    /// Memory that the build container requests, unless the spec says otherwise
    #[arg(long, env = "FIRN_BUILD_MEMORY_REQUEST", default_value = "1Gi")]
    pub build_memory_request: String,
    /// CPU limit of the build container, unless the spec says otherwise; empty: none
    #[arg(long, env = "FIRN_BUILD_CPU_LIMIT", default_value = "")]
    pub build_cpu_limit: String,
    /// Memory limit of the build container, unless the spec says otherwise; empty: none
    #[arg(long, env = "FIRN_BUILD_MEMORY_LIMIT", default_value = "4Gi")]
    pub build_memory_limit: String,
    /// How long a finished Job and its pods are kept
    #[arg(long, env = "FIRN_JOB_RETENTION", default_value = "1h", value_parser = duration)]
    pub job_retention: Duration,
}

/// What specs may ask for.
#[derive(Debug, Clone, ClapArgs)]
#[command(next_help_heading = "Permissions and defaults of specs")]
pub struct AllowedArgs {
    /// Binary caches of images whose spec names none, in order of priority
    #[arg(
        long,
        env = "FIRN_SUBSTITUTERS",
        value_delimiter = ',',
        default_value = "https://cache.nixos.org"
    )]
    pub substituters: Vec<String>,
    /// Keys whose signatures Nix accepts
    #[arg(
        long,
        env = "FIRN_TRUSTED_PUBLIC_KEYS",
        value_delimiter = ',',
        default_value = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
    )]
    pub trusted_public_keys: Vec<String>,
    /// Further substituters that specs may name, or `*`
    #[arg(long, env = "FIRN_ALLOWED_SUBSTITUTERS", value_delimiter = ',')]
    pub allowed_substituters: Vec<String>,
    /// Further keys that specs may trust, or `*`
    #[arg(long, env = "FIRN_ALLOWED_PUBLIC_KEYS", value_delimiter = ',')]
    pub allowed_public_keys: Vec<String>,
    /// Registry hosts (`host` or `host:port`) that may be used by plain HTTP
    #[arg(long, env = "FIRN_PLAIN_HTTP_HOSTS", value_delimiter = ',')]
    pub plain_http_hosts: Vec<String>,
}

/// How much at once.
#[derive(Debug, Clone, Copy, ClapArgs)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// Builds that run at once in the cluster
    #[arg(long, env = "FIRN_MAX_CONCURRENT_BUILDS", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_concurrent_builds: u32,
    /// Builds that run at once in one namespace
    #[arg(long, env = "FIRN_MAX_CONCURRENT_BUILDS_PER_NAMESPACE", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_concurrent_builds_per_namespace: u32,
}

/// How clients reach the world.
#[derive(Debug, Clone, ClapArgs)]
#[command(next_help_heading = "Network")]
pub struct NetworkArgs {
    /// PEM file of CA certificates trusted besides the system's: by the operator and by build pods
    #[arg(long, env = "FIRN_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// PEM file of the CA certificates that the system trusts
    #[arg(
        long,
        env = "SSL_CERT_FILE",
        default_value = "/etc/ssl/certs/ca-certificates.crt"
    )]
    pub system_ca_file: PathBuf,
    /// Proxy for http URLs: of the operator and of build pods
    #[arg(long, env = "HTTP_PROXY", hide_env_values = true)]
    pub http_proxy: Option<String>,
    /// Proxy for https URLs: of the operator and of build pods
    #[arg(long, env = "HTTPS_PROXY", hide_env_values = true)]
    pub https_proxy: Option<String>,
    /// Hosts, domains and networks reached without proxy, with commas between
    #[arg(long, env = "NO_PROXY")]
    pub no_proxy: Option<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Compact on a terminal, JSON elsewhere
    Auto,
    /// One JSON object a line
    Json,
    /// For people
    Compact,
}

/// Resolved settings: checked, and with empty strings turned into absence.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Namespace of the operator itself.
    pub namespace: String,
    /// Name of the operator's pod.
    pub pod_name: String,
    /// Namespaces to serve.
    pub watch: Watch,
    /// Where /metrics, /healthz and /readyz are served.
    pub listen: SocketAddr,
    /// Where webhooks are served. `None`: nowhere.
    pub webhook_listen: Option<SocketAddr>,
    /// Log filter.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What build pods are made of.
    pub pods: Pods,
    /// What specs may ask for.
    pub allowed: Allowed,
    /// How much at once.
    pub limits: Limits,
    /// How clients reach the world.
    pub network: Network,
}

/// Namespaces to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watch {
    /// All of the cluster; needs the `ClusterRole`.
    All,
    /// These, never empty; needs a Role in each.
    Only(BTreeSet<String>),
}

impl Watch {
    /// Whether objects of this namespace are served.
    pub fn serves(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(namespace),
        }
    }
}

/// What build pods are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pods {
    /// Image of the containers.
    pub builder_image: String,
    /// Secrets for pulling it, in order.
    pub pull_secrets: Vec<String>,
    /// Resources of the build container when the spec says nothing.
    pub resources: Resources,
    /// How long the Job of a build that succeeded is kept; then the operator deletes it. That of
    /// another stays as long as its build, for its log.
    pub job_retention: Duration,
}

/// Resources of a container, as Kubernetes quantities. `None`: not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    /// CPU requested.
    pub cpu_request: Option<String>,
    /// Memory requested.
    pub memory_request: Option<String>,
    /// CPU limit.
    pub cpu_limit: Option<String>,
    /// Memory limit.
    pub memory_limit: Option<String>,
}

/// What specs get by default and what more they may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// Substituters of specs that name none, in order of priority.
    pub default_substituters: Vec<String>,
    /// Keys that are always trusted.
    pub default_public_keys: Vec<String>,
    /// What specs may name besides the defaults.
    pub substituters: Permitted,
    /// What specs may trust besides the defaults.
    pub public_keys: Permitted,
    /// Registry hosts that may be used by plain HTTP.
    pub plain_http_hosts: BTreeSet<String>,
}

/// A permission: the named values, or any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permitted {
    /// `*`
    Any,
    /// Only these.
    Only(BTreeSet<String>),
}

impl Permitted {
    /// Whether the value is permitted.
    pub fn permits(&self, value: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(values) => values.contains(value),
        }
    }
}

/// How much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Builds that run at once in the cluster.
    pub concurrent_builds: u32,
    /// Builds that run at once in one namespace; never more than `concurrent_builds`.
    pub concurrent_builds_per_namespace: u32,
}

/// How clients reach the world.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// PEM bundle trusted besides the system's, by the operator and by build pods.
    pub ca_pem: Option<Vec<u8>>,
    /// PEM bundle of the system, for programs that trust one file only.
    pub system_ca_file: PathBuf,
    /// Proxies.
    pub proxies: Proxies,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("ca_pem", &self.ca_pem.as_ref().map(Vec::len))
            .field("system_ca_file", &self.system_ca_file)
            .field("proxies", &self.proxies)
            .finish()
    }
}

/// Proxies of the operator and of build pods. Their URLs may hold credentials: `Debug` says only
/// whether they are set.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For http URLs.
    pub http: Option<String>,
    /// For https URLs.
    pub https: Option<String>,
    /// What is reached without.
    pub none_for: Option<String>,
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("none_for", &self.none_for)
            .finish()
    }
}

impl Proxies {
    /// Environment variables that tell other programs, in both spellings: curl (and so git and
    /// Nix) reads `http_proxy` in lower case only.
    pub fn environment(&self) -> Vec<(&'static str, &str)> {
        [
            ("HTTP_PROXY", "http_proxy", &self.http),
            ("HTTPS_PROXY", "https_proxy", &self.https),
            ("NO_PROXY", "no_proxy", &self.none_for),
        ]
        .into_iter()
        .filter_map(|(upper, lower, value)| Some((upper, lower, value.as_deref()?)))
        .flat_map(|(upper, lower, value)| [(upper, value), (lower, value)])
        .collect()
    }
}

/// `90s`, `15m`, `1h30m`: a duration as the API spells it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 90s, 15m or 1h30m");
    let mut total = 0_u64;
    let mut digits = String::new();
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                digits.push(c);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(wrong()),
        };
        let seconds = digits
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(unit))
            .ok_or_else(wrong)?;
        total = total.checked_add(seconds).ok_or_else(wrong)?;
        digits.clear();
    }
    if text.is_empty() || !digits.is_empty() {
        return Err(wrong());
    }
    Ok(Duration::from_secs(total))
}
