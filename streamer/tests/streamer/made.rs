//! A made store: paths with files on a real file system, and what Nix would say of them.

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use firn_oci::{Compression, Compressors, Layer, LayerWriter};
use firn_streamer::closure::{Closure, PathInfo};
use firn_streamer::input::{Contents, Paths, Profile};
use firn_streamer::layer::Store;
use firn_streamer::nar::NarHasher;
use firn_streamer::store_path::StorePath;

/// A store path's contents: one file in `share`, and a program.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) path: StorePath,
    pub(crate) contents: Vec<u8>,
    pub(crate) references: Vec<StorePath>,
}

/// `version` makes another hash for the same name.
pub(crate) fn store_path(index: usize, version: usize) -> StorePath {
    StorePath::of_base_name(&format!("{index:016}{version:016}-part{index}-1.0")).unwrap()
}

/// Bytes that do not compress, from `seed` alone.
pub(crate) fn noise(seed: usize, size: usize) -> Vec<u8> {
    let mut state = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = (0..size.div_ceil(8)).flat_map(|_| next().to_le_bytes());
    words.take(size).collect()
}

impl Package {
    pub(crate) fn info(&self) -> PathInfo {
        let mut nar = NarHasher::new();
        nar.begin_directory(None);
        nar.begin_directory(Some(b"bin"));
        file(&mut nar, b"run", true, b"#!/bin/sh\n");
        nar.end_directory();
        nar.begin_directory(Some(b"share"));
        file(&mut nar, b"data", false, &self.contents);
        nar.end_directory();
        nar.end_directory();
        let (nar_hash, nar_size) = nar.finish();
        PathInfo {
            nar_hash,
            nar_size,
            references: self.references.clone(),
        }
    }

    /// Writes it with these modes; `backwards` makes its directories in the other order.
    pub(crate) fn write(&self, store: &Path, read: u32, execute: u32, backwards: bool) {
        let root = store.join(self.path.base_name());
        let mut files: Vec<(PathBuf, &[u8], u32)> = vec![
            (root.join("bin/run"), b"#!/bin/sh\n", execute),
            (root.join("share/data"), &self.contents, read),
        ];
        if backwards {
            files.reverse();
        }
        for (path, contents, mode) in files {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, contents).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

fn file(nar: &mut NarHasher, name: &[u8], executable: bool, contents: &[u8]) {
    use std::io::Write as _;
    nar.begin_file(Some(name), executable, contents.len() as u64);
    nar.write_all(contents).unwrap();
    nar.end_file(contents.len() as u64);
}

pub(crate) fn layer(
    store: &Path,
    closure: &Closure,
    paths: &[StorePath],
    compression: Compression,
    threads: usize,
) -> Layer {
    let threads = NonZeroUsize::new(threads).unwrap();
    let pool = Compressors::new(threads).unwrap();
    let mut tar = LayerWriter::new(compression, &pool, std::io::sink()).into_tar();
    let contents = Contents::Paths(Paths {
        profile: Profile::Nar1,
        paths: paths.to_vec(),
    });
    Store::open(store)
        .unwrap()
        .write(closure, &contents, &mut tar)
        .unwrap();
    firn_oci::layer::finish(tar).unwrap().0
}
