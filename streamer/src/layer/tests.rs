use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use firn_oci::{Compression, Compressors, Layer, LayerWriter};
use tempfile::TempDir;

use super::*;
use crate::closure::PathInfo;
use crate::input::docker_tools::{Owner, StoreLayer};
use crate::input::nix2container::{Options, PathEntry, PathsLayer, Perm, Rewrite};

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
    let failed = LayerError::sink;
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
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
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

/// As the store has them: all directories are read-only.
fn canonical() -> Fixture {
    let fixture = fixture(false, 0o444, 0o555);
    let root = fixture.store().join(fixture.directory.base_name());
    let mut directories = vec![root];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            }
        }
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o555)).unwrap();
    }
    fixture
}

fn contents_digest(fixture: &Fixture, contents: &Contents) -> Result<(String, usize), LayerError> {
    let mut tar = TarWriter::with_format(contents.format(), Vec::new());
    let store = Store::open(&fixture.store()).map_err(LayerError::sink)?;
    store.write(&no_closure(), contents, &mut tar)?;
    let bytes = tar.finish().map_err(LayerError::Write)?;
    Ok((Digest::of(&bytes).hex(), bytes.len()))
}

fn nix2container(entries: Vec<PathEntry>) -> Contents {
    Contents::Nix2container(Box::new(PathsLayer {
        entries,
        declared: Digest::of(b""),
    }))
}

const fn plain(path: StorePath) -> PathEntry {
    PathEntry {
        path,
        options: None,
    }
}

fn docker_tools(paths: Vec<StorePath>) -> Contents {
    Contents::DockerTools(Box::new(StoreLayer {
        paths,
        owner: Owner {
            uid: 0,
            gid: 0,
            user: "root".to_owned(),
            group: "root".to_owned(),
            mtime: 1,
        },
    }))
}

/// Fixed for ever: images that others published have these digests.
#[test]
fn bytes_are_those_of_other_producers() {
    let fixture = canonical();
    let all = || {
        vec![
            fixture.directory.clone(),
            fixture.file.clone(),
            fixture.link.clone(),
        ]
    };
    let of = |contents: &Contents| contents_digest(&fixture, contents).unwrap();
    let file = fixture.file.clone();
    let perm = Perm {
        regex: "-file$".to_owned(),
        mode: Some(0o4755),
        uid: 3_000_000,
        gid: 1000,
        user: "u".to_owned(),
        group: String::new(),
    };
    let with_perm = PathEntry {
        path: file.clone(),
        options: Some(Options {
            rewrite: Rewrite::None,
            perms: vec![perm],
        }),
    };
    for (contents, digest, size) in [
        (
            nix2container(all().into_iter().map(plain).collect()),
            "8dfc84082f3be9627bc4b2e736de269e9c877fbeacc57e49b9e1d53649cb8f5d",
            17920,
        ),
        (
            nix2container(vec![plain(file.clone())]),
            "cc6c8556b4b31eab4789a018a651e7863d5d2447e2e164c5ff038c8b5d0742f8",
            3584,
        ),
        (
            nix2container(vec![with_perm]),
            "7f98b3966416127827316d41583e1e2cbc0c198095d0b7bb174c6f17783101fa",
            4608,
        ),
        (
            docker_tools(all()),
            "45a58b24a6a6d7eea607662d9f85deed07b6bb5975962959e073fd93a5440aaa",
            20480,
        ),
        (
            docker_tools(vec![file]),
            "5c0b65b7c48b3a21a7a3a76331bf692a01e6a0e564f43ea2dad089f7fb19f68d",
            10240,
        ),
    ] {
        assert_eq!(of(&contents), (digest.to_owned(), size));
    }
}

/// What Firn makes of a closure in others' formats has the digests of others' layers, and of
/// contents alone: whatever modes the files have here.
#[test]
fn layers_of_firn_s_own_in_formats_of_others_have_their_digests() {
    for fixture in [canonical(), fixture(true, 0o664, 0o711)] {
        let all = [&fixture.directory, &fixture.file, &fixture.link].map(Clone::clone);
        let digest = |profile: Profile, paths: &[StorePath]| {
            let paths = paths.to_vec();
            let paths = crate::input::Paths { profile, paths };
            let made = contents_digest(&fixture, &Contents::Paths(paths));
            made.unwrap().0
        };
        let file = [fixture.file.clone()];
        for (profile, paths, expected) in [
            (
                Profile::Nix2container,
                &all[..],
                "8dfc84082f3be9627bc4b2e736de269e9c877fbeacc57e49b9e1d53649cb8f5d",
            ),
            (
                Profile::Nix2container,
                &file,
                "cc6c8556b4b31eab4789a018a651e7863d5d2447e2e164c5ff038c8b5d0742f8",
            ),
            (
                Profile::DockerTools,
                &all,
                "45a58b24a6a6d7eea607662d9f85deed07b6bb5975962959e073fd93a5440aaa",
            ),
            (
                Profile::DockerTools,
                &file,
                "5c0b65b7c48b3a21a7a3a76331bf692a01e6a0e564f43ea2dad089f7fb19f68d",
            ),
        ] {
            assert_eq!(digest(profile, paths), expected, "{profile:?}");
        }
    }
}

