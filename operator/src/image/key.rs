//! The key of a build: two equal keys are the same work, asked for by the same wish. Pure.

use sha2::{Digest, Sha256};

/// Characters of a key. A label's value has at most 63; 128 bits are plenty.
const LENGTH: usize = 32;

/// Everything that makes one build another than the next.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    /// UID of the image: one that was deleted and made again is another.
    pub image_uid: &'a str,
    /// Hash of the fields that change the image.
    pub build_hash: &'a str,
    /// Hash of the fields that change tags only.
    pub tags_hash: &'a str,
    /// The commit.
    pub commit: &'a str,
    /// A person's request, or the number of the attempt.
    pub nonce: &'a str,
}

impl Key<'_> {
    /// The key as text: hex digits.
    pub fn text(self) -> String {
        let Self {
            image_uid,
            build_hash,
            tags_hash,
            commit,
            nonce,
        } = self;
        let mut hash = Sha256::new();
        for part in [image_uid, build_hash, tags_hash, commit, nonce] {
            // The length keeps ("a", "bc") and ("ab", "c") apart.
            hash.update(part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
        let hex: Vec<String> = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        hex.concat().chars().take(LENGTH).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts() {
        let base = Key {
            image_uid: "u",
            build_hash: "b",
            tags_hash: "t",
            commit: "c",
            nonce: "1",
        };
        let keys = [
            base,
            Key {
                image_uid: "x",
                ..base
            },
            Key {
                build_hash: "x",
                ..base
            },
            Key {
                tags_hash: "x",
                ..base
            },
            Key {
                commit: "x",
                ..base
            },
            Key { nonce: "2", ..base },
            Key {
                image_uid: "ub",
                build_hash: "",
                ..base
            },
        ]
        .map(Key::text);
        let mut unique = keys.to_vec();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), keys.len());
        assert_eq!(keys[0].len(), LENGTH);
    }
}
