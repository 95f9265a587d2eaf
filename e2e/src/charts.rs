//! The charts of this repository, rendered by the real Helm, and the plain manifests made of them.
//! What is inside the charts is not known here.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::clone::repository;
use crate::cluster::Layout;
use crate::cluster::build::programs;

/// Name of the release, in tests and in the plain manifests.
pub const RELEASE: &str = "firn";
/// Namespace of the release, in tests and in the plain manifests.
pub const NAMESPACE: &str = "firn-system";
/// Values of `manifests/install.yaml`: the images stand for those of the reader's own registry.
pub const INSTALL_VALUES: &[&str] = &[
    "image.repository=registry.example.com/firn/operator",
    "builder.image.repository=registry.example.com/firn/builder",
];

/// The Helm program.
#[derive(Debug, Clone)]
pub struct Helm {
    program: PathBuf,
}

impl Helm {
    /// The one that `FIRN_HELM` names, else the embedded cluster's, which is built if need be.
    pub fn find() -> anyhow::Result<Self> {
        let program = match std::env::var_os("FIRN_HELM") {
            Some(program) => PathBuf::from(program),
            None => programs(&Layout::from_env()?)?.join("helm"),
        };
        Ok(Self { program })
    }

    /// Runs Helm. Its standard output; the error is what it wrote to standard error.
    pub fn run<I>(&self, arguments: I) -> anyhow::Result<String>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let output = Command::new(&self.program)
            .args(arguments)
            .output()
            .with_context(|| format!("failed to start {}", self.program.display()))?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).context("Helm's output is not UTF-8")
    }

    /// `chart` rendered as a release called [`RELEASE`] in [`NAMESPACE`]. `arguments` are Helm's,
    /// such as `--set` and `--values`.
    pub fn template(&self, chart: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let chart = repository().join("charts").join(chart);
        let mut all = vec![
            OsStr::new("template"),
            OsStr::new(RELEASE),
            chart.as_os_str(),
        ];
        all.extend(["--namespace", NAMESPACE].map(OsStr::new));
        // Not the version of whatever cluster the developer's kubeconfig names.
        all.extend(["--kube-version", "v1.33.0"].map(OsStr::new));
        all.extend(arguments.iter().map(OsStr::new));
        self.run(all)
    }

    /// `manifests/install.yaml`: the namespace, then the chart with its defaults.
    pub fn install_manifest(&self) -> anyhow::Result<String> {
        let mut arguments = Vec::new();
        for value in INSTALL_VALUES {
            arguments.extend(["--set", value]);
        }
        let rendered = self.template("firn", &arguments)?;
        Ok(format!(
            "# Generated from charts/firn; a test of e2e compares them. Do not edit by hand.\n\
             # The two images named registry.example.com are yours to build and push: docs/install.md.\n\
             apiVersion: v1\n\
             kind: Namespace\n\
             metadata:\n\
             \x20 name: {NAMESPACE}\n\
             \x20 labels:\n\
             \x20   pod-security.kubernetes.io/enforce: restricted\n\
             {rendered}"
        ))
    }
}
