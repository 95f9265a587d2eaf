//! One entry's header blocks, with the PAX header it needs in front. Pure.

use super::pax::Records;
use super::{BLOCK, Format, Metadata, NameError, TarError, padding, printable, refused};

/// The largest number in a field of seven octal digits (mode, uid, gid).
const OCTAL_7: u64 = 0o7_777_777;
/// The largest number in a field of eleven octal digits (size, mtime): 8 GiB - 1.
const OCTAL_11: u64 = 0o77_777_777_777;
/// The most bytes of records that Go's reader takes.
const RECORDS_MAX: usize = 1 << 20;
/// What the name field of an entry with a PAX path says in Firn's format. Readers ignore it.
const LONG_NAME: &[u8] = b"././@LongName";
const NAME_FIELD: usize = 100;
const PREFIX_FIELD: usize = 155;
const OWNER_FIELD: usize = 32;

pub(super) struct Header<'a> {
    name: &'a [u8],
    kind: tar::EntryType,
    metadata: Metadata<'a>,
    size: u64,
    target: &'a [u8],
}

impl<'a> Header<'a> {
    pub(super) const fn directory(name: &'a [u8], metadata: Metadata<'a>) -> Self {
        Self::new(name, tar::EntryType::Directory, metadata)
    }

    pub(super) const fn file(name: &'a [u8], metadata: Metadata<'a>, size: u64) -> Self {
        Self {
            size,
            ..Self::new(name, tar::EntryType::Regular, metadata)
        }
    }

    pub(super) const fn symlink(name: &'a [u8], metadata: Metadata<'a>, target: &'a [u8]) -> Self {
        Self {
            target,
            ..Self::new(name, tar::EntryType::Symlink, metadata)
        }
    }

    const fn new(name: &'a [u8], kind: tar::EntryType, metadata: Metadata<'a>) -> Self {
        Self {
            name,
            kind,
            metadata,
            size: 0,
            target: b"",
        }
    }

    /// The header, after a PAX header if one is needed.
    pub(super) fn to_blocks(&self, format: Format) -> Result<Vec<u8>, TarError> {
        let name = format.spell(self.name, self.kind.is_dir());
        self.to_blocks_as(&name, format)
    }

