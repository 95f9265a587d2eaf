//! Firn on a cluster, as its users install it: images built and pushed to a registry, and the chart.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use firn_oci::Digest;
use firn_oci::registry::{Registry, RegistrySettings};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::charts::{NAMESPACE, RELEASE};
use crate::clone::repository;
use crate::cluster::Cluster;
use crate::cluster::progress::{say, step};
use crate::debian;
use crate::image::{self, Declaration, Parts};
use crate::programs;
use crate::story::SOON;
use crate::wait::{eventually, when};

/// Builds that run at once on the embedded cluster: its one node has room for no more.
pub const CONCURRENT_BUILDS: usize = 6;
/// Of these, builds of one namespace.
pub const CONCURRENT_BUILDS_PER_NAMESPACE: usize = 5;

/// Builds Firn's programs and images: one OCI layout each in the folder that is returned.
pub fn build_images(cache: &Path, target: &Path) -> Result<PathBuf> {
    let declaration = Declaration::committed()?;
    let programs = programs::release(cache, target, &declaration.packages())?;
    let folder = cache.join("firn-images");
    step("Firn's images", || {
        let debian = debian::tree(&debian::LOCK.parse()?, cache)?;
        let parts = Parts {
            debian: &debian,
            programs: &programs,
        };
        image::build(&declaration, &parts, env!("CARGO_PKG_VERSION"), &folder)?;
        Ok(())
    })?;
    Ok(folder)
}

/// Firn's images in a registry.
#[derive(Debug)]
pub struct Images {
    registry: String,
    operator: Digest,
    builder: Digest,
}

/// Has so many operators run, and waits until they do.
pub async fn scale(client: &Client, replicas: i32) -> Result<()> {
    let operators: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let patch = json!({ "spec": { "replicas": replicas } });
    operators
        .patch(RELEASE, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    eventually(&format!("{replicas} operators run"), SOON, || async {
        let status = operators.get(RELEASE).await?.status.unwrap_or_default();
        let (total, ready) = (
            status.replicas.unwrap_or(0),
            status.ready_replicas.unwrap_or(0),
        );
        let scaled = total == replicas && ready == replicas;
        Ok(when(scaled, format!("{ready} of {total} are ready")))
    })
    .await
}

/// Pushes the images to the cluster's open registry, and says where they are. Runs where that is
/// reached.
pub async fn push_images(cluster: &Cluster, images: &Path) -> Result<Images> {
    let registry = cluster.services().plain.clone();
    ensure!(
        !registry.is_empty(),
        "no registry for Firn's own images: set FIRN_E2E_REGISTRY_PLAIN"
    );
    let operator = push(images, &registry, "operator").await?;
    let builder = push(images, &registry, "builder").await?;
    for (name, digest) in [("operator", &operator), ("builder", &builder)] {
        say(format!("{registry}/firn/{name}@{digest}"));
    }
    Ok(Images {
        registry,
        operator,
        builder,
    })
}

/// Installs or upgrades the chart with `images`.
pub fn install_chart(cluster: &Cluster, images: &Images) -> Result<()> {
    let Images {
        registry,
        operator,
        builder,
    } = images;
    let values = json!({
        "image": { "repository": format!("{registry}/firn/operator"), "digest": operator.to_string() },
        "builder": { "image": { "repository": format!("{registry}/firn/builder"), "digest": builder.to_string() } },
        // Nothing of the world outside is reached from tests.
        "defaults": {
            "substituters": [],
            "trustedPublicKeys": [],
            "resources": { "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "2Gi" } },
        },
        "allowed": { "plainHTTP": [registry] },
        "limits": {
            "maxConcurrentBuilds": CONCURRENT_BUILDS,
            "maxConcurrentBuildsPerNamespace": CONCURRENT_BUILDS_PER_NAMESPACE,
        },
        "log": { "level": "info,firn_operator=debug" },
        // One node; and stories read the log and the metrics of the one operator that acts.
        "replicas": 1,
    });
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), values.to_string())?;
    let mut helm = cluster.command("helm");
    helm.args(["upgrade", "--install", RELEASE])
        .arg(repository().join("charts/firn"))
        .args([
            "--namespace",
            NAMESPACE,
            "--create-namespace",
            "--wait",
            "--timeout",
            "3m",
            "--values",
        ])
        .arg(file.path());
    let output = helm.output().context("failed to run helm")?;
    ensure!(
        output.status.success(),
        "helm: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    say(format!(
        "Firn {} runs in namespace {NAMESPACE}",
        env!("CARGO_PKG_VERSION")
    ));
    Ok(())
}

/// Pushes one image to a registry that speaks plain HTTP; gives its digest.
async fn push(images: &Path, registry: &str, name: &str) -> Result<Digest> {
    let mut settings = RegistrySettings::new(registry.parse()?);
    settings.plain_http = true;
    let repository = format!("firn/{name}").parse()?;
    let tag = env!("CARGO_PKG_VERSION").parse()?;
    let pushed = image::push(
        &images.join(name),
        &Registry::new(settings)?,
        &repository,
        &tag,
    )
    .await?;
    Ok(pushed.digest)
}

/// Starts the embedded cluster, or finds it well.
pub fn cluster_up() -> Result<()> {
    run(firn_cluster()?.arg("up"))
}

/// Runs this program again, inside the embedded cluster's network, with `arguments`.
pub fn again_inside(arguments: &[OsString]) -> Result<()> {
    run(firn_cluster()?
        .args(["exec", "--"])
        .arg(std::env::current_exe()?)
        .args(arguments))
}

/// The program beside this one that knows the cluster's namespaces: in them it calls itself.
fn firn_cluster() -> Result<Command> {
    Ok(Command::new(
        std::env::current_exe()?.with_file_name("firn-cluster"),
    ))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("failed to run {}", command.get_program().display()))?;
    ensure!(
        status.success(),
        "{} ended with {status}",
        command.get_program().display()
    );
    Ok(())
}
