//! Hash and size of a path's NAR serialisation, from the same events that write its layer. Pure.
//!
//! Push takes no hash from the build on trust: what goes into a layer is hashed again while it is
//! read. <https://nix.dev/manual/nix/latest/protocols/nix-archive>

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use crate::nar_hash::NarHash;

/// A NAR being hashed. Entries come in depth-first order, siblings sorted by name.
#[derive(Debug)]
pub struct NarHasher {
    sha: Sha256,
    size: u64,
    /// Open directories, each with the parentheses that are to be closed.
    open: Vec<Open>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Root,
    Entry,
}

impl NarHasher {
    /// A NAR without its root node yet.
    pub fn new() -> Self {
        let mut nar = Self {
            sha: Sha256::new(),
            size: 0,
            open: Vec::new(),
        };
        nar.text(b"nix-archive-1");
        nar
    }

    /// Begins a directory, the root if `name` is `None`. Must be ended.
    pub fn begin_directory(&mut self, name: Option<&[u8]>) {
        let node = self.begin_node(name);
        self.text(b"type");
        self.text(b"directory");
        self.open.push(node);
    }

    /// Ends the directory that was begun last.
    pub fn end_directory(&mut self) {
        if let Some(node) = self.open.pop() {
            self.end_node(node);
        }
    }

    /// A symbolic link.
    pub fn symlink(&mut self, name: Option<&[u8]>, target: &[u8]) {
        let node = self.begin_node(name);
        for text in [b"type", &b"symlink"[..], b"target", target] {
            self.text(text);
        }
        self.end_node(node);
    }

    /// Begins a regular file of exactly `size` bytes: write them, then end it.
    pub fn begin_file(&mut self, name: Option<&[u8]>, executable: bool, size: u64) {
        let node = self.begin_node(name);
        self.text(b"type");
        self.text(b"regular");
        if executable {
            self.text(b"executable");
            self.text(b"");
        }
        self.text(b"contents");
        self.bytes(&size.to_le_bytes());
        self.open.push(node);
    }

    /// Ends the file that was begun last, of `size` bytes.
    pub fn end_file(&mut self, size: u64) {
        self.pad(size);
        self.end_directory();
    }

    /// Hash and size of the whole.
    pub fn finish(self) -> (NarHash, u64) {
        (NarHash(self.sha.finalize().into()), self.size)
    }

    fn begin_node(&mut self, name: Option<&[u8]>) -> Open {
        let node = match name {
            Some(name) => {
                for text in [b"entry", &b"("[..], b"name", name, b"node"] {
                    self.text(text);
                }
                Open::Entry
            }
            None => Open::Root,
        };
        self.text(b"(");
        node
    }

    fn end_node(&mut self, node: Open) {
        self.text(b")");
        if node == Open::Entry {
            self.text(b")");
        }
    }

    fn text(&mut self, text: &[u8]) {
        let size = text.len() as u64;
        self.bytes(&size.to_le_bytes());
        self.bytes(text);
        self.pad(size);
    }

    fn pad(&mut self, size: u64) {
        let missing = usize::try_from(size.wrapping_neg() % 8).unwrap_or_default();
        self.bytes(&[0; 8][..missing]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.sha.update(bytes);
        self.size += bytes.len() as u64;
    }
}

impl Default for NarHasher {
    fn default() -> Self {
        Self::new()
    }
}

/// Contents of the file that was begun last.
impl Write for NarHasher {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.bytes(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `nix hash path` of a file with the line `x`.
    #[test]
    fn a_file_has_the_hash_that_nix_gives_it() {
        let mut nar = NarHasher::new();
        nar.begin_file(None, false, 2);
        nar.write_all(b"x\n").unwrap();
        nar.end_file(2);
        let (hash, size) = nar.finish();
        assert_eq!(size, 120);
        let mut by_hand = Vec::new();
        for text in [
            &b"nix-archive-1"[..],
            b"(",
            b"type",
            b"regular",
            b"contents",
            b"x\n",
            b")",
        ] {
            by_hand.extend((text.len() as u64).to_le_bytes());
            by_hand.extend(text);
            by_hand.resize(by_hand.len().next_multiple_of(8), 0);
        }
        assert_eq!(hash, NarHash(Sha256::digest(&by_hand).into()));
    }
}
