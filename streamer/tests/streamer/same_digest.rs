//! The same closure gives the same layers, whatever the file system, the modes, the order of
//! directories, the clock, and the number of threads.

use std::path::Path;

use crate::made::{Package, layer, noise, store_path};
use firn_oci::{Compression, Digest};
use firn_streamer::closure::Closure;
use firn_streamer::layering::{Strategy, plan};

fn packages() -> Vec<Package> {
    (0..20)
        .map(|index| Package {
            path: store_path(index, 0),
            contents: noise(index, 1000 + index * index * 5000),
            references: (0..index).rev().take(2).map(|i| store_path(i, 0)).collect(),
        })
        .collect()
}

fn digests(
    store: &Path,
    packages: &[Package],
    compression: Compression,
    threads: usize,
) -> Vec<Digest> {
    let infos = packages
        .iter()
        .map(|package| (package.path.clone(), package.info()));
    let closure = Closure::new(infos.collect()).unwrap();
    plan(&closure, 10, Strategy::Stable)
        .iter()
        .map(|planned| {
            layer(store, &closure, &planned.paths, compression, threads)
                .descriptor
                .digest
        })
        .collect()
}

#[test]
fn two_stores_give_the_same_layers() {
    let packages = packages();
    let one = tempfile::tempdir().unwrap();
    // Another file system where there is one.
    let shm = Path::new("/dev/shm");
    let two = if shm.is_dir() {
        tempfile::tempdir_in(shm).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    for package in &packages {
        package.write(one.path(), 0o444, 0o555, false);
    }
    for package in packages.iter().rev() {
        package.write(two.path(), 0o666, 0o700, true);
    }
    let mut shuffled = packages.clone();
    shuffled.reverse();
    for compression in [Compression::ZSTD, Compression::GZIP, Compression::NONE] {
        let first = digests(one.path(), &packages, compression, 1);
        assert_eq!(
            first,
            digests(two.path(), &shuffled, compression, 4),
            "{compression:?}"
        );
        assert!(first.len() > 3);
    }
}
