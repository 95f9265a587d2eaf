//! Layers that exist as bytes in the store already, and what was declared of them. Pure.

use firn_oci::Digest;
use firn_oci::decompress::Encoding;

use crate::store::Place;

/// A layer as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The file with the bytes.
    pub place: Place,
    /// Where in the file they are; `None`: they are the file.
    pub member: Option<Member>,
    /// What becomes of them.
    pub form: Form,
    /// The digest of the uncompressed archive, as declared. It is compared.
    pub diff_id: Digest,
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// How the file is compressed as a whole.
    pub archive: Encoding,
    /// Where the part begins in the uncompressed file, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub size: u64,
}

/// What becomes of a blob's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// They are a tar archive, which Firn compresses.
    Tar,
    /// They are the layer as it goes to the registry.
    Verbatim {
        /// How they are compressed.
        encoding: Encoding,
        /// Their digest, as declared. It is compared. `None`: nobody declared it.
        digest: Option<Digest>,
    },
}
