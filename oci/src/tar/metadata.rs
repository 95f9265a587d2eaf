//! What an entry has besides its name and contents. Pure.

/// An extended attribute: written as PAX record `SCHILY.xattr.<name>`, which containerd, Docker,
/// GNU tar and libarchive apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xattr<'a> {
    /// With its name space, as in `security.capability`. Not empty, without `=` and NUL.
    pub name: &'a str,
    /// Any bytes.
    pub value: &'a [u8],
}

/// What an entry has besides its name and contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata<'a> {
    /// Permission bits, with setuid, setgid and sticky: `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Name of the owner, or empty. Who unpacks may prefer it to the number.
    pub user: &'a str,
    /// Name of the group, or empty.
    pub group: &'a str,
    /// Seconds since 1970.
    pub mtime: u64,
    /// Extended attributes; each name once.
    pub xattrs: &'a [Xattr<'a>],
}

impl Metadata<'_> {
    /// Owned by 0:0 without names, with mtime 1: what everything in a Nix store has.
    pub const fn root(mode: u32) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            user: "",
            group: "",
            mtime: 1,
            xattrs: &[],
        }
    }

    /// As [`Metadata::root`], with `root` as both names: nix2container's and dockerTools' default.
    pub const fn named_root(mode: u32) -> Self {
        Self {
            user: "root",
            group: "root",
            ..Self::root(mode)
        }
    }
}
