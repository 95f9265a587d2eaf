//! How a layer's blob is compressed: bytes that are a function of the input alone, independent of
//! the number of threads and of how the input is cut into writes.
//!
//! The input is cut every [`CHUNK`] bytes; each chunk becomes a zstd frame or a gzip member of its
//! own, and these are joined: both formats say that a reader goes on to the next one (RFC 8878,
//! section 3; RFC 1952, section 2.2). So chunks can be compressed anywhere, and only their order
//! is kept. See [`Compressors`] for the threads.
//!
//! Why, and what it costs: `docs/decisions/0002-frames.md`.

use std::fmt::Write as _;

use crate::media_type;

mod codec;
mod encoder;
mod pool;

pub use encoder::Encoder;
pub use pool::Compressors;

/// How many bytes of input become one frame or member. Part of the bytes' identity.
pub const CHUNK: usize = 2 << 20;

/// The version in libdeflate-sys that the gzip bytes depend on: the library does not tell it at run
/// time. A test compares it with Cargo.lock.
const LIBDEFLATE: &str = "1.26.1";

/// The format of a compressed layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Not compressed. Some clients cannot pull that.
    None,
    /// For clients without zstd.
    Gzip,
    /// Smaller and faster on both sides.
    Zstd,
}

/// How a layer's blob is compressed: an algorithm and its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Compression {
    algorithm: Algorithm,
    /// 0 for an algorithm that has none.
    level: u8,
}

impl Compression {
    /// As it is.
    pub const NONE: Self = Self {
        algorithm: Algorithm::None,
        level: 0,
    };
    /// Level 4: 136 MB/s on one core; level 6 costs 1.5 times the time for 3 %.
    pub const GZIP: Self = Self {
        algorithm: Algorithm::Gzip,
        level: 4,
    };
    /// Level 3: 240 MB/s on one core at a ratio of 0.33; level 6 costs 2.7 times the time for 5 %.
    pub const ZSTD: Self = Self {
        algorithm: Algorithm::Zstd,
        level: 3,
    };
    /// The levels that gzip has (those of libdeflate).
    pub const GZIP_LEVELS: std::ops::RangeInclusive<u8> = 1..=12;
    /// The levels that zstd has here: those above 19 need more memory than a worker may have.
    pub const ZSTD_LEVELS: std::ops::RangeInclusive<u8> = 1..=19;

    /// Gzip of one of [`Self::GZIP_LEVELS`], or `None`.
    pub fn gzip(level: u8) -> Option<Self> {
        Self::GZIP_LEVELS.contains(&level).then_some(Self {
            level,
            ..Self::GZIP
        })
    }

    /// Zstd of one of [`Self::ZSTD_LEVELS`], or `None`.
    pub fn zstd(level: u8) -> Option<Self> {
        Self::ZSTD_LEVELS.contains(&level).then_some(Self {
            level,
            ..Self::ZSTD
        })
    }

    /// The format.
    pub const fn algorithm(self) -> Algorithm {
        self.algorithm
    }

    /// The level; 0 without compression.
    pub const fn level(self) -> u8 {
        self.level
    }

    /// The media type of a layer compressed so.
    pub const fn layer_media_type(self) -> &'static str {
        match self.algorithm {
            Algorithm::None => media_type::LAYER_TAR,
            Algorithm::Gzip => media_type::LAYER_GZIP,
            Algorithm::Zstd => media_type::LAYER_ZSTD,
        }
    }

    /// Everything the compressed bytes depend on besides the input: algorithm, parameters, and
    /// the library's version. Two equal identities make equal bytes. For recipe keys.
    pub fn identity(self) -> String {
        let level = self.level;
        match self.algorithm {
            Algorithm::None => "none".to_owned(),
            Algorithm::Gzip => {
                format!("gzip;libdeflate={LIBDEFLATE};level={level};member={CHUNK}")
            }
            Algorithm::Zstd => {
                let libzstd = zstd::zstd_safe::version_string();
                let mut identity = format!("zstd;libzstd={libzstd};level={level};frame={CHUNK}");
                if let Some(log) = codec::zstd_table_log(level) {
                    // Writing into a String cannot fail.
                    let _ = write!(identity, ";tables={log}");
                }
                identity
            }
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self::ZSTD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_levels_that_the_libraries_have_and_no_others() {
        assert_eq!(Compression::zstd(3), Some(Compression::ZSTD));
        assert_eq!(Compression::gzip(4), Some(Compression::GZIP));
        assert_eq!(Compression::zstd(20), None);
        assert_eq!(Compression::gzip(13), None);
        assert_eq!(Compression::zstd(0), None);
        assert_eq!(Compression::gzip(0), None);
    }

    #[test]
    fn every_level_has_an_identity_of_its_own() {
        let all: std::collections::BTreeSet<String> = Compression::ZSTD_LEVELS
            .filter_map(Compression::zstd)
            .chain(Compression::GZIP_LEVELS.filter_map(Compression::gzip))
            .chain([Compression::NONE])
            .map(Compression::identity)
            .collect();
        assert_eq!(all.len(), 19 + 12 + 1);
    }
}
