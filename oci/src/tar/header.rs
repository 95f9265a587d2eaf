//! One entry's header blocks, with the PAX records it needs in front. Pure.

use super::{BLOCK, Metadata, TarError, padding, printable};

/// The largest number in a field of seven octal digits (mode, uid, gid).
const OCTAL_7: u64 = 0o7_777_777;
/// The largest number in a field of eleven octal digits (size, mtime): 8 GiB - 1.
const OCTAL_11: u64 = 0o77_777_777_777;
/// What the name fields of a PAX header and of an entry with a PAX path say. Readers ignore both.
const PAX_NAME: &[u8] = b"././@PaxHeader";
const LONG_NAME: &[u8] = b"././@LongName";
const NAME_FIELD: usize = 100;
const PREFIX_FIELD: usize = 155;

pub(super) struct Header<'a> {
    /// Directories end in a slash.
    name: &'a [u8],
    kind: tar::EntryType,
    metadata: Metadata,
    size: u64,
    target: &'a [u8],
}

impl<'a> Header<'a> {
    pub(super) const fn directory(name: &'a [u8], metadata: Metadata) -> Self {
        Self::new(name, tar::EntryType::Directory, metadata)
    }

    pub(super) const fn file(name: &'a [u8], metadata: Metadata, size: u64) -> Self {
        Self {
            size,
            ..Self::new(name, tar::EntryType::Regular, metadata)
        }
    }

    pub(super) const fn symlink(name: &'a [u8], metadata: Metadata, target: &'a [u8]) -> Self {
        Self {
            target,
            ..Self::new(name, tar::EntryType::Symlink, metadata)
        }
    }

    const fn new(name: &'a [u8], kind: tar::EntryType, metadata: Metadata) -> Self {
        Self {
            name,
            kind,
            metadata,
            size: 0,
            target: b"",
        }
    }

    /// The header, after a PAX header if one is needed.
    pub(super) fn to_blocks(&self) -> Result<Vec<u8>, TarError> {
        let Metadata {
            mode,
            uid,
            gid,
            mtime,
        } = self.metadata;
        if mode > 0o7777 {
            return Err(self.too_large("mode", mode.into()));
        }
        // 8 GiB of seconds are 272 years: no PAX record for what nobody has.
        if mtime > OCTAL_11 {
            return Err(self.too_large("mtime", mtime));
        }

        let mut records = Records::default();
        let mut block = tar::Header::new_ustar();
        block.set_entry_type(self.kind);
        block.set_mode(mode);
        block.set_uid(records.number("uid", uid, OCTAL_7));
        block.set_gid(records.number("gid", gid, OCTAL_7));
        block.set_size(records.number("size", self.size, OCTAL_11));
        block.set_mtime(mtime);
        if let Some(ustar) = block.as_ustar_mut() {
            if let Some((prefix, name)) = split(self.name) {
                put(&mut ustar.prefix, prefix);
                put(&mut ustar.name, name);
            } else {
                records.text("path", self.name);
                put(&mut ustar.name, LONG_NAME);
            }
            if self.target.len() <= NAME_FIELD && self.target.is_ascii() {
                put(&mut ustar.linkname, self.target);
            } else {
                records.text("linkpath", self.target);
            }
        }
        let mut blocks = records.into_blocks();
        blocks.extend_from_slice(&seal(block));
        Ok(blocks)
    }

    fn too_large(&self, what: &'static str, value: u64) -> TarError {
        TarError::Number {
            name: printable(self.name),
            what,
            value,
        }
    }
}

/// `(prefix, name)` for the two fields of ustar, or `None` if it needs a PAX record. The prefix is
/// as long as possible, as Go's archive/tar does it.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= NAME_FIELD {
        return Some((b"", name));
    }
    // The slash that joins the two is written in neither; one at the end of a directory belongs
    // to the name.
    let longest = (PREFIX_FIELD + 1).min(name.strip_suffix(b"/").unwrap_or(name).len());
    let slash = name
        .get(..longest)?
        .iter()
        .rposition(|byte| *byte == b'/')?;
    let (prefix, rest) = name.split_at_checked(slash)?;
    let rest = rest.get(1..)?;
    (slash > 0 && !rest.is_empty() && rest.len() <= NAME_FIELD).then_some((prefix, rest))
}

fn put(field: &mut [u8], bytes: &[u8]) {
    for (to, from) in field.iter_mut().zip(bytes) {
        *to = *from;
    }
}

/// Sets what is the same in every header, and the checksum: six octal digits, NUL, space.
/// (`tar` itself writes seven digits and NUL.)
fn seal(mut header: tar::Header) -> [u8; BLOCK] {
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.set_device_major(0);
        ustar.set_device_minor(0);
        ustar.cksum = *b"        ";
    }
    let sum: u32 = header.as_bytes().iter().map(|byte| u32::from(*byte)).sum();
    // 512 bytes of at most 255 make six digits.
    put(
        &mut header.as_old_mut().cksum,
        format!("{sum:06o}\0 ").as_bytes(),
    );
    *header.as_bytes()
}

/// PAX records, `"<length> <key>=<value>\n"`, sorted by key.
/// <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html>
#[derive(Default)]
struct Records {
    records: std::collections::BTreeMap<&'static str, Vec<u8>>,
}

impl Records {
    /// The number for the header field: 0 if it does not fit and has a record instead.
    fn number(&mut self, key: &'static str, value: u64, max: u64) -> u64 {
        if value <= max {
            return value;
        }
        self.records.insert(key, value.to_string().into_bytes());
        0
    }

    fn text(&mut self, key: &'static str, value: &[u8]) {
        if std::str::from_utf8(value).is_err() {
            // Records are UTF-8 unless they say otherwise.
            self.records.insert("hdrcharset", b"BINARY".to_vec());
        }
        self.records.insert(key, value.to_vec());
    }

    fn into_blocks(self) -> Vec<u8> {
        if self.records.is_empty() {
            return Vec::new();
        }
        let mut body = Vec::new();
        for (key, value) in self.records {
            let length = record_length(key.len() + value.len() + 3);
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(&value);
            body.push(b'\n');
        }
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(body.len() as u64);
        header.set_mtime(0);
        put(&mut header.as_old_mut().name, PAX_NAME);
        let mut blocks = seal(header).to_vec();
        blocks.extend_from_slice(&body);
        blocks.extend_from_slice(padding(body.len() as u64));
        blocks
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

    #[test]
    fn the_prefix_is_as_long_as_can_be() {
        let long = |first: usize, second: usize| {
            [vec![b'p'; first], b"/".to_vec(), vec![b'n'; second]].concat()
        };
        for (first, second, fits) in [
            (155, 100, true),
            (156, 10, false),
            (100, 101, false),
            (1, 100, true),
        ] {
            let name = long(first, second);
            assert_eq!(
                split(&name).map(|(prefix, name)| (prefix.len(), name.len())),
                fits.then_some((first, second)),
                "{first} {second}"
            );
        }
        let directory = [long(100, 99), b"/".to_vec()].concat();
        assert_eq!(split(&directory).map(|(_, name)| name.len()), Some(100));
    }
}
