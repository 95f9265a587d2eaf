use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use firn_oci::tar::CAPABILITY_XATTR;
use firn_oci::{Compression, Compressors, LayerWriter};
use tempfile::TempDir;

use super::*;
use crate::closure::PathInfo;
use crate::input::Contents;
use crate::input::root::Wanted;
use crate::input::tree::Pattern;
use crate::nar_hash::NarHash;

/// Store paths with these names and files; a file's name ends with `*` if it is a program, and
/// with `@` if its contents are a link's target.
fn store(paths: &[(&str, &[(&str, &str)])]) -> (TempDir, Closure) {
    let dir = tempfile::tempdir().unwrap();
    let mut infos = BTreeMap::new();
    for (name, files) in paths {
        let path = crate::testing::path(name);
        let root = dir.path().join(path.base_name());
        for (file, contents) in *files {
            put(&root, file, contents);
        }
        let info = PathInfo {
            nar_hash: nar_hash(dir.path(), &path),
            nar_size: 1000,
            references: Vec::new(),
        };
        infos.insert(path, info);
    }
    (dir, Closure::new(infos).unwrap())
}

fn put(root: &Path, file: &str, contents: &str) {
    let at = root.join(file.trim_end_matches(['*', '@']));
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    if file.ends_with('@') {
        symlink(contents, at).unwrap();
        return;
    }
    fs::write(&at, contents).unwrap();
    if file.ends_with('*') {
        fs::set_permissions(&at, fs::Permissions::from_mode(0o555)).unwrap();
    }
}

fn nar_hash(store: &Path, path: &StorePath) -> NarHash {
    let wrong = PathInfo {
        nar_hash: NarHash([0; 32]),
        nar_size: 0,
        references: Vec::new(),
    };
    let closure = Closure::new([(path.clone(), wrong)].into()).unwrap();
    match Store::open(store).unwrap().verify(&closure, path) {
        Err(LayerError::Altered { actual, .. }) => actual,
        other => panic!("{other:?}"),
    }
}

#[expect(
    clippy::unwrap_in_result,
    reason = "a fixture that cannot be made fails the test"
)]
fn write(dir: &TempDir, closure: &Closure, tree: &Tree) -> Result<Vec<u8>, LayerError> {
    let pool = Compressors::on_all_cores().unwrap();
    let writer = LayerWriter::new(Compression::NONE, &pool, Vec::new());
    let mut tar = writer.into_tar();
    let contents = Contents::Files(Box::new(tree.clone()));
    Store::open(dir.path())
        .unwrap()
        .write(closure, &contents, &mut tar)?;
    Ok(firn_oci::layer::finish(tar).unwrap().1)
}

/// `mode uid:gid name -> target or contents`, as an independent reader sees it.
fn listing(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| {
            let mut entry = entry.unwrap();
            let header = entry.header().clone();
            let name = entry.path().unwrap().display().to_string();
            let mut contents = String::new();
            entry.read_to_string(&mut contents).unwrap();
            let target = entry
                .link_name()
                .unwrap()
                .map(|target| format!(" -> {}", target.display()));
            let rest = target.unwrap_or_else(|| {
                if contents.is_empty() {
                    String::new()
                } else {
                    format!(" = {}", contents.trim_end())
                }
            });
            format!(
                "{:o} {}:{} {name}{rest}",
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap()
            )
        })
        .collect()
}

fn copied(name: &str, how: How) -> Copied {
    Copied {
        path: crate::testing::path(name),
        at: "/".parse().unwrap(),
        how,
    }
}

fn rule(pattern: &str) -> Rule {
    Rule {
        pattern: pattern.parse::<Pattern>().unwrap(),
        ..Rule::default()
    }
}

/// `<app>` for `/nix/store/<hash>-app`.
fn short(lines: Vec<String>, names: &[&str]) -> Vec<String> {
    let shorten = |line: String| {
        names.iter().fold(line, |line, name| {
            line.replace(crate::testing::path(name).base_name(), &format!("<{name}>"))
        })
    };
    lines.into_iter().map(shorten).collect()
}

