//! Nix's exit status. Pure.

/// What the bits of a failed build say. Several may be set after `--keep-going`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are bits, and any of them may be set"
)]
pub struct BuildStatus {
    /// A derivation failed for good.
    pub failed: bool,
    /// A derivation took too long.
    pub timed_out: bool,
    /// A fixed-output derivation has another hash.
    pub hash_mismatch: bool,
    /// A derivation built again gave something else.
    pub not_deterministic: bool,
}

impl BuildStatus {
    /// `None`: not the status of a failed build. 100, 101, 102 and 104 are bits on a base of 96,
    /// of which 100's own means "failed".
    pub fn of(code: Option<i32>) -> Option<Self> {
        let bits = code.filter(|code| (97..112).contains(code))? - 96;
        Some(Self {
            failed: bits & 4 != 0,
            timed_out: bits & 1 != 0,
            hash_mismatch: bits & 2 != 0,
            not_deterministic: bits & 8 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_told_apart() {
        let none = BuildStatus::default();
        let failed = BuildStatus {
            failed: true,
            ..none
        };
        for (code, status) in [
            (0, None),
            (1, None),
            (96, None),
            (100, Some(failed)),
            (
                101,
                Some(BuildStatus {
                    timed_out: true,
                    ..failed
                }),
            ),
            (
                102,
                Some(BuildStatus {
                    hash_mismatch: true,
                    ..failed
                }),
            ),
            (
                104,
                Some(BuildStatus {
                    not_deterministic: true,
                    ..none
                }),
            ),
            (
                103,
                Some(BuildStatus {
                    timed_out: true,
                    hash_mismatch: true,
                    ..failed
                }),
            ),
            (137, None),
        ] {
            assert_eq!(BuildStatus::of(Some(code)), status, "{code}");
        }
        assert_eq!(BuildStatus::of(None), None);
    }
}
