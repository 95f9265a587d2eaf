use proptest::prelude::*;

use super::*;
use crate::tar::{Format, Metadata, TarWriter};

fn members(bytes: &[u8]) -> Result<Vec<Member>, ReadError> {
    let mut reader = TarReader::new(bytes);
    let mut members = Vec::new();
    while let Some(member) = reader.next_member()? {
        members.push(member);
    }
    Ok(members)
}

/// Names of every length that has its own way of being written.
fn archive(format: Format) -> Vec<u8> {
    let mut tar = TarWriter::with_format(format, Vec::new());
    let root = Metadata::root;
    tar.directory(b"a", root(0o755)).unwrap();
    tar.file(b"a/b", root(0o644), 600, &[7; 600][..]).unwrap();
    let long = format!("c/{}/{}", "d".repeat(60), "e".repeat(60));
    tar.file(long.as_bytes(), root(0o644), 1, &b"x"[..])
        .unwrap();
    let longer = format!("f{}", "g".repeat(200));
    tar.symlink(longer.as_bytes(), root(0o777), "t".repeat(150).as_bytes())
        .unwrap();
    tar.finish().unwrap()
}

#[test]
fn what_each_format_writes_is_read() {
    for (format, slash) in [(Format::Nar1, ""), (Format::Go, "/"), (Format::Python, "/")] {
        let bytes = archive(format);
        let found = members(&bytes).unwrap();
        let names: Vec<String> = found
            .iter()
            .map(|member| String::from_utf8(member.name.clone()).unwrap())
            .map(|name| name.trim_end_matches('/').to_owned())
            .collect();
        let long = format!("{slash}c/{}/{}", "d".repeat(60), "e".repeat(60));
        let longer = format!("{slash}f{}", "g".repeat(200));
        let expected = [format!("{slash}a"), format!("{slash}a/b"), long, longer];
        assert_eq!(names, expected, "{format:?}");
        let file = &found[1];
        let at = usize::try_from(file.offset).unwrap();
        assert_eq!((file.size, &bytes[at..at + 600]), (600, &[7; 600][..]));
        assert_eq!(
            found[3].kind,
            MemberKind::Symlink("t".repeat(150).into_bytes())
        );
    }
}

#[test]
fn contents_are_read_whole_or_in_part() {
    let bytes = archive(Format::Nar1);
    let mut reader = TarReader::new(bytes.as_slice());
    reader.next_member().unwrap();
    reader.next_member().unwrap();
    assert_eq!(reader.peek(4).unwrap(), [7; 4]);
    reader.next_member().unwrap();
    assert_eq!(reader.read_contents(1).unwrap(), b"x");
    assert!(reader.next_member().unwrap().is_some());
    assert!(reader.next_member().unwrap().is_none());
}

/// A header whose checksum is right.
fn header(kind: u8, size: &[u8; 12]) -> Vec<u8> {
    let mut block = [0; BLOCK];
    block[..4].copy_from_slice(b"name");
    block[124..136].copy_from_slice(size);
    block[156] = kind;
    block[257..263].copy_from_slice(b"ustar\0");
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.to_vec()
}

#[test]
fn what_has_no_bound_is_refused_before_it_is_read() {
    for kind in [b'L', b'K', b'x', b'g'] {
        let bytes = header(kind, b"77777777777\0");
        assert!(matches!(members(&bytes), Err(ReadError::TooLong { .. })));
    }
    let huge = header(
        b'0',
        &[
            0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ],
    );
    assert!(matches!(members(&huge), Err(ReadError::Header { .. })));
    let negative = header(b'0', &[0xff; 12]);
    assert!(matches!(members(&negative), Err(ReadError::Header { .. })));
}

#[test]
fn damaged_and_short_archives_are_errors() {
    let bytes = archive(Format::Python);
    let mut damaged = bytes.clone();
    damaged[0] ^= 1;
    assert!(matches!(
        members(&damaged),
        Err(ReadError::Header { offset: 0 })
    ));
    assert!(matches!(
        members(&bytes[..1300]),
        Err(ReadError::Read { .. })
    ));
    assert!(members(b"").unwrap().is_empty());
}

proptest! {
    #[test]
    fn any_bytes_end_in_members_or_an_error(
        at in 0_usize..4096, change in proptest::collection::vec(any::<u8>(), 0..40)
    ) {
        let mut bytes = archive(Format::Go);
        for (place, byte) in bytes.iter_mut().skip(at).zip(change) {
            *place = byte;
        }
        let _ = members(&bytes);
    }
}
