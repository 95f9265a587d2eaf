//! How a container of an image is started: the fields, and how they go together with those of a
//! base image. Pure.

use std::collections::{BTreeMap, BTreeSet};

use firn_crd::duration::Duration;
use firn_oci::{ContainerConfig, Healthcheck};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Map;

use super::document::Inherited;

/// How a container is started. Keys may also be written as OCI and Docker do: `Env`,
/// `WorkingDir`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Container {
    /// `user`, `uid`, `user:group` or `uid:gid`.
    #[serde(alias = "User")]
    pub user: Option<String>,
    /// `80/tcp`, `53/udp`.
    #[serde(alias = "ExposedPorts")]
    pub exposed_ports: Names,
    /// Environment.
    #[serde(alias = "Env")]
    pub env: Environment,
    /// The program and its first arguments.
    #[serde(alias = "Entrypoint")]
    pub entrypoint: Option<Vec<String>>,
    /// Further arguments, which a Pod's `args` replace.
    #[serde(alias = "Cmd")]
    pub cmd: Option<Vec<String>>,
    /// Paths that hold data.
    #[serde(alias = "Volumes")]
    pub volumes: Names,
    /// Where the program starts.
    #[serde(alias = "WorkingDir")]
    pub working_dir: Option<String>,
    /// Labels, beside `labels`.
    #[serde(alias = "Labels")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the program to end: `SIGTERM`.
    #[serde(alias = "StopSignal")]
    pub stop_signal: Option<String>,
    /// Docker's health check. Kubernetes ignores it.
    #[serde(alias = "Healthcheck")]
    pub healthcheck: Option<Check>,
    /// Docker's triggers for builds on top of this image.
    #[serde(alias = "OnBuild")]
    pub on_build: Option<Vec<String>>,
    /// Docker's shell for the shell form of commands.
    #[serde(alias = "Shell")]
    pub shell: Option<Vec<String>>,
}

/// Names: a list, or as OCI has them the keys of an object.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Names {
    /// A list.
    List(Vec<String>),
    /// Keys, each with an empty object.
    #[expect(
        clippy::zero_sized_map_values,
        reason = "in the document the keys do have values"
    )]
    Keys(BTreeMap<String, Empty>),
}

impl Default for Names {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Names {
    /// The names.
    pub(super) fn list(&self) -> Vec<String> {
        match self {
            Self::List(names) => names.clone(),
            Self::Keys(names) => names.keys().cloned().collect(),
        }
    }

    fn keys(&self) -> BTreeMap<String, Map<String, serde_json::Value>> {
        let names = self.list().into_iter();
        names.map(|name| (name, Map::new())).collect()
    }
}

/// An object without keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// Variables: by name, or as `NAME=value`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Environment {
    /// `NAME=value` each; the order stays.
    List(Vec<String>),
    /// Values by name.
    Map(BTreeMap<String, String>),
}

impl Default for Environment {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Environment {
    /// `NAME=value` each.
    pub(in crate::input) fn lines(&self) -> Vec<String> {
        match self {
            Self::List(lines) => lines.clone(),
            Self::Map(values) => values.iter().map(|(k, v)| format!("{k}={v}")).collect(),
        }
    }
}

/// Docker's health check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Check {
    /// `["CMD", …]`, `["CMD-SHELL", …]` or `["NONE"]`.
    #[serde(alias = "Test")]
    pub test: Vec<String>,
    /// Between two checks: `30s`, `1m30s`.
    #[serde(alias = "Interval")]
    pub interval: Option<Duration>,
    /// After which a check counts as hung.
    #[serde(alias = "Timeout")]
    pub timeout: Option<Duration>,
    /// In which failures do not count.
    #[serde(alias = "StartPeriod")]
    pub start_period: Option<Duration>,
    /// Between two checks in the start period.
    #[serde(alias = "StartInterval")]
    pub start_interval: Option<Duration>,
    /// Failures in a row that make the container unhealthy.
    #[serde(alias = "Retries")]
    pub retries: u32,
}

impl Check {
    fn to_oci(&self) -> Healthcheck {
        let nanoseconds = |duration: &Option<Duration>| {
            let length = duration.as_ref().map(|d| d.as_std().as_nanos());
            i64::try_from(length.unwrap_or_default()).unwrap_or(i64::MAX)
        };
        Healthcheck {
            test: self.test.clone(),
            interval: nanoseconds(&self.interval),
            timeout: nanoseconds(&self.timeout),
            start_period: nanoseconds(&self.start_period),
            start_interval: nanoseconds(&self.start_interval),
            retries: self.retries.into(),
            extra: BTreeMap::new(),
        }
    }
}

impl Container {
    /// The config of an image, on top of what it inherits. Lists take the place of the base's;
    /// variables, labels, ports and volumes are added to them, and win.
    pub(in crate::input) fn on(&self, base: ContainerConfig) -> ContainerConfig {
        let mut config = base;
        // Arguments belong to their program: those of another one mean nothing to this one.
        if let Some(entrypoint) = &self.entrypoint {
            config.entrypoint.clone_from(entrypoint);
            config.cmd = Vec::new();
        }
        set(&mut config.cmd, self.cmd.as_ref());
        set(&mut config.user, self.user.as_ref());
        set(&mut config.working_dir, self.working_dir.as_ref());
        set(&mut config.stop_signal, self.stop_signal.as_ref());
        set(&mut config.on_build, self.on_build.as_ref());
        set(&mut config.shell, self.shell.as_ref());
        if let Some(check) = &self.healthcheck {
            config.healthcheck = Some(check.to_oci());
        }
        for line in self.env.lines() {
            set_variable(&mut config.env, line);
        }
        config.exposed_ports.extend(self.exposed_ports.keys());
        config.volumes.extend(self.volumes.keys());
        config.labels.extend(self.labels.clone());
        config
    }
}

