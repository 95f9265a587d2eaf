//! Sorted cells as pages: leaves filled one after the other, and pages above them that say what is
//! where. Pure.
//!
//! ```text
//!                 ┌─ interior: (leaf 1, k) (leaf 2, m) ─ leaf 3
//!  table: k is the last row's number in leaf 1, and stands there, too
//!  index: k is an entry of its own, between those of leaf 1 and those of leaf 2
//! ```

use std::ops::Range;

use super::record::{Value, put_number, record};

/// Bytes of a page.
const PAGE_SIZE: usize = 4096;
/// Bytes that say where in the page a cell is.
const POINTER: usize = 2;
/// Bytes at the start of a leaf; pages above have four more, for the last page below.
const LEAF_START: usize = 8;
const INTERIOR_START: usize = 12;
/// Bytes of a page's number.
const CHILD: usize = 4;

/// What a tree holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Rows by their numbers.
    Table,
    /// Entries by themselves.
    Index,
}

impl Kind {
    /// Longest cell that is written without another page for its end. In an index four must fit
    /// into a page above.
    pub(super) const fn cell_max(self) -> usize {
        match self {
            Self::Table => PAGE_SIZE - 35,
            Self::Index => (PAGE_SIZE - 12) * 64 / 255 - 23,
        }
    }

    const fn leaf(self) -> u8 {
        match self {
            Self::Table => 13,
            Self::Index => 10,
        }
    }

    const fn interior(self) -> u8 {
        match self {
            Self::Table => 5,
            Self::Index => 2,
        }
    }
}

/// What stands in a leaf.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    /// In the leaf.
    bytes: Vec<u8>,
    /// What stands for it in pages above, if anything does. `None`: the same.
    key: Option<Vec<u8>>,
}

impl Cell {
    /// A row of a table.
    pub(super) fn of_table(number: u64, row: &[Value<'_>]) -> Self {
        let (mut bytes, mut key) = (Vec::new(), Vec::new());
        let row = record(row);
        put_number(row.len() as u64, &mut bytes);
        put_number(number, &mut bytes);
        put_number(number, &mut key);
        bytes.extend(row);
        Self {
            bytes,
            key: Some(key),
        }
    }

    /// An entry of an index.
    pub(super) fn of_index(entry: &[Value<'_>]) -> Self {
        let mut bytes = Vec::new();
        let entry = record(entry);
        put_number(entry.len() as u64, &mut bytes);
        bytes.extend(entry);
        Self { bytes, key: None }
    }

    fn key(&self) -> &[u8] {
        self.key.as_ref().unwrap_or(&self.bytes)
    }
}

/// Pages from the second on.
#[derive(Debug, Default)]
pub(super) struct Pages(Vec<Vec<u8>>);

impl Pages {
    /// Writes a tree of these cells and tells the number of its root. `None`: a cell is longer than
    /// [`Kind::cell_max`].
    pub(super) fn write(&mut self, kind: Kind, cells: &[Cell]) -> Option<u32> {
        if cells.iter().any(|cell| cell.bytes.len() > kind.cell_max()) {
            return None;
        }
        let between = kind == Kind::Index;
        let sizes = cells.iter().map(|cell| cell.bytes.len());
        let (mut children, mut keys) = (Vec::new(), Vec::new());
        for range in divide(sizes, PAGE_SIZE - LEAF_START, between) {
            // What goes up is the entry after the leaf's last, or the last row's number.
            let up = if between {
                Some(range.end)
            } else {
                range.end.checked_sub(1)
            };
            keys.extend(up.and_then(|up| cells.get(up)).map(Cell::key));
            let cells = cells.get(range).unwrap_or_default();
            let page = Page {
                kind: kind.leaf(),
                cells: cells.iter().map(|cell| cell.bytes.clone()).collect(),
                last: None,
            };
            children.push(self.add(&page)?);
        }
        while children.len() > 1 {
            // A key between each two pages: none for the last one.
            keys.truncate(children.len() - 1);
            let sizes = keys.iter().map(|key| CHILD + key.len());
            let (mut above, mut keys_above) = (Vec::new(), Vec::new());
            for range in divide(sizes, PAGE_SIZE - INTERIOR_START, true) {
                keys_above.extend(keys.get(range.end).copied());
                let last = children.get(range.end).copied();
                let cells = children.iter().zip(&keys).skip(range.start);
                let cells = cells.take(range.len());
                let page = Page {
                    kind: kind.interior(),
                    cells: cells
                        .map(|(child, key): (&u32, _)| [&child.to_be_bytes(), *key].concat())
                        .collect(),
                    last,
                };
                above.push(self.add(&page)?);
            }
            (children, keys) = (above, keys_above);
        }
        children.first().copied()
    }

    fn add(&mut self, page: &Page) -> Option<u32> {
        self.0.push(page.bytes(0)?);
        // The first page is not in here, and numbers begin with 1.
        u32::try_from(self.0.len() + 1).ok()
    }

    /// How many pages there are with the first.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.0.len() + 1).unwrap_or(u32::MAX)
    }

    /// What comes after the first page.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0.concat()
    }
}

