//! Entries of an archive out of any bytes: sorted, plain names.

use std::collections::BTreeMap;

use libfuzzer_sys::arbitrary::{Result, Unstructured};

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    File(Vec<u8>),
    Link(Vec<u8>),
}

/// At most 16 entries by their names.
pub(crate) fn read(input: &mut Unstructured<'_>) -> Result<BTreeMap<Vec<u8>, Node>> {
    let mut entries = BTreeMap::new();
    while !input.is_empty() && entries.len() < 16 {
        let name = name(input)?;
        let node = match input.int_in_range(0..=2)? {
            0 => Node::Directory,
            1 => {
                // Around the size of a block, which is where padding matters.
                let size = input.int_in_range(0..=1030_usize)?.min(input.len());
                Node::File(input.bytes(size)?.to_vec())
            }
            _ => Node::Link(text(input, 200)?),
        };
        entries.insert(name, node);
    }
    Ok(entries)
}

/// One to three components; long ones by repetition, for names beyond a header's room.
fn name(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut components = Vec::new();
    for _ in 0..input.int_in_range(1..=3)? {
        let mut component = text(input, 24)?;
        component.retain(|byte| *byte != b'/');
        let times = input.int_in_range(1..=12)?;
        component = component.repeat(times);
        component.truncate(255);
        let special = matches!(component.as_slice(), b"" | b"." | b"..");
        if special || component.starts_with(b".wh.") {
            component.insert(0, b'x');
        }
        components.push(component);
    }
    Ok(components.join(&b'/'))
}

/// Not empty, without NUL; without line feeds too, at which the reader of the crate `tar` ends a
/// record against the standard.
fn text(input: &mut Unstructured<'_>, most: usize) -> Result<Vec<u8>> {
    let size = input.int_in_range(1..=most)?.min(input.len());
    let mut text = input.bytes(size)?.to_vec();
    text.retain(|byte| !matches!(byte, 0 | b'\n'));
    if text.is_empty() {
        text.push(b'a');
    }
    Ok(text)
}
