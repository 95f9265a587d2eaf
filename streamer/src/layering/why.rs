//! Why a layer holds what it holds, in words that a user understands. Pure.

use std::fmt;

/// The reason of one layer. `Display` is what `plan` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The user declared it. The first is number 1.
    Declared {
        /// Its place among the declared layers, from 1.
        number: usize,
    },
    /// One path, large enough by itself.
    Large {
        /// Its NAR size in bytes.
        nar_size: u64,
    },
    /// Paths that change together, or nearly.
    Alike {
        /// How many.
        paths: usize,
    },
    /// One path with which nothing belongs together, although it is not large.
    Alone,
    /// One of the paths that are reached on the most ways.
    Popular {
        /// 1 is the most popular.
        rank: usize,
    },
    /// All that is less popular.
    LessPopular {
        /// How many.
        paths: usize,
        /// The best rank among them.
        rank: usize,
    },
    /// One of the largest paths, with what only it uses.
    LargeWithOwn {
        /// How many paths besides the large one.
        others: usize,
    },
    /// What the same large paths use.
    SharedBy {
        /// How many paths share it.
        users: usize,
    },
    /// What none of the large paths uses.
    Rest {
        /// How many.
        paths: usize,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Declared { number } => write!(f, "declared layer {number}"),
            Self::Large { nar_size } => write!(f, "large: {} by itself", Bytes(nar_size)),
            Self::Alike { paths } => {
                write!(f, "{paths} paths that depend on nearly the same things")
            }
            Self::Alone => f.write_str("one path that has nothing in common with others"),
            Self::Popular { rank } => write!(f, "popularity rank {rank}"),
            Self::LessPopular { paths, rank } => {
                write!(f, "{} from popularity rank {rank} on", Paths(paths))
            }
            Self::LargeWithOwn { others: 0 } => f.write_str("one of the largest paths"),
            Self::LargeWithOwn { others } => {
                write!(
                    f,
                    "one of the largest paths, with {} that only it uses",
                    Paths(others)
                )
            }
            Self::SharedBy { users } => write!(f, "used by the same {users} large paths"),
            Self::Rest { paths } => write!(f, "{} that no large path uses", Paths(paths)),
        }
    }
}

struct Paths(usize);

impl fmt::Display for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 path"),
            count => write!(f, "{count} paths"),
        }
    }
}

/// Decimal units, as registries count; rounded down.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 10_000_000_000.. => write!(f, "{} GB", bytes / 1_000_000_000),
            bytes @ 1_000_000.. => write!(f, "{} MB", bytes / 1_000_000),
            bytes @ 1_000.. => write!(f, "{} kB", bytes / 1_000),
            bytes => write!(f, "{bytes} B"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_reads_as_a_sentence_would() {
        for (why, words) in [
            (Why::Declared { number: 2 }, "declared layer 2"),
            (
                Why::Large {
                    nar_size: 203_450_000,
                },
                "large: 203 MB by itself",
            ),
            (
                Why::Alike { paths: 12 },
                "12 paths that depend on nearly the same things",
            ),
            (Why::Popular { rank: 17 }, "popularity rank 17"),
            (
                Why::LessPopular {
                    paths: 1,
                    rank: 100,
                },
                "1 path from popularity rank 100 on",
            ),
            (
                Why::LargeWithOwn { others: 3 },
                "one of the largest paths, with 3 paths that only it uses",
            ),
            (Why::SharedBy { users: 4 }, "used by the same 4 large paths"),
        ] {
            assert_eq!(why.to_string(), words);
        }
    }
}
