//! A parser with a bug that chance does not find: it needs six bytes. The tier demands that it is
//! found, which shows that comparisons and coverage lead the search.

/// What a frame begins with.
const MAGIC: [u8; 4] = *b"Firn";

/// Reads the beginning of a frame, and has a bug.
pub(crate) fn run(data: &[u8]) {
    let Some((magic, rest)) = data.split_first_chunk() else {
        return;
    };
    // One comparison of numbers, which is reported to the search with both sides.
    if u32::from_le_bytes(*magic) != u32::from_le_bytes(MAGIC) {
        return;
    }
    let mut rest = rest.iter().copied();
    // From here on, each branch that is new is a step in the right direction.
    if rest.next() != Some(0x1f) {
        return;
    }
    if rest.next() != Some(0x8b) {
        return;
    }
    panic!("the planted bug");
}
