//! What kind of registry the fake one is.

/// The habits of a registry; by default those of one that does all the specification has, and no
/// more than it must.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a habit by itself, and named where it is set"
)]
pub struct Habits {
    /// How blobs may be sent.
    pub uploads: Uploads,
    /// Takes blobs from its other repositories.
    pub mounts: bool,
    /// Has the referrers API. Without it manifests with a subject are taken and not listed.
    pub referrers: bool,
    /// Answers ranged reads in full, as if it knew no ranges.
    pub ranges: bool,
    /// Lets no tag move.
    pub immutable_tags: bool,
    /// Takes manifests with zstd layers.
    pub zstd: bool,
    /// Looks whether it has what a manifest names before it takes it.
    pub checks: bool,
    /// What the deletion of a tag deletes.
    pub deletions: Deletions,
}

/// What the deletion of a tag deletes. A digest can always be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletions {
    /// The tag.
    Tag,
    /// The manifest, with all its tags.
    Manifest,
    /// Nothing: it is called a bad digest, as distribution before 3 does it.
    Refused,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            uploads: Uploads::Any,
            mounts: true,
            referrers: false,
            ranges: true,
            immutable_tags: false,
            zstd: true,
            checks: true,
            deletions: Deletions::Tag,
        }
    }
}

/// How blobs may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploads {
    /// One body of any length, or numbered chunks.
    Any,
    /// No request larger than so many bytes (413): a proxy stands before it.
    Capped(usize),
    /// Numbered chunks only (any other body is answered with this status), none but the last
    /// smaller than `min`, none larger than `max` (416).
    Chunks {
        /// What `OCI-Chunk-Min-Length` says.
        min: usize,
        /// The largest.
        max: usize,
        /// Answer to a body without a range.
        otherwise: u16,
    },
    /// With the commit only: no PATCH.
    Whole,
    /// One body of any length; what later ones hold is thrown away without a word, as ECR does it.
    FirstOnly,
}