    /// As [`Self::to_blocks`], for an entry whose name in the archive is `name`.
    fn to_blocks_as(&self, name: &[u8], format: Format) -> Result<Vec<u8>, TarError> {
        let Metadata {
            mode,
            uid,
            gid,
            user,
            group,
            mtime,
            xattrs,
        } = self.metadata;
        if mode > 0o7777 {
            return Err(self.too_large("mode", mode.into()));
        }
        // 8 GiB of seconds are 272 years: no PAX record for what nobody has.
        if mtime > OCTAL_11 {
            return Err(self.too_large("mtime", mtime));
        }

        let mut records = Records::default();
        for xattr in xattrs {
            if xattr.name.is_empty() || xattr.name.contains(['=', '\0']) {
                return Err(refused(self.name, NameError::Xattr));
            }
            records.bytes(&format!("SCHILY.xattr.{}", xattr.name), xattr.value);
        }
        // The name comes first: Python keeps this order.
        let stands_in_field = fits(name, NAME_FIELD);
        if !stands_in_field {
            records.text("path", name);
        }
        let target = text(&mut records, format, "linkpath", self.target, NAME_FIELD);
        for owner in [user, group] {
            if owner.contains('\0') {
                return Err(refused(self.name, NameError::Nul));
            }
        }
        let user = text(&mut records, format, "uname", user.as_bytes(), OWNER_FIELD);
        let group = text(&mut records, format, "gname", group.as_bytes(), OWNER_FIELD);

        let mut block = tar::Header::new_ustar();
        block.set_entry_type(self.kind);
        block.set_mode(mode);
        block.set_uid(records.number("uid", uid, OCTAL_7));
        block.set_gid(records.number("gid", gid, OCTAL_7));
        block.set_size(records.number("size", self.size, OCTAL_11));
        block.set_mtime(mtime);
        let (prefix, stub) = if stands_in_field {
            (&b""[..], name.to_vec())
        } else if let Some((prefix, rest)) = records.split_instead(format, name) {
            (prefix, rest.to_vec())
        } else if format == Format::Nar1 {
            (&b""[..], LONG_NAME.to_vec())
        } else {
            (&b""[..], format.stub(name, NAME_FIELD))
        };
        if let Some(ustar) = block.as_ustar_mut() {
            put(&mut ustar.name, &stub);
            put(&mut ustar.prefix, prefix);
            put(&mut ustar.linkname, &target);
            put(&mut ustar.uname, &user);
            put(&mut ustar.gname, &group);
            if format != Format::Python {
                ustar.set_device_major(0);
                ustar.set_device_minor(0);
            }
        }
        let mut blocks = Vec::with_capacity(BLOCK);
        if !records.is_empty() {
            let body = records.into_bytes(format);
            if body.len() > RECORDS_MAX {
                return Err(self.too_large("bytes of records", body.len() as u64));
            }
            blocks.extend_from_slice(&pax_header(format, name, body.len()));
            blocks.extend_from_slice(&body);
            blocks.extend_from_slice(padding(body.len() as u64));
        }
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

fn fits(text: &[u8], room: usize) -> bool {
    text.len() <= room && text.is_ascii()
}

/// What a text field says; what has no room there gets a record.
fn text(records: &mut Records, format: Format, key: &str, value: &[u8], room: usize) -> Vec<u8> {
    if fits(value, room) {
        return value.to_vec();
    }
    records.text(key, value);
    format.stub(value, room)
}

impl Records {
    /// `(prefix, name)` if ustar has room for `name` after all; then it needs no record. Python
    /// never splits a name; Go does not if the entry needs another record anyway.
    fn split_instead<'a>(
        &mut self,
        format: Format,
        name: &'a [u8],
    ) -> Option<(&'a [u8], &'a [u8])> {
        let may_split = match format {
            Format::Nar1 => true,
            Format::Go => self.is_only("path"),
            Format::Python => false,
        };
        let split = split(name).filter(|_| may_split)?;
        self.remove("path");
        Some(split)
    }
}

/// `(prefix, name)` for the two fields of ustar, or `None` if it needs a PAX record. The prefix is
/// as long as possible, as Go's archive/tar does it.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if !name.is_ascii() {
        return None;
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

/// The entry that holds `size` bytes of records for the entry `name`.
fn pax_header(format: Format, name: &[u8], size: usize) -> [u8; BLOCK] {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_mode(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size as u64);
    header.set_mtime(0);
    if let Some(ustar) = header.as_ustar_mut() {
        match format {
            Format::Go => put(&mut ustar.name, &go_pax_name(name)),
            Format::Nar1 | Format::Python => put(&mut ustar.name, b"././@PaxHeader"),
        }
        if format == Format::Nar1 {
            ustar.set_device_major(0);
            ustar.set_device_minor(0);
        }
    }
    seal(header)
}

/// `<directory>/PaxHeaders.0/<base>`, without what is not ASCII, cut to the field.
fn go_pax_name(name: &[u8]) -> Vec<u8> {
    let base = name
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |slash| slash + 1);
    let (directory, base) = name.split_at_checked(base).unwrap_or((b"", name));
    let mut joined = [directory, b"PaxHeaders.0/", base].concat();
    joined.retain(u8::is_ascii);
    joined.truncate(NAME_FIELD);
    while joined.last() == Some(&b'/') {
        joined.pop();
    }
    joined
}

fn put(field: &mut [u8], bytes: &[u8]) {
    for (to, from) in field.iter_mut().zip(bytes) {
        *to = *from;
    }
}

/// Sets the checksum: six octal digits, NUL, space. (`tar` itself writes seven digits and NUL.)
fn seal(mut header: tar::Header) -> [u8; BLOCK] {
    header.as_old_mut().cksum = *b"        ";
    let sum: u32 = header.as_bytes().iter().map(|byte| u32::from(*byte)).sum();
    // 512 bytes of at most 255 make six digits.
    put(
        &mut header.as_old_mut().cksum,
        format!("{sum:06o}\0 ").as_bytes(),
    );
    *header.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

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

    /// The unit vectors of nix2container itself, whose names no layer has.
    #[test]
    fn entries_of_nix2container_s_unit_tests_have_its_bytes() {
        for (mode, expected) in [
            (
                0o644,
                "cc45bd46eca903b0900ebb997dffd5778904dca9ec02e7375dd1e653dfb61e2e",
            ),
            (
                0o641,
                "adf74a52f9e1bcd7dab77193455fa06743b979cf5955148010e5becedba4f72d",
            ),
        ] {
            let directory = |name| (Header::directory(name, Metadata::named_root(0o755)), name);
            let file = b"../data/layer1/file1";
            let entries = [
                directory(b".."),
                directory(b"../data"),
                directory(b"../data/layer1"),
                (Header::file(file, Metadata::named_root(mode), 0), file),
            ];
            let mut archive = Vec::new();
            for (header, name) in entries {
                archive.extend(header.to_blocks_as(name, Format::Go).unwrap());
            }
            archive.extend(vec![0; Format::Go.trailer(0)]);
            assert_eq!(archive.len(), 3072);
            assert_eq!(Digest::of(&archive).hex(), expected, "{mode:o}");
        }
    }
}
