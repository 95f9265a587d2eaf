//! How layers are compressed: from the words of a NixImage, a description or a command line to an
//! encoder. Pure.

use firn_crd::run::Compression as Wanted;
use firn_oci::Compression;

/// A level that the compression does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.words())]
pub struct InvalidLevel {
    compression: Wanted,
    level: u8,
}

impl InvalidLevel {
    fn words(self) -> String {
        let Self { compression, level } = self;
        match compression.levels() {
            Some(levels) => format!(
                "{level} is no level of {compression:?}: wanted {} to {}",
                levels.start(),
                levels.end()
            ),
            None => format!(
                "{level} is given, and compression is {compression:?}, which has no levels: leave one of the two out"
            ),
        }
    }
}

/// The encoder for what was asked for, at its usual level if none was.
pub fn encoder(compression: Wanted, level: Option<u8>) -> Result<Compression, InvalidLevel> {
    let Some(level) = level else {
        return Ok(match compression {
            Wanted::Zstd => Compression::ZSTD,
            Wanted::Gzip => Compression::GZIP,
            Wanted::None => Compression::NONE,
        });
    };
    let has_it = compression
        .levels()
        .is_some_and(|levels| levels.contains(&level));
    let encoder = match compression {
        Wanted::Zstd => Compression::zstd(level),
        Wanted::Gzip => Compression::gzip(level),
        Wanted::None => None,
    };
    encoder
        .filter(|_| has_it)
        .ok_or(InvalidLevel { compression, level })
}

/// What a description says of it, over what was asked for besides: a level belongs to the
/// compression that it was said of.
pub fn laid_over(
    own: (Option<Wanted>, Option<u8>),
    asked: (Wanted, Option<u8>),
) -> (Wanted, Option<u8>) {
    let compression = own.0.unwrap_or(asked.0);
    let asked_level = asked.1.filter(|_| compression == asked.0);
    (compression, own.1.or(asked_level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_that_may_be_asked_for_is_there_and_no_other() {
        for compression in [Wanted::Zstd, Wanted::Gzip, Wanted::None] {
            for level in 0..=u8::MAX {
                let has_it = compression
                    .levels()
                    .is_some_and(|levels| levels.contains(&level));
                let encoder = encoder(compression, Some(level));
                assert_eq!(encoder.is_ok(), has_it, "{compression:?} {level}");
                assert!(encoder.is_err() || encoder.unwrap().level() == level);
            }
        }
    }

    #[test]
    fn without_a_level_bytes_are_what_they_were() {
        assert_eq!(encoder(Wanted::Zstd, None), Ok(Compression::ZSTD));
        assert_eq!(encoder(Wanted::Gzip, None), Ok(Compression::GZIP));
        assert_eq!(encoder(Wanted::None, None), Ok(Compression::NONE));
    }

    #[test]
    fn a_level_goes_with_its_own_compression() {
        use Wanted::{Gzip, None as Plain, Zstd};
        for (own, asked, expected) in [
            ((None, None), (Zstd, Some(19)), (Zstd, Some(19))),
            ((Some(Zstd), None), (Zstd, Some(19)), (Zstd, Some(19))),
            ((Some(Gzip), None), (Zstd, Some(19)), (Gzip, None)),
            ((None, Some(5)), (Gzip, Some(9)), (Gzip, Some(5))),
            ((Some(Plain), None), (Gzip, Some(9)), (Plain, None)),
            ((Some(Gzip), Some(1)), (Gzip, Some(9)), (Gzip, Some(1))),
        ] {
            assert_eq!(laid_over(own, asked), expected, "{own:?} {asked:?}");
        }
    }

    #[test]
    fn a_wrong_level_says_which_there_are() {
        let error = encoder(Wanted::Gzip, Some(10)).unwrap_err().to_string();
        assert_eq!(error, "10 is no level of Gzip: wanted 1 to 9");
        let error = encoder(Wanted::None, Some(1)).unwrap_err().to_string();
        assert!(error.contains("leave one of the two out"), "{error}");
    }
}
