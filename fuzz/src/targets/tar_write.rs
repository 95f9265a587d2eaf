//! The tar writer: whatever it takes, a reader that others wrote reads back.

use std::io::Read as _;

use firn_oci::tar::{Format, MemberKind, TarReader};
use firn_oci::{Metadata, TarWriter};
use libfuzzer_sys::arbitrary::{Result, Unstructured};

use crate::entries::{self, Node};

pub(crate) fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    if let Ok((format, metadata, entries)) = read(&mut input) {
        let archive = write(format, metadata, &entries);
        assert_eq!(archive.len() % 512, 0);
        assert_eq!(archive, write(format, metadata, &entries));
        compare(format, metadata, &entries, &archive);
        read_back(format, &entries, &archive);
    }
}

type Entries = Vec<(Vec<u8>, Node)>;

fn read(input: &mut Unstructured<'_>) -> Result<(Format, Metadata<'static>, Entries)> {
    let format = *input.choose(&[Format::Nar1, Format::Go, Format::Python])?;
    let metadata = Metadata {
        uid: input.int_in_range(0..=u64::from(u32::MAX))?,
        gid: input.int_in_range(0..=u64::from(u32::MAX))?,
        mtime: input.int_in_range(0..=(1 << 33) - 1)?,
        ..Metadata::root(input.int_in_range(0..=0o7777)?)
    };
    let mut entries: Entries = entries::read(input)?.into_iter().collect();
    entries.sort_by(|a, b| format.compare_names(&a.0, &b.0));
    Ok((format, metadata, entries))
}

fn write(format: Format, metadata: Metadata<'_>, entries: &Entries) -> Vec<u8> {
    let mut tar = TarWriter::with_format(format, Vec::new());
    for (name, node) in entries {
        let written = match node {
            Node::Directory => tar.directory(name, metadata),
            Node::File(data) => tar.file(name, metadata, data.len() as u64, data.as_slice()),
            Node::Link(target) => tar.symlink(name, metadata, target),
        };
        written.expect("plain names in order are taken");
    }
    tar.finish().expect("a vector takes everything")
}

/// Firn's own reader finds the same.
fn read_back(format: Format, entries: &Entries, archive: &[u8]) {
    let mut reader = TarReader::new(archive);
    for (name, node) in entries {
        let member = reader.next_member().expect("an archive").expect("a member");
        assert_eq!(member.name, spelled(format, name, node));
        match (node, &member.kind) {
            (Node::Directory, MemberKind::Directory) => {}
            (Node::Link(target), MemberKind::Symlink(found)) => assert_eq!(target, found),
            (Node::File(data), MemberKind::File) => {
                let contents = reader.read_contents(1 << 20).expect("contents");
                assert_eq!(contents, *data);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(reader.next_member().expect("an end"), None);
}

fn spelled(format: Format, name: &[u8], node: &Node) -> Vec<u8> {
    let mut spelled = Vec::new();
    if format != Format::Nar1 {
        spelled.push(b'/');
    }
    spelled.extend_from_slice(name);
    if *node == Node::Directory && format != Format::Go {
        spelled.push(b'/');
    }
    spelled
}

fn compare(format: Format, metadata: Metadata<'_>, entries: &Entries, archive: &[u8]) {
    let mut archive = tar::Archive::new(archive);
    let mut found = archive.entries().expect("an archive");
    for (name, node) in entries {
        let mut entry = found.next().expect("as many entries").expect("an entry");
        assert_eq!(entry.path_bytes(), spelled(format, name, node));
        let header = entry.header();
        assert_eq!(header.mode().ok(), Some(metadata.mode));
        match node {
            Node::Directory => assert!(header.entry_type().is_dir()),
            Node::Link(target) => {
                assert!(header.entry_type().is_symlink());
                assert_eq!(entry.link_name_bytes().as_deref(), Some(target.as_slice()));
            }
            Node::File(data) => {
                assert!(header.entry_type().is_file());
                let mut contents = Vec::new();
                entry.read_to_end(&mut contents).expect("contents");
                assert_eq!(contents, *data);
            }
        }
    }
    assert!(found.next().is_none(), "more entries than were written");
}
