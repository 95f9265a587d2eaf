//! PAX records, `"<length> <key>=<value>\n"`. Pure.
//! <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html>

use super::Format;

/// The records of one entry, in the order in which they are set.
#[derive(Default)]
pub(super) struct Records {
    records: Vec<(String, Vec<u8>)>,
    /// A text is no UTF-8, as records are unless they say otherwise.
    is_binary: bool,
}

impl Records {
    /// The number for the header field: 0 if it does not fit and has a record instead.
    pub(super) fn number(&mut self, key: &str, value: u64, max: u64) -> u64 {
        if value <= max {
            return value;
        }
        self.bytes(key, value.to_string().as_bytes());
        0
    }

    /// A name.
    pub(super) fn text(&mut self, key: &str, value: &[u8]) {
        self.is_binary |= std::str::from_utf8(value).is_err();
        self.bytes(key, value);
    }

    /// A value without a character set.
    pub(super) fn bytes(&mut self, key: &str, value: &[u8]) {
        self.records.push((key.to_owned(), value.to_vec()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether `key` is the only one.
    pub(super) fn is_only(&self, key: &str) -> bool {
        self.records.iter().all(|(other, _)| other == key)
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.records.retain(|(other, _)| other != key);
    }

    /// The body of the PAX header. Go never tells a character set; Python tells it first, and
    /// sorts nothing.
    pub(super) fn into_bytes(mut self, format: Format) -> Vec<u8> {
        if self.is_binary && format != Format::Go {
            self.records
                .insert(0, ("hdrcharset".to_owned(), b"BINARY".to_vec()));
        }
        if format != Format::Python {
            self.records.sort();
        }
        let mut body = Vec::new();
        for (key, value) in self.records {
            let length = record_length(key.len() + value.len() + 3);
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(&value);
            body.push(b'\n');
        }
        body
    }
}

/// The length of a record counts its own digits.
fn record_length(without: usize) -> usize {
    let mut length = without;
    loop {
        let counted = without + length.to_string().len();
        if counted == length {
            return length;
        }
        length = counted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for (without, length) in [
            (5, 6),
            (8, 9),
            (9, 11),
            (97, 99),
            (98, 101),
            (996, 999),
            (997, 1001),
        ] {
            assert_eq!(record_length(without), length);
        }
    }
}
