//! A name in an archive, in the archive's order. Pure.

use std::cmp::Ordering;

use firn_oci::tar::compare_names;

/// A name in the archive. Ordered component by component, as entries are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(pub(super) Vec<u8>);

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_names(&self.0, &other.0)
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
