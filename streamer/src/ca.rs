//! Certificates that are trusted: the system's and those that were mounted, in one file for
//! programs that take only one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::settings::Settings;

/// Name of a certificate file in its mount, as in a Secret or `ConfigMap`.
pub const FILE: &str = "ca.crt";

/// Certificates in PEM that were mounted at the pod's path `mount`, and the cluster's.
pub fn extra(settings: &Settings, mounts: &[&str]) -> io::Result<Vec<Vec<u8>>> {
    mounts
        .iter()
        .map(|mount| settings.paths.at(mount).join(FILE))
        .chain([settings.cluster_ca.clone()])
        .filter_map(|file| read_if_there(&file).transpose())
        .collect()
}

/// The bundle of the system's certificates and [`extra`], written to `to`. `None`: there is not
/// a single certificate.
pub fn bundle(settings: &Settings, mounts: &[&str], to: &Path) -> io::Result<Option<PathBuf>> {
    let system = settings.system_ca.as_deref().map(read_if_there);
    let mut parts: Vec<Vec<u8>> = system.transpose()?.flatten().into_iter().collect();
    parts.extend(extra(settings, mounts)?);
    if parts.is_empty() {
        return Ok(None);
    }
    fs::write(to, parts.join(&b"\n"[..]))?;
    Ok(Some(to.to_owned()))
}

fn read_if_there(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("failed to read {}: {error}", file.display()),
        )),
    }
}
