//! Rows as bytes: the types of the values, then the values. Pure.

/// A value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value<'a> {
    /// None.
    Null,
    /// A number.
    Integer(i64),
    /// A text.
    Text(&'a str),
}

impl Value<'_> {
    /// Its type, which holds a text's length.
    fn kind(&self) -> u64 {
        match self {
            Self::Null => 0,
            Self::Integer(0) => 8,
            Self::Integer(1) => 9,
            Self::Integer(number) => match width(*number) {
                width @ 1..=4 => width as u64,
                6 => 5,
                _ => 6,
            },
            Self::Text(text) => text.len() as u64 * 2 + 13,
        }
    }

    fn write(&self, into: &mut Vec<u8>) {
        match self {
            // Their types say it all.
            Self::Null | Self::Integer(0 | 1) => {}
            Self::Integer(number) => {
                let bytes = number.to_be_bytes();
                into.extend(bytes.iter().skip(bytes.len() - width(*number)));
            }
            Self::Text(text) => into.extend(text.as_bytes()),
        }
    }
}

/// Bytes that a number takes: 1, 2, 3, 4, 6 or 8.
fn width(number: i64) -> usize {
    let fits = |bytes: u32| {
        let above = i64::BITS - bytes * 8;
        ((number << above) >> above) == number
    };
    let short = [1, 2, 3, 4, 6].into_iter().find(|bytes| fits(*bytes));
    short.unwrap_or(8) as usize
}

/// A row.
pub(super) fn record(row: &[Value<'_>]) -> Vec<u8> {
    let mut kinds = Vec::new();
    for value in row {
        put_number(value.kind(), &mut kinds);
    }
    // The length of the types counts itself; more than 127 columns there are nowhere.
    let mut bytes = Vec::new();
    put_number(kinds.len() as u64 + 1, &mut bytes);
    bytes.extend(kinds);
    for value in row {
        value.write(&mut bytes);
    }
    bytes
}

/// A number of up to 56 bits, seven in a byte, the highest first; all but the last have their
/// highest bit set. (What is longer is written in another way, and there is none.)
pub(super) fn put_number(number: u64, into: &mut Vec<u8>) {
    let bits = u64::BITS - number.leading_zeros();
    for group in (0..bits.div_ceil(7).max(1)).rev() {
        // Seven bits are a byte's.
        let low = ((number >> (group * 7)) & 0x7f) as u8;
        into.push(if group == 0 { low } else { low | 0x80 });
    }
}