#[test]
fn trees_are_merged_at_the_root_as_links_or_as_files() {
    let (dir, closure) = store(&[
        (
            "a",
            &[("etc/a.conf", "a"), ("bin/run*", "run"), ("bin/go@", "run")],
        ),
        ("b", &[("etc/b.conf", "b")]),
    ]);
    let tree = |how| Tree {
        copies: vec![copied("a", how), copied("b", how)],
        ..Tree::default()
    };
    let names = ["a", "b"];
    let linked = write(&dir, &closure, &tree(How::Link)).unwrap();
    assert_eq!(
        short(listing(&linked), &names),
        [
            "755 0:0 bin/",
            "777 0:0 bin/go -> run",
            "777 0:0 bin/run -> /nix/store/<a>/bin/run",
            "755 0:0 etc/",
            "777 0:0 etc/a.conf -> /nix/store/<a>/etc/a.conf",
            "777 0:0 etc/b.conf -> /nix/store/<b>/etc/b.conf",
        ]
    );
    let written = write(&dir, &closure, &tree(How::Copy)).unwrap();
    assert_eq!(
        short(listing(&written), &names),
        [
            "755 0:0 bin/",
            "777 0:0 bin/go -> run",
            "555 0:0 bin/run = run",
            "755 0:0 etc/",
            "444 0:0 etc/a.conf = a",
            "444 0:0 etc/b.conf = b",
        ]
    );
}

#[test]
fn two_for_one_place_are_both_named_unless_they_are_alike() {
    let (dir, closure) = store(&[
        ("a", &[("etc/conf", "same"), ("etc/other", "1")]),
        ("b", &[("etc/conf", "same")]),
        ("c", &[("etc/other", "2")]),
        ("d", &[("etc", "no directory")]),
    ]);
    let tree = |names: &[&str]| Tree {
        copies: names.iter().map(|name| copied(name, How::Copy)).collect(),
        ..Tree::default()
    };
    write(&dir, &closure, &tree(&["a", "b"])).unwrap();
    for (names, place) in [(["a", "c"], "/etc/other"), (["a", "d"], "/etc")] {
        let error = write(&dir, &closure, &tree(&names)).unwrap_err();
        let message = error.to_string();
        assert!(
            error.is_request() && message.starts_with(place),
            "{message}"
        );
        for name in names {
            let path = crate::testing::path(name).to_string();
            assert!(message.contains(&path), "{message} names {path}");
        }
    }
}

#[test]
fn a_default_gives_way_and_a_declaration_does_not() {
    let (dir, closure) = store(&[("a", &[("etc/passwd", "mine"), ("tmp@", "var/tmp")])]);
    let mut tree = Tree {
        copies: vec![copied("a", How::Copy)],
        ..Tree::default()
    };
    tree.tmp(Wanted::Default);
    tree.users(Wanted::Default, &[], &[]).unwrap();
    let lines = listing(&write(&dir, &closure, &tree).unwrap());
    assert!(
        lines.contains(&"444 0:0 etc/passwd = mine".to_owned()),
        "{lines:?}"
    );
    assert!(
        lines.contains(&"777 0:0 tmp -> var/tmp".to_owned()),
        "{lines:?}"
    );
    tree.tmp(Wanted::Declared);
    let error = write(&dir, &closure, &tree).unwrap_err().to_string();
    assert!(error.contains("`tmp`"), "{error}");
}

#[test]
fn a_rule_writes_a_file_of_the_store_again_with_another_mode() {
    let (dir, closure) = store(&[
        (
            "sudo-1",
            &[
                ("bin/sudo*", "sudo"),
                ("bin/sudoedit@", "sudo"),
                ("share/doc", "doc"),
            ],
        ),
        ("other", &[("bin/sudo*", "other")]),
    ]);
    let tree = Tree {
        rules: vec![Rule {
            mode: Some(0o4755),
            gid: Some(27),
            xattrs: [(CAPABILITY_XATTR.to_owned(), vec![1, 2, 3])].into(),
            ..rule("/nix/store/*-sudo-*/bin/sudo")
        }],
        ..Tree::default()
    };
    let bytes = write(&dir, &closure, &tree).unwrap();
    assert_eq!(
        short(listing(&bytes), &["sudo-1"]),
        [
            "755 0:0 nix/",
            "755 0:0 nix/store/",
            "555 0:0 nix/store/<sudo-1>/",
            "555 0:0 nix/store/<sudo-1>/bin/",
            "4755 0:27 nix/store/<sudo-1>/bin/sudo = sudo",
        ]
    );
    let record = b"SCHILY.xattr.security.capability=\x01\x02\x03\n";
    assert!(bytes.windows(record.len()).any(|window| window == record));
}

#[test]
fn a_rule_turns_a_link_into_the_file_it_leads_to() {
    let ping = format!("{}/bin/ping", crate::testing::path("ping"));
    let (dir, closure) = store(&[
        ("ping", &[("bin/ping*", "ping")]),
        ("env", &[("bin/ping@", &ping), ("bin/gone@", "/nowhere")]),
    ]);
    let tree = |pattern| Tree {
        copies: vec![copied("env", How::Link)],
        rules: vec![Rule {
            mode: Some(0o4555),
            uid: Some(5),
            ..rule(pattern)
        }],
        ..Tree::default()
    };
    let lines = listing(&write(&dir, &closure, &tree("/bin/ping")).unwrap());
    assert_eq!(
        lines,
        [
            "755 0:0 bin/",
            "777 0:0 bin/gone -> /nowhere",
            "4555 5:0 bin/ping = ping"
        ]
    );
    let error = write(&dir, &closure, &tree("/bin/gone")).unwrap_err();
    assert!(matches!(error, LayerError::LinkWithMode { .. }), "{error}");
    let error = write(&dir, &closure, &tree("/bin/pong")).unwrap_err();
    assert!(error.to_string().contains("/bin/pong"), "{error}");
}

