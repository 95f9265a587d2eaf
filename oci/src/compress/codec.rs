//! One chunk in, one zstd frame or gzip member out. What a worker thread holds.

use std::io;

use libdeflater::CompressionLvl;
use zstd::zstd_safe::CParameter;

use super::{Algorithm, CHUNK, Compression};

/// What the largest output of a chunk takes: both libraries add less than this to a chunk that
/// does not compress.
pub(super) const OUTPUT_MAX: usize = CHUNK + (16 << 10);

/// The levels from here on would have tables of up to 32 MiB.
const ZSTD_LARGE: u8 = 9;
/// Tables of 4 MiB each: costs 0.3 % of the size at level 19, and is a fifth faster.
const ZSTD_TABLE_LOG: u32 = 20;

/// The size that the tables of a zstd level are held to, as a power of two; `None` where the level
/// itself has smaller ones.
pub(super) fn zstd_table_log(level: u8) -> Option<u32> {
    (level >= ZSTD_LARGE).then_some(ZSTD_TABLE_LOG)
}

/// What a compressor holds at most: of libzstd by measurement (a test compares), of libdeflate by
/// the size of its structures.
pub(super) const fn memory(compression: Compression) -> usize {
    match compression.algorithm {
        Algorithm::None => 0,
        Algorithm::Gzip if compression.level < 10 => 1 << 20,
        Algorithm::Zstd if compression.level < 5 => 3 << 20,
        Algorithm::Zstd if compression.level < ZSTD_LARGE => 8 << 20,
        Algorithm::Gzip | Algorithm::Zstd => 10 << 20,
    }
}

/// Keeps the compressor of the last chunk, since the next one is most likely of the same kind.
#[derive(Default)]
pub(super) struct Codec(Option<(Compression, Compressor)>);

enum Compressor {
    Store,
    Gzip(libdeflater::Compressor),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Codec {
    /// Replaces what is in `output`, which should have a capacity of [`OUTPUT_MAX`].
    pub(super) fn compress(
        &mut self,
        compression: Compression,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> io::Result<()> {
        output.clear();
        match self.compressor(compression)? {
            Compressor::Store => output.extend_from_slice(input),
            Compressor::Gzip(compressor) => {
                // libdeflate writes MTIME 0, no name, and 255 (unknown) as operating system.
                output.resize(compressor.gzip_compress_bound(input.len()), 0);
                let length = compressor
                    .gzip_compress(input, output)
                    .map_err(io::Error::other)?;
                output.truncate(length);
            }
            Compressor::Zstd(compressor) => {
                // Tells the size of the contents, so that readers need no larger window, and has
                // no checksum: the blob has a digest.
                output.reserve(zstd::zstd_safe::compress_bound(input.len()));
                compressor.compress_to_buffer(input, output)?;
            }
        }
        Ok(())
    }

    fn compressor(&mut self, compression: Compression) -> io::Result<&mut Compressor> {
        let kept = self.0.take().filter(|(of, _)| *of == compression);
        let compressor = match kept {
            Some((_, compressor)) => compressor,
            None => Compressor::new(compression)?,
        };
        Ok(&mut self.0.insert((compression, compressor)).1)
    }
}

impl Compressor {
    fn new(compression: Compression) -> io::Result<Self> {
        let level = i32::from(compression.level);
        match compression.algorithm {
            Algorithm::None => Ok(Self::Store),
            Algorithm::Gzip => {
                let level = CompressionLvl::new(level)
                    .map_err(|_| io::Error::other("libdeflate does not know the level"))?;
                Ok(Self::Gzip(libdeflater::Compressor::new(level)))
            }
            Algorithm::Zstd => {
                let mut compressor = zstd::bulk::Compressor::new(level)?;
                if let Some(log) = zstd_table_log(compression.level) {
                    compressor.set_parameter(CParameter::HashLog(log))?;
                    compressor.set_parameter(CParameter::ChainLog(log))?;
                }
                Ok(Self::Zstd(compressor))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does not compress.
    fn noise(size: usize) -> Vec<u8> {
        let mut state = 1u64;
        std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .take(size)
        .collect()
    }

    #[test]
    fn a_zstd_compressor_holds_no_more_than_is_said() {
        let input = noise(CHUNK);
        for level in Compression::ZSTD_LEVELS {
            let compression = Compression::zstd(level).unwrap();
            let mut codec = Codec::default();
            let mut output = Vec::new();
            codec.compress(compression, &input, &mut output).unwrap();
            let Some((_, Compressor::Zstd(compressor))) = &mut codec.0 else {
                panic!("no zstd compressor")
            };
            let held = compressor.context_mut().sizeof();
            assert!(held <= memory(compression), "{level}: {held}");
            // With its three buffers: what a push promises for each worker.
            let worker = held + 3 * OUTPUT_MAX;
            assert!(worker <= 16 << 20, "{level}: {worker}");
        }
    }

    /// Whatever the level, a reader needs no more than a frame's contents.
    #[test]
    fn no_level_asks_more_memory_of_readers() {
        let input = noise(CHUNK);
        for level in [1, 3, 9, 19] {
            let compression = Compression::zstd(level).unwrap();
            let mut output = Vec::new();
            let mut codec = Codec::default();
            codec.compress(compression, &input, &mut output).unwrap();
            let mut reader = zstd::Decoder::new(output.as_slice()).unwrap();
            reader.window_log_max(CHUNK.ilog2()).unwrap();
            let mut read = Vec::new();
            io::Read::read_to_end(&mut reader, &mut read).unwrap();
            assert!(read == input, "{level}");
        }
    }

    #[test]
    fn the_largest_output_fits_its_buffer() {
        let input = noise(CHUNK);
        for compression in [Compression::ZSTD, Compression::GZIP] {
            let mut output = Vec::with_capacity(OUTPUT_MAX);
            Codec::default()
                .compress(compression, &input, &mut output)
                .unwrap();
            assert!(output.len() >= CHUNK, "it does compress");
            assert_eq!(output.capacity(), OUTPUT_MAX, "{compression:?}");
        }
    }

    #[test]
    fn a_codec_changes_with_the_compression_that_is_asked() {
        let mut codec = Codec::default();
        let mut output = Vec::new();
        for (compression, magic) in [
            (Compression::ZSTD, &[0x28, 0xb5, 0x2f, 0xfd][..]),
            (Compression::GZIP, &[0x1f, 0x8b]),
            (Compression::NONE, b"inp"),
            (Compression::ZSTD, &[0x28, 0xb5, 0x2f, 0xfd]),
        ] {
            codec.compress(compression, b"input", &mut output).unwrap();
            assert!(output.starts_with(magic), "{compression:?}");
        }
    }
}
