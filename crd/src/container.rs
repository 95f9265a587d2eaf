//! `spec.output.config`: how a container of the image is started. Pure.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::schema::Each;

/// How a container of the image is started. What is not given is as the attribute says: a package's
/// own program, or what an image description has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// The program and its first arguments. Without `cmd` it has no further ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub entrypoint: Option<Vec<String>>,
    /// Further arguments, which a Pod's `args` replace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub cmd: Option<Vec<String>>,
    /// Environment variables, added to those there are; they win.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub env: Vec<Variable>,
    /// Who runs it: `user`, `uid`, `user:group` or `uid:gid`. Kubernetes' `runAsNonRoot` needs a
    /// number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[^:\s]+(:[^:\s]+)?$"))]
    pub user: Option<String>,
    /// Where it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096), regex(pattern = "^/"))]
    pub working_dir: Option<String>,
    /// Ports it listens on, as in `80/tcp`; for people, and for Docker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 16)),
        transform = Each(kube::core::Rule::new("self.matches(r'^[0-9]{1,5}(/(tcp|udp|sctp))?$')")
            .message("not a port: write 80, 80/tcp or 53/udp"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub exposed_ports: Vec<String>,
    /// Paths that hold data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 1024)),
        transform = Each(kube::core::Rule::new("self.startsWith('/')").message("a volume is an absolute path"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub volumes: Vec<String>,
    /// The signal that asks the program to end, as in `SIGINT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[A-Z0-9+-]+$"))]
    pub stop_signal: Option<String>,
    /// Docker's health check. Kubernetes ignores it: its own probes stand in the Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    /// Its name.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[^=\s]+$"))]
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8192))]
    pub value: String,
}

/// Docker's health check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Healthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", …]` or `["NONE"]`.
    #[schemars(length(min = 1, max = 64), inner(length(max = 4096)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// After which a check counts as hung.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// In which failures do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period: Option<Duration>,
    /// Between two checks in the start period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<Duration>,
    /// Failures in a row that make the container unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub retries: Option<i32>,
}

impl Container {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The variables by name. Of two with one name the last counts.
    pub fn variables(&self) -> BTreeMap<&str, &str> {
        let pairs = self.env.iter();
        pairs
            .map(|variable| (variable.name.as_str(), variable.value.as_str()))
            .collect()
    }
}