#[test]
fn owners_and_modes_of_a_subtree() {
    let (dir, closure) = store(&[("srv", &[("srv/data/x", "x")])]);
    let tree = Tree {
        copies: vec![copied("srv", How::Copy)],
        rules: vec![
            Rule {
                uid: Some(1000),
                gid: Some(1000),
                ..rule("/srv/**")
            },
            Rule {
                directory_mode: Some(0o2770),
                mode: Some(0o640),
                ..rule("/srv/data/**")
            },
        ],
        ..Tree::default()
    };
    assert_eq!(
        listing(&write(&dir, &closure, &tree).unwrap()),
        [
            "755 1000:1000 srv/",
            "2770 1000:1000 srv/data/",
            "640 1000:1000 srv/data/x = x"
        ]
    );
}

#[test]
fn what_is_removed_is_marked_and_what_takes_its_place_stays() {
    let (dir, closure) = store(&[("etc", &[("etc/new", "new"), ("opt/app/x", "x")])]);
    let whole = |path: &str| Removal::Whole(path.parse().unwrap());
    let tree = Tree {
        copies: vec![copied("etc", How::Copy)],
        removals: [
            whole("/usr/share/doc"),
            whole("/etc/new"),
            whole("/opt/app"),
            Removal::Contents("/var/cache".parse().unwrap()),
        ]
        .into(),
        parents: Parents::Left,
        ..Tree::default()
    };
    assert_eq!(
        listing(&write(&dir, &closure, &tree).unwrap()),
        [
            "755 0:0 etc/",
            "444 0:0 etc/new = new",
            "755 0:0 opt/",
            "755 0:0 opt/app/",
            "644 0:0 opt/app/.wh..wh..opq",
            "444 0:0 opt/app/x = x",
            "644 0:0 usr/share/.wh.doc",
            "755 0:0 var/cache/",
            "644 0:0 var/cache/.wh..wh..opq",
        ]
    );
}

#[test]
fn what_was_altered_after_it_was_built_gets_to_no_place() {
    let (dir, closure) = store(&[("a", &[("etc/conf", "good")])]);
    let at = dir
        .path()
        .join(crate::testing::path("a").base_name())
        .join("etc/conf");
    fs::write(at, "evil").unwrap();
    for how in [How::Copy, How::Link] {
        let tree = Tree {
            copies: vec![copied("a", how)],
            ..Tree::default()
        };
        let error = write(&dir, &closure, &tree).unwrap_err();
        assert!(matches!(error, LayerError::Altered { .. }), "{error}");
    }
}

#[test]
fn mount_points_are_empty_and_of_the_path_s_kind() {
    let (dir, closure) = store(&[("dir", &[("x", "x")])]);
    let file = crate::testing::path("file");
    fs::write(dir.path().join(file.base_name()), "contents").unwrap();
    let tree = Tree {
        mount_points: [crate::testing::path("dir"), file].into(),
        ..Tree::default()
    };
    let lines = short(
        listing(&write(&dir, &closure, &tree).unwrap()),
        &["dir", "file"],
    );
    let mut lines = lines.into_iter();
    assert_eq!(lines.next().as_deref(), Some("755 0:0 nix/"));
    assert_eq!(lines.next().as_deref(), Some("755 0:0 nix/store/"));
    let mut rest: Vec<String> = lines.collect();
    rest.sort();
    assert_eq!(
        rest,
        ["555 0:0 nix/store/<dir>/", "555 0:0 nix/store/<file>"]
    );
}

/// Fixed: published layers have this digest.
#[test]
fn bytes_of_the_usual_files_stay_what_they_are() {
    let (dir, closure) = store(&[]);
    let mut tree = Tree::default();
    tree.tmp(Wanted::Default);
    tree.users(Wanted::Default, &[], &[]).unwrap();
    let bytes = write(&dir, &closure, &tree).unwrap();
    expect_test::expect!["sha256:7c48e0899b09e7b78807bc647de4dd95b573a6993a68c358e11eb5e47e9f8288"]
        .assert_eq(&firn_oci::Digest::of(&bytes).to_string());
}
