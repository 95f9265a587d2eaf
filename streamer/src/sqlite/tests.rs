//! What was written is read back by a reader that shares nothing with the writer. That `SQLite` reads
//! it, too, is shown by Nix in a container: see the stories.

use proptest::prelude::*;

use super::*;

/// A value that was read.
#[derive(Debug, Clone, PartialEq)]
enum Read {
    Null,
    Integer(i64),
    Text(String),
}

fn number(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |sum, byte| sum * 256 + usize::from(*byte))
}

/// A number of seven bits a byte, and what follows.
fn seven(bytes: &[u8]) -> (usize, &[u8]) {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let value = bytes[..end]
        .iter()
        .fold(0, |sum, byte| sum * 128 + usize::from(byte & 0x7f));
    (value, &bytes[end..])
}

fn values(record: &[u8]) -> Vec<Read> {
    let (length, _) = seven(record);
    let (header, mut body) = record.split_at(length);
    let (_, mut kinds) = seven(header);
    let mut found = Vec::new();
    while !kinds.is_empty() {
        let (kind, rest) = seven(kinds);
        kinds = rest;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind,
            5 => 6,
            6 => 8,
            _ => (kind - 13) / 2,
        };
        let (value, rest) = body.split_at(length);
        body = rest;
        found.push(match kind {
            0 => Read::Null,
            8 => Read::Integer(0),
            9 => Read::Integer(1),
            1..=6 => {
                let sign = if value[0] & 0x80 == 0 { 0 } else { 0xff };
                let mut wide = [sign; 8];
                wide[8 - length..].copy_from_slice(value);
                Read::Integer(i64::from_be_bytes(wide))
            }
            _ => Read::Text(String::from_utf8(value.to_vec()).unwrap()),
        });
    }
    assert!(body.is_empty());
    found
}

/// A file that is read.
struct File(Vec<u8>);

impl File {
    /// Everything in the tree below a page, in order: rows with their numbers, entries with 0.
    /// Every page counts itself.
    fn below(&self, page: usize, pages: &mut usize) -> Vec<(usize, Vec<Read>)> {
        *pages += 1;
        let start = if page == 1 { HEADER } else { 0 };
        let page = &self.0[(page - 1) * 4096..page * 4096];
        let (kind, count) = (page[start], number(&page[start + 3..start + 5]));
        let interior = matches!(kind, 2 | 5);
        let pointers = &page[start + if interior { 12 } else { 8 }..];
        let mut found = Vec::new();
        for pointer in pointers.chunks(2).take(count) {
            let mut cell = &page[number(pointer)..];
            if interior {
                found.extend(self.below(number(&cell[..4]), pages));
                cell = &cell[4..];
            }
            if kind == 5 {
                // The number of the row that was found last.
                assert_eq!(found.last().unwrap().0, seven(cell).0);
                continue;
            }
            let (length, mut rest) = seven(cell);
            let mut at = 0;
            if kind == 13 {
                (at, rest) = seven(rest);
            }
            found.push((at, values(&rest[..length])));
        }
        if interior {
            assert!(count > 0, "a page with nothing to tell");
            let last = number(&page[start + 8..start + 12]);
            found.extend(self.below(last, pages));
        }
        found
    }

    /// Rows or entries of a table or index, by name.
    fn contents(&self, name: &str, pages: &mut usize) -> Vec<(usize, Vec<Read>)> {
        let schema = self.below(1, &mut 0);
        let found = schema
            .iter()
            .find(|(_, row)| row[1] == Read::Text(name.into()));
        let Read::Integer(root) = found.unwrap().1[3] else {
            panic!("no page");
        };
        self.below(usize::try_from(root).unwrap(), pages)
    }
}

fn written(rows: &[(i64, String)]) -> File {
    let mut database = Database::default();
    let all = rows
        .iter()
        .map(|(number, text)| [Value::Null, Value::Integer(*number), Value::Text(text)]);
    database
        .table("t", "CREATE TABLE t (a, b, c)", all)
        .unwrap();
    let mut entries: Vec<(&str, i64)> = rows.iter().map(|(_, t)| t.as_str()).zip(1..).collect();
    entries.sort_unstable();
    let entries = entries
        .iter()
        .map(|(text, at)| [Value::Text(text), Value::Integer(*at)]);
    let create = Some("CREATE INDEX i ON t (c)");
    database.index("i", "t", create, entries).unwrap();
    File(database.finish().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_is_written_is_there_in_order(
        rows in prop::collection::vec((any::<i64>(), "[a-c]{0,5}|x{100,900}"), 0..600),
    ) {
        let file = written(&rows);
        let mut pages = 1;
        let table = file.contents("t", &mut pages);
        let expected: Vec<(usize, Vec<Read>)> = (1..)
            .zip(&rows)
            .map(|(at, (n, t))| (at, vec![Read::Null, Read::Integer(*n), Read::Text(t.clone())]))
            .collect();
        prop_assert_eq!(table, expected);
        let mut entries: Vec<(String, i64)> = rows.iter().map(|(_, t)| t.clone()).zip(1..).collect();
        entries.sort_unstable();
        let expected: Vec<(usize, Vec<Read>)> = entries
            .into_iter()
            .map(|(text, at)| (0, vec![Read::Text(text), Read::Integer(at)]))
            .collect();
        prop_assert_eq!(file.contents("i", &mut pages), expected);
        // No page is anywhere else.
        prop_assert_eq!(file.0.len(), pages * 4096);
        prop_assert_eq!(number(&file.0[28..32]), pages);
    }
}

#[test]
fn numbers_are_as_short_as_they_can_be() {
    let rows: Vec<(i64, String)> = [
        0,
        1,
        -1,
        127,
        128,
        -128,
        -129,
        32767,
        32768,
        1 << 31,
        -(1 << 31),
        1 << 47,
        i64::MIN,
    ]
    .map(|number| (number, String::new()))
    .into();
    let file = written(&rows);
    let table = file.contents("t", &mut 0);
    let read: Vec<i64> = table
        .iter()
        .map(|(_, row)| match row[1] {
            Read::Integer(number) => number,
            _ => panic!("{row:?}"),
        })
        .collect();
    let numbers: Vec<i64> = rows.iter().map(|row| row.0).collect();
    assert_eq!(read, numbers);
    let length = |number| record::record(&[Value::Integer(number)]).len();
    let lengths = [0, 1, -1, 127, 128, 1 << 31, 1 << 47].map(length);
    assert_eq!(lengths, [2, 2, 3, 3, 4, 8, 10]);
}

#[test]
fn a_schema_of_more_than_a_page_is_refused() {
    let mut database = Database::default();
    let long = format!("CREATE TABLE t (a) -- {}", "x".repeat(4000));
    let none = || std::iter::empty::<[Value<'_>; 0]>();
    database.table("t", &long, none()).unwrap();
    let refused = database.finish().unwrap_err();
    assert!(
        refused.to_string().starts_with("the schema takes more"),
        "{refused}"
    );
}
