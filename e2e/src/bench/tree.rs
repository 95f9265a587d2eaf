//! Store paths as a sorted tar, by Firn's own tar writer but without Firn's streamer: what the
//! floor and the docker-archive are made of. The bytes are those of the profile `nar/1`, so that
//! every competitor sends the same.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use firn_oci::{Metadata, TarWriter};

/// Writes the paths of a layer, given by sorted base names.
///
/// Errors: something cannot be read, or the sink not be written.
pub(super) fn write<W: Write>(
    tar: &mut TarWriter<W>,
    store: &Path,
    layer: &[String],
) -> Result<()> {
    for parent in [&b"nix"[..], b"nix/store"] {
        tar.directory(parent, Metadata::root(0o755))?;
    }
    for base in layer {
        let mut name = b"nix/store/".to_vec();
        name.extend_from_slice(base.as_bytes());
        node(tar, &store.join(base), &mut name)?;
    }
    Ok(())
}

fn node<W: Write>(tar: &mut TarWriter<W>, path: &Path, name: &mut Vec<u8>) -> Result<()> {
    let at = || format!("failed to read {}", path.display());
    let metadata = path.symlink_metadata().with_context(at)?;
    if metadata.is_dir() {
        tar.directory(name, Metadata::root(0o555))?;
        let mut children = fs::read_dir(path)
            .with_context(at)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<std::io::Result<Vec<_>>>()
            .with_context(at)?;
        children.sort();
        let length = name.len();
        for child in children {
            name.push(b'/');
            name.extend_from_slice(child.as_bytes());
            node(tar, &path.join(&child), name)?;
            name.truncate(length);
        }
    } else if metadata.is_symlink() {
        let target = fs::read_link(path).with_context(at)?;
        tar.symlink(name, Metadata::root(0o777), target.as_os_str().as_bytes())?;
    } else {
        let executable = metadata.permissions().mode() & 0o100 != 0;
        let mode = if executable { 0o555 } else { 0o444 };
        let file = File::open(path).with_context(at)?;
        tar.file(name, Metadata::root(mode), metadata.len(), file)?;
    }
    Ok(())
}
