//! `SQLite` database files, written once and as a whole: tables, indices and triggers with rows that
//! are known beforehand. Nothing is read, changed or deleted. Pure.
//!
//! Not by `SQLite` itself: it would say its own version in the file and may lay pages out in another
//! way in the next one, so that an update of a library changed the digests of published layers; and
//! it is 250,000 lines of C for what is a sorted list cut into pages. The format is
//! fixed and documented: <https://www.sqlite.org/fileformat.html>, which the numbers here are from.
//!
//! ```text
//! rows ──record──► cells, sorted ──btree──► pages ──► page 1: header and schema
//! ```

mod btree;
mod record;

pub use record::Value;

use btree::{Cell, Kind, Pages};

/// Bytes of the header at the start of page 1.
const HEADER: usize = 100;

/// What does not fit: no page of another kind is written for what is longer than a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} takes more than a page of a SQLite database")]
pub struct TooLarge {
    what: &'static str,
}

/// A database that is being written.
#[derive(Debug, Default)]
pub struct Database {
    pages: Pages,
    /// Cells of the schema's table.
    schema: Vec<Cell>,
}

impl Database {
    /// Adds a table with rows that have the numbers from 1 on. `create` is the statement that makes
    /// it; a column that is the row's number (`integer primary key`) is null.
    pub fn table<'a, R>(
        &mut self,
        name: &str,
        create: &str,
        rows: impl IntoIterator<Item = R>,
    ) -> Result<(), TooLarge>
    where
        R: AsRef<[Value<'a>]>,
    {
        let numbered = (1..).zip(rows);
        let cells = numbered.map(|(number, row)| Cell::of_table(number, row.as_ref()));
        let cells: Vec<Cell> = cells.collect();
        let root = self.pages.write(Kind::Table, &cells);
        let root = root.ok_or(TooLarge { what: "a row" })?;
        self.declare("table", name, name, root, Some(create));
        Ok(())
    }

    /// Adds an index of a table that was added, with entries in ascending order: the values of the
    /// indexed columns, and the row's number. `create` is the statement that makes it; `None`: the
    /// table's own statement does.
    pub fn index<'a, R>(
        &mut self,
        name: &str,
        table: &str,
        create: Option<&str>,
        entries: impl IntoIterator<Item = R>,
    ) -> Result<(), TooLarge>
    where
        R: AsRef<[Value<'a>]>,
    {
        let entries = entries.into_iter();
        let cells: Vec<Cell> = entries
            .map(|entry| Cell::of_index(entry.as_ref()))
            .collect();
        let root = self.pages.write(Kind::Index, &cells);
        let root = root.ok_or(TooLarge {
            what: "an entry of an index",
        })?;
        self.declare("index", name, table, root, create);
        Ok(())
    }

    /// Adds a trigger of a table that was added.
    pub fn trigger(&mut self, name: &str, table: &str, create: &str) {
        self.declare("trigger", name, table, 0, Some(create));
    }

    /// The file. Errors: the statements take more than a page.
    pub fn finish(self) -> Result<Vec<u8>, TooLarge> {
        let first = btree::one_page(&self.schema, HEADER);
        let first = first.ok_or(TooLarge { what: "the schema" })?;
        let mut file = header(self.pages.count(), self.schema.len());
        file.extend(first.into_iter().skip(HEADER));
        file.extend(self.pages.into_bytes());
        Ok(file)
    }

    fn declare(&mut self, kind: &str, name: &str, table: &str, root: u32, create: Option<&str>) {
        let row = [
            Value::Text(kind),
            Value::Text(name),
            Value::Text(table),
            Value::Integer(root.into()),
            create.map_or(Value::Null, Value::Text),
        ];
        let number = self.schema.len() as u64 + 1;
        self.schema.push(Cell::of_table(number, &row));
    }
}

/// The header of a file of so many pages.
fn header(pages: u32, schema: usize) -> Vec<u8> {
    const CHANGES: u32 = 1;
    /// The first version that has a write-ahead log, and so reads all there is here.
    const VERSION: u32 = 3_007_000;
    let mut bytes = b"SQLite format 3\0".to_vec();
    // 4096 bytes a page; written and read with a write-ahead log, as Nix does it; no bytes reserved
    // in a page; three fractions that are always these.
    bytes.extend([0x10, 0, 2, 2, 0, 64, 32, 32]);
    let words = [
        CHANGES,
        pages,
        // No free pages: neither the first nor any.
        0,
        0,
        // Whatever it is, it is another one after each change of the schema.
        u32::try_from(schema).unwrap_or(u32::MAX),
        // The format of the schema since 2006.
        4,
        // Cache size: the usual one.
        0,
        // No automatic vacuum.
        0,
        // UTF-8.
        1,
        // Version of the user's, incremental vacuum, application: none.
        0,
        0,
        0,
    ];
    bytes.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    bytes.extend([0; 20]);
    // The number of pages above is right as of this change.
    bytes.extend(CHANGES.to_be_bytes());
    bytes.extend(VERSION.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests;
