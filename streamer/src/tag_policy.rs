//! What becomes of a tag. Pure.

use firn_crd::output::TagPolicy;
use firn_oci::{Digest, Tag};

/// What becomes of one tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It points to the image already.
    There,
    /// It is moved to the image.
    Moves,
    /// It points to somebody else's image, and stays.
    Kept,
    /// It points to somebody else's image, so no tag is moved.
    Refused,
}

/// Whose tags are whose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ownership {
    /// What becomes of those of others.
    pub policy: TagPolicy,
    /// What was published here before, by whoever moves the tags.
    pub ours: Vec<Digest>,
}

impl Ownership {
    /// What becomes of a tag that points there, when it is to point to `image`.
    pub fn fate(&self, there: Option<&Digest>, image: &Digest) -> Fate {
        match there {
            Some(there) if there == image => Fate::There,
            Some(there) if !self.ours.contains(there) => match self.policy {
                TagPolicy::Overwrite => Fate::Moves,
                TagPolicy::Keep => Fate::Kept,
                TagPolicy::Fail => Fate::Refused,
            },
            Some(_) | None => Fate::Moves,
        }
    }
}

/// What becomes of all tags of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moves {
    /// Those that do not point to the image yet and are to.
    pub stale: Vec<Tag>,
    /// Places of those that are kept, in the run's list.
    pub kept: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_of_others_is_treated_as_the_policy_says_and_every_other_one_is_moved() {
        let [image, ours, foreign] = ["image", "ours", "foreign"].map(|w| Digest::of(w.as_bytes()));
        for (policy, of_others) in [
            (TagPolicy::Overwrite, Fate::Moves),
            (TagPolicy::Keep, Fate::Kept),
            (TagPolicy::Fail, Fate::Refused),
        ] {
            let ownership = Ownership {
                policy,
                ours: vec![ours],
            };
            assert_eq!(ownership.fate(Some(&image), &image), Fate::There);
            assert_eq!(ownership.fate(None, &image), Fate::Moves);
            assert_eq!(ownership.fate(Some(&ours), &image), Fate::Moves);
            assert_eq!(
                ownership.fate(Some(&foreign), &image),
                of_others,
                "{policy}"
            );
        }
    }
}
