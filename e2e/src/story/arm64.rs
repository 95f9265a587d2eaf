//! A second node that passes for an arm64 machine, and QEMU for the programs that it runs.
//!
//! The node's own programs are those of this machine: containerd and the builder image too. What
//! is of arm64 are the label, by which Kubernetes places pods, and the images that run there.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::DeleteParams;

use super::fault::cluster;
use super::{SOON, World};
use crate::debian::{self, Lock};
use crate::wait::{Seen, eventually};

/// Its name.
pub const NODE: &str = "node-1";

const POLICY: &str = include_str!("../../cluster/manifests/arm64.yaml");
const QEMU: &str = include_str!("../../debian/qemu-forky-amd64.lock");
const BUSYBOX: &str = include_str!("../../debian/busybox-forky-arm64.lock");

/// `F`: the interpreter is held open, so that no image needs it. `P`: programs keep their first
/// argument, by which busybox knows what it is.
const REGISTRATION: &str = concat!(
    r":firn-e2e-arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:",
    r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:"
);
/// The entry is there for the whole machine, and goes with the mount, which goes with the node.
const REGISTER: &str = r#"
m=/proc/sys/fs/binfmt_misc
[ -e $m/register ] || mount -t binfmt_misc none $m
[ ! -e $m/firn-e2e-arm64 ] || echo -1 > $m/firn-e2e-arm64
printf %s "$0" > $m/register
"#;
const FORGET: &str = "echo -1 > /proc/sys/fs/binfmt_misc/firn-e2e-arm64";

/// Runs `story` while there is the node; then takes it away.
pub async fn with_node<F>(world: &World, story: F) -> Result<()>
where
    F: AsyncFnOnce(&World) -> Result<()>,
{
    let told = match up(world).await {
        Ok(()) => story(world).await,
        Err(error) => Err(error),
    };
    let gone = down(world).await;
    told.and(gone)
}

async fn up(world: &World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let qemu = folder.path().join("qemu-aarch64");
    extract(world, QEMU, "usr/bin/qemu-aarch64", &qemu)?;
    kubectl(world, &["apply", "--server-side", "--filename=-"], POLICY)?;
    cluster(&["node-up", "1"])?;
    let entry = format!("{REGISTRATION}{}:POCF", qemu.display());
    cluster(&["exec", NODE, "--", "sh", "-euc", REGISTER, &entry])?;
    let nodes: Api<Node> = Api::all(world.client.clone());
    eventually("the node says that it is of arm64", SOON, || async {
        let labels = nodes.get(NODE).await?.metadata.labels.unwrap_or_default();
        Ok(match labels.get("kubernetes.io/arch").map(String::as_str) {
            Some("arm64") => Seen::Done(()),
            other => Seen::NotYet(format!("{other:?}")),
        })
    })
    .await
}

/// All of it, whatever is there.
async fn down(world: &World) -> Result<()> {
    let forgotten = cluster(&["exec", NODE, "--", "sh", "-euc", FORGET]);
    let off = cluster(&["node-off", "1"]);
    let nodes: Api<Node> = Api::all(world.client.clone());
    let deleted = match nodes.delete(NODE, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop).context("failed to delete the node"),
    };
    let policy = kubectl(
        world,
        &["delete", "--ignore-not-found", "--filename=-"],
        POLICY,
    );
    forgotten.and(off).and(deleted).and(policy)
}

/// Downloads the packages, unless they are in the cache: where stories run there is no mirror.
pub fn fetch(cache: &Path) -> Result<()> {
    for lock in [QEMU, BUSYBOX] {
        debian::packages(&lock.parse::<Lock>()?, cache)?;
    }
    Ok(())
}

/// The static busybox of arm64.
pub fn busybox(world: &World) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("busybox");
    extract(world, BUSYBOX, "usr/bin/busybox", &file)?;
    Ok(std::fs::read(file)?)
}

/// One program of a package.
fn extract(world: &World, lock: &str, path: &str, to: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let embedded = world.cluster.needs_embedded();
    let cache = &embedded.context("a node to add")?.layout.cache;
    let fetched = debian::packages(&lock.parse::<Lock>()?, cache)?;
    let package = fetched.debs.first().context("a list without packages")?;
    let mut archive = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to run dpkg-deb")?;
    let tar = archive.stdout.take().context("no output of dpkg-deb")?;
    let output = Command::new("tar")
        .args(["--extract", "--to-stdout", "--file=-"])
        .arg(format!("./{path}"))
        .stdin(tar)
        .output()
        .context("failed to run tar")?;
    let archived = archive.wait()?;
    ensure!(
        archived.success() && output.status.success() && !output.stdout.is_empty(),
        "{} has no {path}: {}",
        package.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::write(to, output.stdout)?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn kubectl(world: &World, arguments: &[&str], manifest: &str) -> Result<()> {
    use std::io::Write as _;

    let mut child = world
        .cluster
        .kubectl()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("failed to run kubectl")?;
    let mut input = child.stdin.take().context("no input of kubectl")?;
    input.write_all(manifest.as_bytes())?;
    drop(input);
    let status = child.wait()?;
    ensure!(status.success(), "kubectl {arguments:?}: {status}");
    Ok(())
}
