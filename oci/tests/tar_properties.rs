//! Whatever the tar writer accepts, an independent reader reads back; whatever it cannot write
//! down, it refuses.
#![expect(
    clippy::unwrap_used,
    reason = "helpers; clippy allows it in test functions only"
)]

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use firn_oci::tar::{
    CAPABILITY_XATTR, FileCapabilities, Format, TarError, compare_names, opaque_name, whiteout_name,
};
use firn_oci::{Metadata, TarWriter, Xattr};
use proptest::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory,
    File(Vec<u8>),
    Link(Vec<u8>),
}

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        Just(Node::Directory),
        prop::collection::vec(any::<u8>(), 0..1500).prop_map(Node::File),
        prop::collection::vec(byte(), 1..300).prop_map(Node::Link),
    ]
}

/// Any byte but NUL. A newline is legal too, but the reader used here ends a PAX record at it,
/// against the standard; GNU tar reads it, see below.
fn byte() -> impl Strategy<Value = u8> {
    (1u8..).prop_filter("no newline", |byte| *byte != b'\n')
}

/// Components of any bytes but NUL and slash, so also names that are no UTF-8.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let component = prop_oneof![
        "[a-z]{1,130}".prop_map(String::into_bytes),
        prop::collection::vec(byte(), 1..40),
    ];
    prop::collection::vec(component, 1..4)
        .prop_map(|components| components.join(&b'/'))
        .prop_filter("a plain name", |name| {
            name.split(|byte| *byte == b'/').all(|component| {
                !component.is_empty()
                    && component != b"."
                    && component != b".."
                    && !component.starts_with(b".wh.")
            })
        })
}

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::Nar1), Just(Format::Go), Just(Format::Python)]
}

fn write(
    format: Format,
    entries: &[(Vec<u8>, Node)],
    metadata: Metadata<'_>,
) -> Result<Vec<u8>, TarError> {
    let mut tar = TarWriter::with_format(format, Vec::new());
    for (name, node) in entries {
        match node {
            Node::Directory => tar.directory(name, metadata)?,
            Node::File(data) => tar.file(name, metadata, data.len() as u64, data.as_slice())?,
            Node::Link(target) => tar.symlink(name, metadata, target)?,
        }
    }
    tar.finish()
}

/// What an independent reader finds, with names as they were given to the writer.
fn read(format: Format, archive: &[u8]) -> Vec<(Vec<u8>, Node, u64)> {
    tar::Archive::new(archive)
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut name = entry.path_bytes().into_owned();
            if format != Format::Nar1 {
                assert_eq!(name.remove(0), b'/');
            }
            let node = match entry.header().entry_type() {
                tar::EntryType::Directory => {
                    if format != Format::Go {
                        assert_eq!(name.pop(), Some(b'/'));
                    }
                    Node::Directory
                }
                tar::EntryType::Symlink => {
                    Node::Link(entry.link_name_bytes().unwrap().into_owned())
                }
                _ => {
                    let mut data = Vec::new();
                    entry.read_to_end(&mut data).unwrap();
                    Node::File(data)
                }
            };
            (name, node, entry.header().uid().unwrap())
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_archive_reads_back_and_is_always_the_same(
        format in format(), nodes in prop::collection::btree_map(name(), node(), 0..12),
        mode in 0u32..=0o7777, uid in 0u64..=0o7_777_777, mtime in 0u64..1 << 33,
    ) {
        let mut entries: Vec<(Vec<u8>, Node)> = nodes.into_iter().collect();
        entries.sort_by(|a, b| format.compare_names(&a.0, &b.0));
        let metadata = Metadata { uid, gid: 7, mtime, ..Metadata::root(mode) };
        let archive = write(format, &entries, metadata).unwrap();
        prop_assert_eq!(archive.len() % 512, 0);
        prop_assert_eq!(&archive, &write(format, &entries, metadata).unwrap());
        let expected: Vec<_> = entries.into_iter().map(|(name, node)| (name, node, uid)).collect();
        prop_assert_eq!(read(format, &archive), expected);
    }

    #[test]
    fn any_name_is_written_or_refused(
        format in format(), name: Vec<u8>, target: Vec<u8>, user: String, xattr: String,
    ) {
        let xattrs = [Xattr { name: &xattr, value: &target }];
        let metadata = Metadata { user: &user, xattrs: &xattrs, ..Metadata::root(0o777) };
        let mut tar = TarWriter::with_format(format, Vec::new());
        let _ = tar.symlink(&name, metadata, &target);
        let _ = tar.directory(&name, metadata);
        let _ = tar.whiteout(&name);
    }
}

