//! A store of 10 GB that takes little disk: files of holes with some noise, so that what is read,
//! hashed and compressed is 10 GB, and what is sent is not. For the memory limit only.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::closure::{Closure, PathInfo};
use super::graph::store_hash;
use super::on_all_cores;
use super::store::Described;
use crate::cluster::build::cached;
use crate::fixture::nar::nar;

/// Paths of the store; one is larger than a layer should be.
const PATHS: usize = 64;
/// Bytes of a path.
const SIZE: u64 = 160 << 20;
/// After how many bytes there is noise, and how much.
const STRIDE: u64 = 1 << 20;
const NOISE: usize = 32 * 1024;

/// The folder that stands for `/nix/store`, and its closure.
///
/// Errors: the disk is full (it takes 330 MB).
pub fn store(cache: &Path) -> Result<(PathBuf, Described)> {
    let folder = cache.join("bench/synthetic-1");
    cached(cache, &folder, make)?;
    let file = folder.join("closure.json");
    let text = fs::read_to_string(&file).context("failed to read the synthetic closure")?;
    let closure = Closure::from_json(&text)?;
    let app = closure.paths.keys().next().cloned().unwrap_or_default();
    Ok((folder.join("store"), Described { file, closure, app }))
}

fn make(folder: &Path) -> Result<()> {
    let store = folder.join("store");
    fs::create_dir(&store)?;
    let numbers: Vec<usize> = (0..PATHS).collect();
    let paths: BTreeMap<String, PathInfo> = on_all_cores(&numbers, |number| {
        let name = format!("synthetic-{number:02}");
        let base = format!("{}-{name}", store_hash(&name));
        let path = store.join(&base);
        fs::create_dir(&path)?;
        holes(&path.join("data"), &name)?;
        let contents = nar(&path)?;
        let info = PathInfo {
            nar_hash: contents.hash,
            nar_size: contents.size,
            references: Vec::new(),
        };
        Ok((base, info))
    })?
    .into_iter()
    .collect();
    fs::write(folder.join("closure.json"), Closure { paths }.to_json())?;
    Ok(())
}

/// The noise is a chain of hashes: the same on every machine, and no compressor finds a pattern.
fn holes(path: &Path, seed: &str) -> Result<()> {
    let file = File::create(path)?;
    file.set_len(SIZE)?;
    let mut hash = Sha256::digest(seed);
    for at in (0..SIZE).step_by(usize::try_from(STRIDE)?) {
        let mut noise = Vec::with_capacity(NOISE);
        while noise.len() < NOISE {
            hash = Sha256::digest(hash);
            noise.extend_from_slice(&hash);
        }
        file.write_all_at(&noise, at)?;
    }
    Ok(())
}
