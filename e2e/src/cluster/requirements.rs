//! What the machine itself must have. Debian and Ubuntu get it installed; others are told.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::command::output;
use super::progress::{say, step};

/// A program that is looked for in PATH, and the Debian package that has it.
type Need = (&'static str, &'static str);

/// To build the programs. Headers have no program: pkg-config knows whether they are there.
const BUILD: &[Need] = &[("gcc", "gcc"), ("pkg-config", "pkg-config"), ("git", "git")];
/// To run the cluster.
const RUN: &[Need] = &[
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
    ("mount", "mount"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
];
/// The lowest Go release that the modules take.
const GO: &str = "1.26";

/// Makes sure that all is there, installing Debian packages if it may.
///
/// Errors: not Linux, not root, or something is missing that cannot be installed; with all that is
/// missing, at once.
pub(super) fn ensure() -> Result<()> {
    root()?;
    let missing = missing();
    if !missing.is_empty() {
        if !(Path::new("/etc/debian_version").exists() && found("apt-get")) {
            bail!(
                "this machine lacks {}: install what has them (on Debian the packages are named so)",
                missing.join(", ")
            );
        }
        say(format!("installing Debian packages: {}", missing.join(" ")));
        step("apt-get", || {
            output(apt().args(["update"]))?;
            output(
                apt()
                    .args(["install", "--yes", "--no-install-recommends"])
                    .args(&missing),
            )
        })?;
    }
    if !found("go") {
        bail!("go is missing: install Go {GO} or newer (https://go.dev/dl) and put it into PATH");
    }
    Ok(())
}

/// Errors: not Linux or not root. Namespaces, mounts and control groups need both.
pub(super) fn root() -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("the embedded cluster needs Linux; set FIRN_E2E_KUBECONFIG to use another cluster");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("the embedded cluster needs root; set FIRN_E2E_KUBECONFIG to use another cluster");
    }
    Ok(())
}

/// What `go version` says.
pub(super) fn go_version() -> Result<String> {
    output(Command::new("go").arg("version"))
        .with_context(|| format!("Go {GO} or newer is needed (https://go.dev/dl)"))
}

fn missing() -> Vec<&'static str> {
    let needs = BUILD
        .iter()
        .chain(RUN)
        .filter(|(program, _)| !found(program));
    let mut packages: Vec<&str> = needs.map(|(_, package)| *package).collect();
    if !Path::new("/usr/include/stdio.h").exists() {
        packages.push("libc6-dev");
    }
    let mut headers = Command::new("pkg-config");
    headers
        .args(["--exists", "libseccomp"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if !headers.status().is_ok_and(|status| status.success()) {
        packages.push("libseccomp-dev");
    }
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command
        .arg("--quiet")
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}
