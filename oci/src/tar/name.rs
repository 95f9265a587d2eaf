//! Which names and link targets may stand in a layer. Pure.

/// The rule that a name breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Absolute, empty, or with an empty, `.` or `..` component.
    #[error("the name is not a plain relative path")]
    NotPlain,
    /// A NUL byte, which no header can hold.
    #[error("the name or link target contains a NUL byte")]
    Nul,
    /// A link to nowhere.
    #[error("the link target is empty")]
    EmptyTarget,
    /// An extended attribute that no record can hold.
    #[error("the name of an extended attribute is empty or contains \"=\" or a NUL byte")]
    Xattr,
    /// The file would not be unpacked: it would delete another one.
    /// <https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts>
    #[error(
        "names that begin with \".wh.\" mean a deletion in a layer, so such a file cannot be in \
         an image; leave it out of the package"
    )]
    Whiteout,
}

/// The name of the entry that deletes `name` of the layers below:
/// <https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts>
pub fn whiteout_name(name: &[u8]) -> Vec<u8> {
    let base = name
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |slash| slash + 1);
    let (directory, base) = name.split_at_checked(base).unwrap_or((b"", name));
    [directory, b".wh.", base].concat()
}

/// The name of the entry that hides what the layers below have in the directory `name`.
pub fn opaque_name(name: &[u8]) -> Vec<u8> {
    [name, b"/.wh..wh..opq"].concat()
}

pub(super) fn check(name: &[u8]) -> Result<(), NameError> {
    if name.contains(&0) {
        return Err(NameError::Nul);
    }
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." | b".." => return Err(NameError::NotPlain),
            [b'.', b'w', b'h', b'.', ..] => return Err(NameError::Whiteout),
            _ => {}
        }
    }
    Ok(())
}

pub(super) fn check_target(target: &[u8]) -> Result<(), NameError> {
    if target.is_empty() {
        return Err(NameError::EmptyTarget);
    }
    if target.contains(&0) {
        return Err(NameError::Nul);
    }
    Ok(())
}
