use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use firn_oci::{Compression, Compressors, Layer, LayerWriter};
use tempfile::TempDir;

use super::*;
use crate::closure::PathInfo;

/// The fixture of the golden vectors: a directory, a file, and a link.
struct Fixture {
    dir: TempDir,
    directory: StorePath,
    file: StorePath,
    link: StorePath,
}

impl Fixture {
    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }
}

fn store_path(digit: &str, name: &str) -> StorePath {
    StorePath::of_base_name(&format!("{}-{name}", digit.repeat(32))).unwrap()
}

fn put(path: &Path, contents: &str, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// `order` is the order in which entries are made; `read` and `exec` are modes.
fn fixture(reverse: bool, read: u32, exec: u32) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture {
        dir,
        directory: store_path("0", "fix"),
        file: store_path("1", "file"),
        link: store_path("2", "ln"),
    };
    let store = fixture.store();
    let root = store.join(fixture.directory.base_name());
    let mut files = vec![
        (root.join("bin/run"), "#!/bin/sh\n", exec),
        (root.join("lib/a/c"), "2", read),
        (root.join("lib/a-b"), "1", read),
        (
            root.join("share").join("d".repeat(60)).join("n".repeat(60)),
            "3",
            read,
        ),
        (root.join("share").join("m".repeat(120)), "4", read),
        (root.join("share/é"), "5", read),
        (store.join(fixture.file.base_name()), "x\n", read),
    ];
    if reverse {
        files.reverse();
    }
    for (path, contents, mode) in files {
        put(&path, contents, mode);
    }
    fs::create_dir(root.join("empty")).unwrap();
    symlink("bin/run", root.join("link")).unwrap();
    symlink("t".repeat(101), root.join("longlink")).unwrap();
    symlink(
        fixture.directory.to_string(),
        store.join(fixture.link.base_name()),
    )
    .unwrap();
    fixture
}

fn write(store: &Path, closure: &Closure, paths: &[StorePath]) -> Result<Layer, LayerError> {
    let failed = |error| LayerError::Write(firn_oci::tar::TarError::Write(error));
    let pool = Compressors::on_all_cores().map_err(failed)?;
    let mut tar = LayerWriter::new(Compression::NONE, &pool, io::sink()).into_tar();
    let contents = Contents::Paths(crate::input::Paths {
        profile: Profile::Nar1,
        paths: paths.to_vec(),
    });
    Store::open(store)
        .map_err(failed)?
        .write(closure, &contents, &mut tar)?;
    let (layer, _) = firn_oci::layer::finish(tar).map_err(LayerError::Write)?;
    Ok(layer)
}

fn no_closure() -> Closure {
    Closure::new([].into()).unwrap()
}

fn digest_of(fixture: &Fixture, paths: &[&StorePath]) -> String {
    let paths: Vec<StorePath> = paths.iter().map(|path| (*path).clone()).collect();
    let layer = write(&fixture.store(), &no_closure(), &paths).unwrap();
    layer.diff_id.to_string()
}

/// Fixed for ever: published layers have these digests.
#[test]
fn bytes_are_those_of_the_profile() {
    let fixture = fixture(false, 0o444, 0o555);
    let all = [&fixture.directory, &fixture.file, &fixture.link];
    assert_eq!(
        digest_of(&fixture, &all),
        "sha256:83dc7d8975c655820171914d394402b40638378e8077b3e431b3addd00e87d8f"
    );
    assert_eq!(
        digest_of(&fixture, &[&fixture.file]),
        "sha256:49bc3b9f5d24a2d22dd6953d9725547f9f8bdf5dcfef2d7b35cd6d1a9dc27a1a"
    );
    assert_eq!(
        digest_of(&fixture, &[]),
        "sha256:31e10dc87d1f7f8c7e1d01351c0c9ccd159fb451476c2cba86b1f864e91b13d4"
    );
}

#[test]
fn modes_and_directory_order_make_no_difference() {
    let usual = fixture(false, 0o444, 0o555);
    let odd = fixture(true, 0o664, 0o711);
    let digest = |f: &Fixture| digest_of(f, &[&f.directory, &f.file, &f.link]);
    assert_eq!(digest(&usual), digest(&odd));
}

#[test]
fn contents_that_nix_did_not_record_are_refused() {
    let fixture = fixture(false, 0o444, 0o555);
    let closure = |nar_hash: &str| {
        let info = PathInfo {
            nar_hash: nar_hash.parse().unwrap(),
            nar_size: 120,
            references: Vec::new(),
        };
        Closure::new([(fixture.file.clone(), info)].into()).unwrap()
    };
    let paths = [fixture.file.clone()];
    let good = closure("sha256-CHv7VWjHZuWqF7KIw2tYpREEYCgkGgTQfpbDPFSUqKE=");
    let error = write(&fixture.store(), &good, &paths).map(|_| ());
    let LayerError::Altered { actual, .. } = error.unwrap_err() else {
        panic!("another error");
    };
    write(&fixture.store(), &closure(&actual.to_string()), &paths).unwrap();
}

#[test]
fn a_store_that_leads_elsewhere_is_refused() {
    let fixture = fixture(false, 0o444, 0o555);
    let alias = fixture.dir.path().join("alias");
    symlink(fixture.store(), &alias).unwrap();
    assert!(Store::open(&alias).is_err());
}

#[test]
fn a_pipe_is_refused_without_waiting_for_it() {
    let fixture = fixture(false, 0o444, 0o555);
    let pipe = store_path("3", "pipe");
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        fixture.store().join(pipe.base_name()),
        FileType::Fifo,
        Mode::RUSR,
        0,
    );
    made.unwrap();
    assert!(matches!(
        write(&fixture.store(), &no_closure(), &[pipe]),
        Err(LayerError::Special { .. })
    ));
}

#[test]
fn a_missing_path_is_named() {
    let fixture = fixture(false, 0o444, 0o555);
    let error = write(&fixture.store(), &no_closure(), &[store_path("4", "gone")]).unwrap_err();
    assert!(error.to_string().contains("-gone"), "{error}");
}
