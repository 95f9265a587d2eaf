//! The tar reader: archives that others made, or that nobody did.

use firn_oci::tar::{MemberKind, TarReader};

/// Contents that are read at once.
const CONTENTS_MAX: u64 = 1 << 16;

pub(crate) fn run(data: &[u8]) {
    let mut reader = TarReader::new(data);
    let mut end = 0;
    while let Ok(Some(member)) = reader.next_member() {
        assert!(member.offset >= end, "{member:?} lies in the one before it");
        assert!(
            member.offset <= data.len() as u64,
            "{member:?} lies outside"
        );
        end = member.offset;
        if member.kind != MemberKind::File {
            continue;
        }
        let Ok(contents) = reader.read_contents(CONTENTS_MAX) else {
            return;
        };
        let start = usize::try_from(member.offset).unwrap_or(usize::MAX);
        assert_eq!(contents.len() as u64, member.size);
        assert_eq!(
            data.get(start..start + contents.len()),
            Some(contents.as_slice())
        );
        end += member.size;
    }
}