#[test]
fn docker_tools_sorts_by_name_before_hash() {
    let mut paths = [
        store_path("2", "a"),
        store_path("1", "b"),
        store_path("1", "a"),
    ];
    Profile::DockerTools.sort(&mut paths);
    assert_eq!(
        paths,
        [
            store_path("1", "a"),
            store_path("2", "a"),
            store_path("1", "b")
        ]
    );
}

/// As nix2container's rules are: the last one wins where kind, mode and size agree.
#[test]
fn two_paths_at_one_place_are_explained_unless_they_are_alike() {
    let fixture = canonical();
    let paths = [("5", "same"), ("6", "size"), ("7", "mode")].map(|(d, n)| store_path(d, n));
    for (path, text, mode) in [
        (&paths[0], "y\n", 0o444),
        (&paths[1], "longer\n", 0o444),
        (&paths[2], "z\n", 0o555),
    ] {
        put(&fixture.store().join(path.base_name()), text, mode);
    }
    let at = |path: &StorePath| PathEntry {
        path: path.clone(),
        options: Some(Options {
            rewrite: Rewrite::Prefix {
                prefix: path.to_string(),
                replacement: "/etc/conf".to_owned(),
            },
            perms: Vec::new(),
        }),
    };
    let both =
        |other| contents_digest(&fixture, &nix2container(vec![at(&fixture.file), at(other)]));
    let alone = contents_digest(&fixture, &nix2container(vec![at(&paths[0])]));
    assert_eq!(both(&paths[0]).unwrap(), alone.unwrap());
    for (other, word) in [
        (&paths[1], "sizes"),
        (&paths[2], "modes"),
        (&fixture.link, "kinds"),
    ] {
        let error = both(other).unwrap_err();
        assert!(matches!(error, LayerError::Overlap { .. }), "{error}");
        let text = error.to_string();
        for part in [
            "/etc/conf",
            word,
            fixture.file.base_name(),
            other.base_name(),
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}

/// One that is moved into the place of another which stays: neither streams past the other.
#[test]
fn a_path_may_be_moved_into_another_one() {
    let fixture = canonical();
    let into = PathEntry {
        path: fixture.file.clone(),
        options: Some(Options {
            rewrite: Rewrite::Prefix {
                prefix: fixture.file.to_string(),
                replacement: format!("{}/lib/a/d", fixture.directory),
            },
            perms: Vec::new(),
        }),
    };
    let contents = nix2container(vec![plain(fixture.directory.clone()), into]);
    let mut tar = TarWriter::with_format(contents.format(), Vec::new());
    let store = Store::open(&fixture.store()).unwrap();
    store.write(&no_closure(), &contents, &mut tar).unwrap();
    let bytes = tar.finish().unwrap();
    let mut reader = firn_oci::tar::TarReader::new(bytes.as_slice());
    let mut names = Vec::new();
    while let Some(member) = reader.next_member().unwrap() {
        names.push(String::from_utf8_lossy(&member.name).into_owned());
    }
    let at = names
        .iter()
        .position(|name| name.ends_with("/lib/a/d"))
        .unwrap();
    assert!(names[at - 1].ends_with("/lib/a/c") && names[at + 1].ends_with("/lib/a-b"));
    assert_eq!(names.len(), 3 + 15 + 1);
}

#[test]
fn rules_that_lead_nowhere_or_without_end_are_errors() {
    let fixture = canonical();
    let rule = |regex: &str, replacement: &str| {
        let entry = PathEntry {
            path: fixture.file.clone(),
            options: Some(Options {
                rewrite: Rewrite::Regex {
                    regex: regex.to_owned(),
                    replacement: replacement.to_owned(),
                },
                perms: Vec::new(),
            }),
        };
        contents_digest(&fixture, &nix2container(vec![entry])).map(|_| ())
    };
    assert!(rule("^/nix/store/[^-]*-", "/").is_ok());
    for (regex, replacement) in [
        ("^/nix", "relative"),
        ("^/nix/store", "/../../etc"),
        ("^/nix", "/a/.."),
    ] {
        let error = rule(regex, replacement).unwrap_err();
        assert!(matches!(error, LayerError::Destination { .. }), "{error}");
    }
    for regex in ["(", "a{1000}{1000}{1000}", "++"] {
        let error = rule(regex, "").unwrap_err();
        assert!(matches!(error, LayerError::Rule { .. }), "{error}");
    }
}

#[test]
fn contents_that_nix_did_not_record_are_refused_where_rules_are_too() {
    let fixture = canonical();
    let info = PathInfo {
        nar_hash: NarHash([7; 32]),
        nar_size: 120,
        references: Vec::new(),
    };
    let closure = Closure::new([(fixture.file.clone(), info)].into()).unwrap();
    let entry = PathEntry {
        path: fixture.file.clone(),
        options: Some(Options {
            rewrite: Rewrite::None,
            perms: Vec::new(),
        }),
    };
    let contents = nix2container(vec![entry]);
    let mut tar = TarWriter::with_format(contents.format(), io::sink());
    let written = Store::open(&fixture.store())
        .unwrap()
        .write(&closure, &contents, &mut tar);
    assert!(matches!(written, Err(LayerError::Altered { .. })));
}
