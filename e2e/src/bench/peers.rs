//! Who is measured, and how each is called to push a closure.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use firn_oci::Digest;

use super::store::Described;
use crate::debian::{self, Lock};

/// The committed pins of skopeo and its libraries.
pub const SKOPEO_LOCK: &str = include_str!("../../debian/skopeo-forky-amd64.lock");

/// A competitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// `firn-streamer push`.
    Firn,
    /// What any tool must do; see [`super::floor`].
    Floor,
    /// A docker-archive of the same layers through skopeo, which compresses them with gzip.
    Gzip,
    /// The same with zstd.
    Zstd,
    /// nix2container's layers through its own skopeo.
    Nix2container,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Firn => "Firn",
            Self::Floor => "floor",
            Self::Gzip => "archive, gzip",
            Self::Zstd => "archive, zstd",
            Self::Nix2container => "nix2container",
        })
    }
}

/// The programs of all.
#[derive(Debug)]
pub struct Programs {
    /// Firn's.
    pub firn: PathBuf,
    /// This program: it makes archives and the floor.
    pub own: PathBuf,
    /// Debian's tree with skopeo.
    pub skopeo: PathBuf,
    /// A folder with `nix2container` and its `skopeo`, if there is one.
    pub nix2container: Option<PathBuf>,
}

/// What is to be pushed where.
#[derive(Debug, Clone, Copy)]
pub struct Push<'a> {
    /// The folder that stands for `/nix/store`.
    pub store: &'a Path,
    /// What Nix says of it.
    pub closure: &'a Described,
    /// Firn's layers of it, for those who have no planner: a JSON list of lists of base names.
    pub layers: &'a Path,
    /// nix2container's image of it.
    pub image: &'a Path,
    /// Host and port.
    pub registry: &'a str,
    /// Without the host.
    pub repository: &'a str,
    /// The tag.
    pub tag: &'a str,
    /// What was published before, with its repository: for who remembers it.
    pub previous: Option<(&'a str, &'a Digest)>,
}

impl Programs {
    /// The commands, each one's output being the next one's input.
    ///
    /// Errors: nix2container is asked for and not there.
    pub fn push(&self, peer: Peer, push: &Push<'_>) -> Result<Vec<Command>> {
        let reference = format!("{}/{}:{}", push.registry, push.repository, push.tag);
        Ok(match peer {
            Peer::Firn => vec![self.firn_push(push, &reference)],
            Peer::Floor => {
                let mut floor = Command::new(&self.own);
                floor
                    .arg("floor")
                    .args(["--store".into(), push.store.as_os_str().to_owned()]);
                floor.args(["--layers".into(), push.layers.as_os_str().to_owned()]);
                floor.arg(format!("http://{}/v2/{}", push.registry, push.repository));
                vec![floor]
            }
            Peer::Gzip | Peer::Zstd => {
                let mut archive = Command::new(&self.own);
                archive
                    .arg("archive")
                    .args(["--store".into(), push.store.as_os_str().to_owned()]);
                archive.args(["--layers".into(), push.layers.as_os_str().to_owned()]);
                let mut skopeo = self.skopeo();
                copy(&mut skopeo);
                if peer == Peer::Zstd {
                    skopeo.args([
                        "--dest-compress-format",
                        "zstd",
                        "--dest-force-compress-format",
                    ]);
                }
                skopeo.args([
                    "docker-archive:/dev/stdin",
                    &format!("docker://{reference}"),
                ]);
                vec![archive, skopeo]
            }
            Peer::Nix2container => {
                let folder = self.nix2container.as_ref();
                let folder = folder.context("there is no nix2container")?;
                let mut skopeo = Command::new(folder.join("skopeo"));
                copy(&mut skopeo);
                let mut image = OsString::from("nix:");
                image.push(push.image);
                skopeo.arg(image).arg(format!("docker://{reference}"));
                vec![skopeo]
            }
        })
    }

    fn firn_push(&self, push: &Push<'_>, reference: &str) -> Command {
        let app = format!("/nix/store/{}", push.closure.app);
        let mut firn = Command::new(&self.firn);
        firn.args(["push", &app, "--quiet", "--plain-http"]);
        firn.arg("--closure").arg(&push.closure.file);
        firn.arg("--store").arg(push.store);
        // Named, so that nothing has to be looked at in the store.
        firn.args([
            "--entry-point",
            &format!("{app}/bin/app"),
            "--to",
            reference,
        ]);
        if let Some((repository, digest)) = push.previous {
            let previous = format!("{}/{repository}@{digest}", push.registry);
            firn.args(["--previous", &previous]);
        }
        firn
    }

    /// skopeo of a newer Debian: by its own loader, with its own libraries.
    fn skopeo(&self) -> Command {
        let libraries = self.skopeo.join("usr/lib/x86_64-linux-gnu");
        let mut skopeo = Command::new(libraries.join("ld-linux-x86-64.so.2"));
        skopeo.arg("--library-path").arg(&libraries);
        skopeo.arg(self.skopeo.join("usr/bin/skopeo"));
        skopeo
    }
}

fn copy(skopeo: &mut Command) {
    skopeo.args([
        "--insecure-policy",
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
    ]);
}

/// Debian's tree with skopeo; downloaded unless it is in the cache.
///
/// Errors: no network.
pub fn skopeo(cache: &Path) -> Result<(PathBuf, String)> {
    let tree = debian::tree(&SKOPEO_LOCK.parse::<Lock>()?, cache)?;
    let version = tree
        .lock
        .version("skopeo")
        .context("no skopeo was fetched")?
        .to_owned();
    ensure!(
        tree.root.join("usr/bin/skopeo").exists(),
        "Debian's skopeo is not where it was"
    );
    Ok((tree.root, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_skopeo_reads_archives_from_a_pipe() {
        let lock: Lock = SKOPEO_LOCK.parse().unwrap();
        let version = lock.version("skopeo").unwrap();
        let mut numbers = version
            .split(['.', '+', '-'])
            .map(|n| n.parse::<u32>().unwrap_or(0));
        assert!(
            (numbers.next(), numbers.next()) > (Some(1), Some(20)),
            "{version}"
        );
    }
}
