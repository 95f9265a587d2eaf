//! The three ways in which the same entries become bytes, so that layers have the digests that
//! their producers declared. Pure.

use std::cmp::Ordering;

use super::order;
use super::{BLOCK, Metadata};

/// What Python's `tarfile` fills an archive up to: 20 blocks.
const PYTHON_RECORD: u64 = 20 * BLOCK as u64;

/// Whose bytes an archive has. Fixed by golden vectors in `tests/tar_vectors.rs`; other bytes need
/// another variant.
///
/// | | `Nar1` | `Go` | `Python` |
/// |---|---|---|---|
/// | names | `a/b`, directories `a/` | `/a/b`, directories `/a` | `/a/b`, directories `/a/` |
/// | longer than 100 bytes | ustar prefix, else PAX | ustar prefix, else PAX | PAX |
/// | order | one for all | one for all | per subtree |
/// | end | 1024 zeros | 1024 zeros | zeros up to a multiple of 10240 |
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// Firn's own: relative names; what stands in place of a name that has a record is constant.
    #[default]
    Nar1,
    /// Go's `archive/tar` as nix2container uses it.
    /// <https://github.com/golang/go/blob/go1.26.0/src/archive/tar/writer.go>
    Go,
    /// Python's `tarfile` (3.9 and later) as dockerTools' streamed images use it.
    /// <https://github.com/python/cpython/blob/v3.13.0/Lib/tarfile.py>
    Python,
}

impl Format {
    /// The order of entries: component by component. A directory comes right before what is in it,
    /// and `a/c` before `a-b`. Components compare by their bytes; in `Python` by code points, which
    /// differs for names that are no UTF-8 only.
    pub fn compare_names(self, a: &[u8], b: &[u8]) -> Ordering {
        match self {
            Self::Nar1 | Self::Go => order::compare_names(a, b),
            Self::Python => order::compare_python_names(a, b),
        }
    }

    /// Metadata of the directories above the first store path, which nobody declared.
    pub const fn parent_metadata(self) -> Metadata<'static> {
        match self {
            Self::Nar1 => Metadata::root(0o755),
            Self::Go | Self::Python => Metadata::named_root(0o755),
        }
    }

    /// The name as it is written down.
    pub(super) fn spell(self, name: &[u8], is_directory: bool) -> Vec<u8> {
        let mut spelled = Vec::with_capacity(name.len() + 2);
        if self != Self::Nar1 {
            spelled.push(b'/');
        }
        spelled.extend_from_slice(name);
        if is_directory && self != Self::Go {
            spelled.push(b'/');
        }
        spelled
    }

    /// How many zeros end an archive of `size` bytes.
    pub(super) fn trailer(self, size: u64) -> usize {
        let end = 2 * BLOCK;
        match self {
            Self::Nar1 | Self::Go => end,
            Self::Python => {
                let over = (size + end as u64) % PYTHON_RECORD;
                let fill = (PYTHON_RECORD - over) % PYTHON_RECORD;
                // Less than a record, so it fits.
                end + usize::try_from(fill).unwrap_or_default()
            }
        }
    }

    /// What stands in a header field of `room` bytes for a text that has a record. Readers ignore
    /// it.
    pub(super) fn stub(self, text: &[u8], room: usize) -> Vec<u8> {
        let mut stub: Vec<u8> = match self {
            Self::Nar1 => Vec::new(),
            Self::Go => text.iter().copied().filter(u8::is_ascii).collect(),
            Self::Python => text
                .utf8_chunks()
                .flat_map(|chunk| {
                    let valid = chunk.valid().chars().map(ascii_or_question_mark);
                    valid.chain(chunk.invalid().iter().map(|_| b'?'))
                })
                .collect(),
        };
        if stub.len() > room {
            stub.truncate(room);
            // Else old readers would take a file for a directory.
            if self == Self::Go && stub.last() == Some(&b'/') {
                stub.pop();
            }
        }
        stub
    }
}

/// One question mark for each character, as Python's error handler `replace` does it.
fn ascii_or_question_mark(char: char) -> u8 {
    u8::try_from(char).ok().filter(u8::is_ascii).unwrap_or(b'?')
}