#[test]
fn a_directory_comes_right_before_what_is_in_it() {
    let mut names = ["a-b", "a/c", "a", "a.d/x", "a.d", "b"].map(str::as_bytes);
    names.sort_by(|a, b| compare_names(a, b));
    assert_eq!(
        names,
        ["a", "a/c", "a-b", "a.d", "a.d/x", "b"].map(str::as_bytes)
    );
}

#[test]
fn gnu_tar_reads_names_of_every_kind() {
    let names: [&[u8]; 4] = [
        b"line\nbreak\xff",
        &[b'n'; 200],
        b"plain",
        "\u{e9}".as_bytes(),
    ];
    let mut sorted = names.to_vec();
    sorted.sort_by(|a, b| compare_names(a, b));
    let mut tar = TarWriter::new(Vec::new());
    for name in &sorted {
        tar.file(name, Metadata::root(0o644), 1, &b"x"[..]).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.tar"), tar.finish().unwrap()).unwrap();
    let status = std::process::Command::new("tar")
        .args(["-x", "--no-same-owner", "-f", "a.tar"])
        .current_dir(dir.path())
        .status()
        .unwrap();
    assert!(status.success());
    for name in sorted {
        let path = dir.path().join(std::ffi::OsStr::from_bytes(name));
        assert!(path.exists(), "{path:?}");
    }
}

#[test]
fn large_owners_and_sizes_go_into_records() {
    let metadata = Metadata {
        uid: 3_000_000,
        gid: 1 << 40,
        ..Metadata::root(0o644)
    };
    let mut archive = Vec::new();
    let mut tar = TarWriter::new(&mut archive);
    // Nine GiB would be announced, and are not there: the header is written all the same.
    let error = tar.file(b"big", metadata, 9 << 30, &b"x"[..]).unwrap_err();
    assert!(matches!(error, TarError::Truncated { actual: 1, .. }));
    let text = String::from_utf8_lossy(&archive);
    for record in [
        "15 uid=3000000\n",
        "21 gid=1099511627776\n",
        "19 size=9663676416\n",
    ] {
        assert!(text.contains(record), "{record:?}");
    }
}

#[test]
fn a_file_that_changed_since_it_was_measured_is_an_error() {
    let mut tar = TarWriter::new(Vec::new());
    let grown = tar.file(b"a", Metadata::root(0o644), 2, &b"abc"[..]);
    assert!(matches!(grown, Err(TarError::Grown { expected: 2, .. })));
    let shorter = tar.file(b"b", Metadata::root(0o644), 4, &b"abc"[..]);
    assert!(matches!(
        shorter,
        Err(TarError::Truncated {
            expected: 4,
            actual: 3,
            ..
        })
    ));
}

#[test]
fn refusals_name_the_entry_and_the_rule() {
    let mut messages = BTreeMap::new();
    for name in ["/etc", "", "a//b", "a/../b", "./a", "a/", "a/.wh.b", "a\0"] {
        let error = TarWriter::new(Vec::new())
            .directory(name.as_bytes(), Metadata::root(0o755))
            .unwrap_err();
        messages.insert(name, error.to_string());
    }
    let mut tar = TarWriter::new(Vec::new());
    tar.directory(b"b", Metadata::root(0o755)).unwrap();
    for name in ["b", "a"] {
        let error = tar
            .directory(name.as_bytes(), Metadata::root(0o755))
            .unwrap_err();
        messages.insert(name, error.to_string());
    }
    let mut list: Vec<String> = messages.into_values().collect();
    list.push(String::new());
    expect_test::expect![[r#"
        failed to add "" to a layer: the name is not a plain relative path
        failed to add "./a" to a layer: the name is not a plain relative path
        failed to add "/etc" to a layer: the name is not a plain relative path
        failed to add "a" to a layer: it must come before "b", once
        failed to add "a\0" to a layer: the name or link target contains a NUL byte
        failed to add "a/" to a layer: the name is not a plain relative path
        failed to add "a/../b" to a layer: the name is not a plain relative path
        failed to add "a/.wh.b" to a layer: names that begin with ".wh." mean a deletion in a layer, so such a file cannot be in an image; leave it out of the package
        failed to add "a//b" to a layer: the name is not a plain relative path
        failed to add "b" to a layer: it must come before "b", once
    "#]].assert_eq(&list.join("\n"));
}

#[test]
fn a_file_capability_is_a_record_that_readers_apply() {
    let value = "cap_net_bind_service=ep".parse::<FileCapabilities>();
    let value = value.unwrap().to_xattr();
    let xattrs = [Xattr {
        name: CAPABILITY_XATTR,
        value: &value,
    }];
    let metadata = Metadata {
        xattrs: &xattrs,
        ..Metadata::root(0o755)
    };
    for format in [Format::Nar1, Format::Go, Format::Python] {
        let mut tar = TarWriter::with_format(format, Vec::new());
        tar.file(b"server", metadata, 1, &b"x"[..]).unwrap();
        let bytes = tar.finish().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let records = entry.pax_extensions().unwrap().unwrap();
        let records: Vec<_> = records
            .map(|record| record.unwrap())
            .map(|record| (record.key().unwrap().to_owned(), record.value_bytes()))
            .collect();
        let expected = ("SCHILY.xattr.security.capability".to_owned(), &value[..]);
        assert_eq!(records, [expected], "{format:?}");
    }
}

#[test]
fn only_an_explicit_call_deletes_what_is_below() {
    assert_eq!(whiteout_name(b"etc/motd"), b"etc/.wh.motd");
    assert_eq!(whiteout_name(b"motd"), b".wh.motd");
    assert_eq!(opaque_name(b"etc"), b"etc/.wh..wh..opq");

    let mut tar = TarWriter::new(Vec::new());
    tar.directory(b"etc", Metadata::root(0o755)).unwrap();
    tar.opaque(b"etc").unwrap();
    tar.whiteout(b"etc/motd").unwrap();
    let twice = tar.whiteout(b"etc/motd").unwrap_err();
    assert!(matches!(twice, TarError::Order { .. }));
    for refused in [&b""[..], b"a/..", b".wh.a"] {
        let error = tar.whiteout(refused).unwrap_err();
        assert!(matches!(error, TarError::Name { .. }), "{error}");
    }
    let names: Vec<_> = read(Format::Nar1, &tar.finish().unwrap())
        .into_iter()
        .map(|(name, node, _)| (String::from_utf8(name).unwrap(), node))
        .collect();
    let marker = Node::File(Vec::new());
    assert_eq!(
        names,
        [
            ("etc".to_owned(), Node::Directory),
            ("etc/.wh..wh..opq".to_owned(), marker.clone()),
            ("etc/.wh.motd".to_owned(), marker),
        ]
    );
}

#[test]
fn the_root_is_an_entry_in_go_s_format_only() {
    for format in [Format::Nar1, Format::Go, Format::Python] {
        let mut tar = TarWriter::with_format(format, Vec::new());
        let added = tar.directory(b"", Metadata::root(0o755));
        assert_eq!(added.is_ok(), format == Format::Go, "{format:?}");
        tar.directory(b"a", Metadata::root(0o755)).unwrap();
    }
}