fn set<T: Clone>(field: &mut T, value: Option<&T>) {
    if let Some(value) = value {
        field.clone_from(value);
    }
}

/// The last value of a name counts, at the place where the name came first.
pub(in crate::input) fn set_variable(env: &mut Vec<String>, line: String) {
    let name = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let wanted = name(&line);
    match env.iter_mut().find(|there| name(there) == wanted) {
        Some(there) => *there = line,
        None => env.push(line),
    }
}

/// What stays of a base image's config. `None`: all of it.
pub(super) fn inherited(base: &ContainerConfig, which: Option<&[Inherited]>) -> ContainerConfig {
    let Some(which) = which else {
        return base.clone();
    };
    let mut kept = ContainerConfig::default();
    // Each once; the order is nothing.
    let which: BTreeSet<Inherited> = which.iter().copied().collect();
    for field in which {
        let base = base.clone();
        match field {
            Inherited::Env => kept.env = base.env,
            Inherited::Entrypoint => kept.entrypoint = base.entrypoint,
            Inherited::Cmd => kept.cmd = base.cmd,
            Inherited::User => kept.user = base.user,
            Inherited::WorkingDir => kept.working_dir = base.working_dir,
            Inherited::Labels => kept.labels = base.labels,
            Inherited::ExposedPorts => kept.exposed_ports = base.exposed_ports,
            Inherited::Volumes => kept.volumes = base.volumes,
            Inherited::StopSignal => kept.stop_signal = base.stop_signal,
            Inherited::Healthcheck => kept.healthcheck = base.healthcheck,
            Inherited::OnBuild => kept.on_build = base.on_build,
            Inherited::Shell => kept.shell = base.shell,
            Inherited::History => {}
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> ContainerConfig {
        ContainerConfig {
            env: vec!["PATH=/usr/bin".into(), "LANG=C".into()],
            entrypoint: vec!["/entry".into()],
            cmd: vec!["argument".into()],
            user: "7".into(),
            labels: [("a".into(), "base".into()), ("b".into(), "base".into())].into(),
            volumes: Names::List(vec!["/data".into()]).keys(),
            ..ContainerConfig::default()
        }
    }

    fn container(json: &str) -> Container {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_not_said_is_inherited_and_what_is_said_wins() {
        let config = container(
            r#"{"env": {"PATH": "/bin", "A": "1"}, "labels": {"b": "own"}, "volumes": ["/more"]}"#,
        )
        .on(base());
        assert_eq!(config.env, ["PATH=/bin", "LANG=C", "A=1"]);
        assert_eq!(
            (config.entrypoint, config.cmd),
            (base().entrypoint, base().cmd)
        );
        assert_eq!(config.user, "7");
        assert_eq!(config.labels["a"], "base");
        assert_eq!(config.labels["b"], "own");
        assert_eq!(config.volumes.len(), 2);
    }

    #[test]
    fn a_program_does_not_get_another_ones_arguments() {
        let config = container(r#"{"entrypoint": ["/own"]}"#).on(base());
        assert_eq!(
            (config.entrypoint, config.cmd),
            (vec!["/own".into()], vec![])
        );
        let config = container(r#"{"entrypoint": ["/own"], "cmd": ["x"]}"#).on(base());
        assert_eq!(config.cmd, ["x"]);
        let config = container(r#"{"cmd": ["x"]}"#).on(base());
        assert_eq!(config.entrypoint, ["/entry"]);
    }

    #[test]
    fn fields_are_inherited_one_by_one() {
        let kept = inherited(&base(), Some(&[Inherited::Env, Inherited::User]));
        assert_eq!((kept.env, kept.user), (base().env, base().user));
        assert_eq!((kept.cmd, kept.labels.len()), (vec![], 0));
        assert_eq!(inherited(&base(), None), base());
        assert_eq!(inherited(&base(), Some(&[])), ContainerConfig::default());
    }

    #[test]
    fn oci_s_own_spelling_is_read() {
        let ours = container(
            r#"{"env": ["A=1"], "exposedPorts": ["80/tcp"], "workingDir": "/w",
                "healthcheck": {"test": ["CMD", "x"], "interval": "1m30s"}}"#,
        );
        let theirs = container(
            r#"{"Env": ["A=1"], "ExposedPorts": {"80/tcp": {}}, "WorkingDir": "/w",
                "Healthcheck": {"Test": ["CMD", "x"], "Interval": "1m30s"}}"#,
        );
        let config = ours.on(ContainerConfig::default());
        assert_eq!(config, theirs.on(ContainerConfig::default()));
        assert_eq!(config.healthcheck.unwrap().interval, 90_000_000_000);
    }

    #[test]
    fn strangers_are_refused() {
        for bad in [
            r#"{"entryPoint": []}"#,
            r#"{"volumes": {"/d": {"x": 1}}}"#,
            r#"{"healthcheck": {"interval": 5}}"#,
        ] {
            assert!(serde_json::from_str::<Container>(bad).is_err(), "{bad}");
        }
    }
}