/// A table that is one page, whose first `before` bytes are left to somebody else. `None`: it is
/// more.
pub(super) fn one_page(cells: &[Cell], before: usize) -> Option<Vec<u8>> {
    let page = Page {
        kind: Kind::Table.leaf(),
        cells: cells.iter().map(|cell| cell.bytes.clone()).collect(),
        last: None,
    };
    page.bytes(before)
}

/// Which cells of these sizes fill which page with this much room. With `between`, the cell between
/// two pages is in neither. No page is empty, but one that is the only one.
fn divide(sizes: impl Iterator<Item = usize>, room: usize, between: bool) -> Vec<Range<usize>> {
    let mut pages: Vec<Range<usize>> = Vec::new();
    let (mut start, mut used, mut count) = (0, 0, 0);
    for (at, size) in sizes.enumerate() {
        let size = size + POINTER;
        used += size;
        if used > room {
            pages.push(start..at);
            (start, used) = if between { (at + 1, 0) } else { (at, size) };
        }
        count = at + 1;
    }
    if start == count
        && let Some(last) = pages.last_mut()
    {
        // Nothing is left for a page after the one that lies between: one takes its place.
        last.end -= 1;
        start -= 1;
    }
    pages.push(start..count);
    pages
}

struct Page {
    kind: u8,
    cells: Vec<Vec<u8>>,
    /// The page below with what comes after all cells.
    last: Option<u32>,
}

impl Page {
    /// The page; its first `before` bytes are left to somebody else. `None`: it is too long.
    fn bytes(&self, before: usize) -> Option<Vec<u8>> {
        // All are below the page's size.
        let word = |number: usize| u16::try_from(number).map(u16::to_be_bytes).ok();
        let contents = self.cells.concat();
        let start = PAGE_SIZE.checked_sub(contents.len())?;
        let mut bytes = vec![0; before];
        // No free space between cells, here and below.
        bytes.extend([self.kind, 0, 0]);
        bytes.extend(word(self.cells.len())?);
        bytes.extend(word(start)?);
        bytes.push(0);
        bytes.extend(self.last.map(u32::to_be_bytes).into_iter().flatten());
        let mut at = start;
        for cell in &self.cells {
            bytes.extend(word(at)?);
            at += cell.len();
        }
        if bytes.len() > start {
            return None;
        }
        bytes.resize(start, 0);
        bytes.extend(contents);
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_cell_is_in_a_page_or_between_two(
            sizes in prop::collection::vec(1..250_usize, 0..200), between: bool,
        ) {
            let room = 1000;
            let pages = divide(sizes.iter().copied(), room, between);
            let mut next = 0;
            for page in &pages {
                prop_assert_eq!(page.start, next);
                prop_assert!(!page.is_empty() || sizes.is_empty());
                let used: usize = sizes[page.clone()].iter().map(|size| size + POINTER).sum();
                prop_assert!(used <= room);
                next = page.end + usize::from(between);
            }
            prop_assert_eq!(pages.last().unwrap().end, sizes.len());
        }
    }

    #[test]
    fn what_is_longer_than_a_page_is_refused() {
        let long = "x".repeat(Kind::Index.cell_max());
        let (text, mut pages) = ([Value::Text(&long)], Pages::default());
        assert_eq!(pages.write(Kind::Index, &[Cell::of_index(&text)]), None);
        assert_eq!(
            pages.write(Kind::Table, &[Cell::of_table(1, &text)]),
            Some(2)
        );
        let long = "x".repeat(PAGE_SIZE);
        let cell = Cell::of_table(1, &[Value::Text(&long)]);
        assert_eq!(pages.write(Kind::Table, std::slice::from_ref(&cell)), None);
        assert_eq!(one_page(&[cell], 100), None);
    }
}
