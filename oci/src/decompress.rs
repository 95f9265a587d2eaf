//! Blobs that others compressed, read: gzip, zstd, or nothing at all. Synchronous.
//!
//! Memory: a buffer of 32 KiB, and for zstd the window that the blob asks for, at most
//! 64 MiB.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::media_type;

/// The largest window of a zstd blob: 64 MiB, what level 21 asks for. More is refused.
const WINDOW_LOG_MAX: u32 = 26;

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// Not at all.
    Plain,
    /// RFC 1952, of any number of members.
    Gzip,
    /// RFC 8878, of any number of frames.
    Zstd,
}

impl Encoding {
    /// How many bytes [`Encoding::sniff`] wants to see.
    pub const MAGIC: usize = 4;

    /// From the first bytes of a blob. Everything that is not known is plain.
    pub fn sniff(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// The media type of a layer that is compressed so.
    pub const fn layer_media_type(self) -> &'static str {
        match self {
            Self::Plain => media_type::LAYER_TAR,
            Self::Gzip => media_type::LAYER_GZIP,
            Self::Zstd => media_type::LAYER_ZSTD,
        }
    }

    /// From the media type of a layer, of either family. `None`: it is no type of a layer, or of
    /// one that must not be copied.
    pub fn of_layer(media_type: &str) -> Option<Self> {
        match media_type {
            media_type::LAYER_TAR | media_type::DOCKER_LAYER_TAR => Some(Self::Plain),
            media_type::LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Some(Self::Gzip),
            media_type::LAYER_ZSTD => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// A reader of what a blob holds.
pub struct Decoder<R: Read> {
    inner: Inner<R>,
}

enum Inner<R: Read> {
    Plain(R),
    Gzip(Box<MultiGzDecoder<BufReader<R>>>),
    Zstd(zstd::Decoder<'static, BufReader<R>>),
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.inner {
            Inner::Plain(_) => "Decoder(plain)",
            Inner::Gzip(_) => "Decoder(gzip)",
            Inner::Zstd(_) => "Decoder(zstd)",
        })
    }
}

impl<R: Read> Decoder<R> {
    /// Reads `inner`.
    ///
    /// # Errors
    /// The library has no memory.
    pub fn new(encoding: Encoding, inner: R) -> io::Result<Self> {
        let inner = match encoding {
            Encoding::Plain => Inner::Plain(inner),
            Encoding::Gzip => {
                let buffered = BufReader::with_capacity(32 * 1024, inner);
                Inner::Gzip(Box::new(MultiGzDecoder::new(buffered)))
            }
            Encoding::Zstd => {
                let buffered = BufReader::with_capacity(32 * 1024, inner);
                let mut decoder = zstd::Decoder::with_buffer(buffered)?;
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                Inner::Zstd(decoder)
            }
        };
        Ok(Self { inner })
    }

    /// The reader below. What was read ahead is lost.
    pub fn into_inner(self) -> R {
        match self.inner {
            Inner::Plain(inner) => inner,
            Inner::Gzip(decoder) => decoder.into_inner().into_inner(),
            Inner::Zstd(decoder) => decoder.finish().into_inner(),
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(inner) => inner.read(buf),
            Inner::Gzip(decoder) => decoder.read(buf),
            Inner::Zstd(decoder) => decoder.read(buf),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const COMPRESSED: [Encoding; 2] = [Encoding::Gzip, Encoding::Zstd];

    fn compressed(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
        if encoding == Encoding::Zstd {
            return zstd::encode_all(bytes, 3).unwrap();
        }
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(encoding: Encoding, blob: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        Decoder::new(encoding, blob)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn damaged_and_short_blobs_are_errors() {
        for encoding in COMPRESSED {
            let blob = compressed(encoding, &vec![7; 100_000]);
            assert_eq!(read(encoding, &blob).unwrap().len(), 100_000);
            assert!(
                read(encoding, &blob[..blob.len() - 1]).is_err(),
                "{encoding:?}"
            );
            assert!(read(encoding, b"no such format").is_err());
        }
    }

    #[test]
    fn members_and_frames_are_joined() {
        for encoding in COMPRESSED {
            let twice = [compressed(encoding, b"one "), compressed(encoding, b"two")];
            assert_eq!(read(encoding, &twice.concat()).unwrap(), b"one two");
            assert_eq!(Encoding::sniff(&twice.concat()), encoding);
        }
        assert_eq!(read(Encoding::Plain, b"as it is").unwrap(), b"as it is");
    }

    #[test]
    fn a_window_of_more_than_64_mib_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
        let blob = encoder.finish().unwrap();
        assert!(read(Encoding::Zstd, &blob).is_err());
    }

    #[test]
    fn types_of_both_families_are_known_and_no_others() {
        let gzip = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        assert_eq!(Encoding::of_layer(gzip), Some(Encoding::Gzip));
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        assert_eq!(Encoding::of_layer(foreign), None);
        for encoding in [Encoding::Plain, Encoding::Gzip, Encoding::Zstd] {
            assert_eq!(
                Encoding::of_layer(encoding.layer_media_type()),
                Some(encoding)
            );
        }
    }
}
