//! The cluster that tests run on: the embedded one, or any other that the environment names.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::files::At;
use super::{Layout, Services};

/// What tests are given. They run inside the embedded cluster's network (`firn-cluster exec`) or
/// wherever the other cluster's services are reached.
#[derive(Debug, Clone)]
pub enum Cluster {
    /// The one that `firn-cluster up` starts.
    Embedded(Embedded),
    /// `FIRN_E2E_KUBECONFIG` names it.
    Foreign(Foreign),
}

/// The embedded cluster: all of it is at hand, faults included.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// Where its files and logs are.
    pub layout: Layout,
    services: Services,
}

/// Somebody's cluster: the API, and such services as were named.
#[derive(Debug, Clone)]
pub struct Foreign {
    kubeconfig: PathBuf,
    services: Services,
}

impl Cluster {
    /// The cluster that the environment names, else the embedded one, which must be up.
    pub fn from_env() -> Result<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the edge where tests are configured"
        )]
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(kubeconfig) = variable("FIRN_E2E_KUBECONFIG") {
            return Ok(Self::Foreign(Foreign::from_variables(
                kubeconfig.into(),
                variable,
            )?));
        }
        let layout = Layout::from_env()?;
        let services = Services::read(&layout)?;
        if variable("FIRN_E2E_INSIDE").is_none() {
            bail!("this runs inside the cluster's network only: firn-cluster exec -- COMMAND");
        }
        Ok(Self::Embedded(Embedded { layout, services }))
    }

    /// Git server and registries.
    pub fn services(&self) -> &Services {
        match self {
            Self::Embedded(embedded) => &embedded.services,
            Self::Foreign(foreign) => &foreign.services,
        }
    }

    /// The administrator's kubeconfig file.
    pub fn kubeconfig(&self) -> PathBuf {
        match self {
            Self::Embedded(embedded) => embedded.layout.kubeconfig("admin"),
            Self::Foreign(foreign) => foreign.kubeconfig.clone(),
        }
    }

    /// How a client reaches the API server as administrator.
    pub async fn config(&self) -> Result<Config> {
        let file = self.kubeconfig();
        let kubeconfig = Kubeconfig::read_from(&file).at("read", &file)?;
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .at("use", &file)
    }

    /// A command whose KUBECONFIG is this cluster's: kubectl, helm, git, crane, ….
    /// The embedded cluster's own programs are found first.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.kubeconfig());
        if let Self::Embedded(embedded) = self {
            let path = super::component::search_path(&embedded.layout);
            // A name without a slash is looked for in the PATH of the parent, not the child's.
            if embedded.layout.program(program).exists() {
                command = Command::new(embedded.layout.program(program));
                command.env("KUBECONFIG", self.kubeconfig());
            }
            command.env("PATH", path);
        }
        command
    }

    /// kubectl as administrator.
    pub fn kubectl(&self) -> Command {
        match self {
            Self::Embedded(_) => {
                let mut command = self.command("kube");
                command.arg("kubectl");
                command
            }
            Self::Foreign(_) => self.command("kubectl"),
        }
    }

    /// The embedded cluster, for tests that break or read what only it has; `None` elsewhere,
    /// where such tests count as skipped.
    pub fn needs_embedded(&self) -> Option<&Embedded> {
        match self {
            Self::Embedded(embedded) => Some(embedded),
            Self::Foreign(_) => None,
        }
    }
}

impl Foreign {
    fn from_variables(
        kubeconfig: PathBuf,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let wanted = |name: &str| {
            variable(name).with_context(|| format!("FIRN_E2E_KUBECONFIG is set, so {name} must be"))
        };
        let optional = |name: &str| variable(name).unwrap_or_default();
        let ca_pem = match variable("FIRN_E2E_CA") {
            Some(file) => std::fs::read_to_string(&file)
                .with_context(|| format!("failed to read FIRN_E2E_CA, {file:?}"))?,
            None => String::new(),
        };
        Ok(Self {
            kubeconfig,
            services: Services {
                git_url: wanted("FIRN_E2E_GIT_URL")?,
                git_user: optional("FIRN_E2E_GIT_USER"),
                git_password: optional("FIRN_E2E_GIT_PASSWORD"),
                registry: wanted("FIRN_E2E_REGISTRY")?,
                registry_user: optional("FIRN_E2E_REGISTRY_USER"),
                registry_password: optional("FIRN_E2E_REGISTRY_PASSWORD"),
                plain: optional("FIRN_E2E_REGISTRY_PLAIN"),
                ca_pem,
            },
        })
    }
}

/// Whether the environment names somebody's cluster.
pub fn is_foreign() -> bool {
    std::env::var_os("FIRN_E2E_KUBECONFIG").is_some_and(|file| !file.is_empty())
}

/// The variables by which the embedded cluster passes for a foreign one.
pub fn as_foreign(layout: &Layout) -> Result<Vec<(&'static str, String)>> {
    let services = Services::read(layout)?;
    Ok(vec![
        (
            "FIRN_E2E_KUBECONFIG",
            layout.kubeconfig("admin").display().to_string(),
        ),
        ("FIRN_E2E_GIT_URL", services.git_url),
        ("FIRN_E2E_GIT_USER", services.git_user),
        ("FIRN_E2E_GIT_PASSWORD", services.git_password),
        ("FIRN_E2E_REGISTRY", services.registry),
        ("FIRN_E2E_REGISTRY_USER", services.registry_user),
        ("FIRN_E2E_REGISTRY_PASSWORD", services.registry_password),
        ("FIRN_E2E_REGISTRY_PLAIN", services.plain),
        (
            "FIRN_E2E_CA",
            layout.pki("services-ca.crt").display().to_string(),
        ),
        // helm, crane: elsewhere whoever runs the tests has them.
        ("PATH", super::component::search_path(layout)),
    ])
}
