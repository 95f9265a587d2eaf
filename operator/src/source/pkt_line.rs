//! Git's pkt-line framing: four hexadecimal digits of length, then the payload. Pure.
//!
//! Source: gitprotocol-common(5) and gitprotocol-v2(5).

/// Longest packet, length digits included (gitprotocol-common(5): 65520).
const PACKET_MAX: usize = 65_520;
/// Digits of the length.
const HEADER: usize = 4;

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// A payload, its line feed included if it has one.
    Data(&'a [u8]),
    /// `0000`: the message ends.
    Flush,
    /// `0001`: a section of the message ends.
    Delimiter,
    /// `0002`: the response ends (stateless connections).
    ResponseEnd,
}

/// Where and how the framing is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PacketError {
    /// The answer ends within a packet.
    #[error("the packet at byte {at} is cut off")]
    Truncated {
        /// Where the packet begins.
        at: usize,
    },
    /// The length is not a possible one.
    #[error("the packet at byte {at} has no valid length")]
    Length {
        /// Where the packet begins.
        at: usize,
    },
}

/// The packets of `bytes`, in order; ends after the first error.
#[derive(Debug, Clone)]
pub(crate) struct Packets<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Packets<'a> {
    /// Reads `bytes` from the beginning.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, at: 0 }
    }

    fn parse(&self) -> Result<(Packet<'a>, usize), PacketError> {
        let at = self.at;
        let digits = self
            .rest
            .get(..HEADER)
            .ok_or(PacketError::Truncated { at })?;
        let length = digits
            .iter()
            .try_fold(0_usize, |sum, digit| {
                let value = char::from(*digit).to_digit(16)?;
                Some(sum * 16 + usize::try_from(value).ok()?)
            })
            .ok_or(PacketError::Length { at })?;
        match length {
            0 => Ok((Packet::Flush, HEADER)),
            1 => Ok((Packet::Delimiter, HEADER)),
            2 => Ok((Packet::ResponseEnd, HEADER)),
            HEADER..=PACKET_MAX => {
                let payload = self
                    .rest
                    .get(HEADER..length)
                    .ok_or(PacketError::Truncated { at })?;
                Ok((Packet::Data(payload), length))
            }
            _ => Err(PacketError::Length { at }),
        }
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, PacketError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = self.parse();
        let length = parsed
            .as_ref()
            .map_or(self.rest.len(), |(_, length)| *length);
        self.rest = self.rest.get(length..).unwrap_or_default();
        self.at += length;
        Some(parsed.map(|(packet, _)| packet))
    }
}

/// Appends a line as one packet. Lines of requests are short: one longer than a packet can be is
/// cut, and then refused by the server.
pub(crate) fn write_line(out: &mut Vec<u8>, line: &str) {
    let payload = line.as_bytes();
    let payload = payload.get(..PACKET_MAX - HEADER - 1).unwrap_or(payload);
    let length = payload.len() + HEADER + 1;
    out.extend_from_slice(format!("{length:04x}").as_bytes());
    out.extend_from_slice(payload);
    out.push(b'\n');
}

/// Appends the end of a section.
pub(crate) fn write_delimiter(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0001");
}

/// Appends the end of the message.
pub(crate) fn write_flush(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0000");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_special_packet_is_told_apart() {
        let packets: Vec<_> = Packets::new(b"0006a\n0001000200040000")
            .map(Result::unwrap)
            .collect();
        assert_eq!(
            packets,
            [
                Packet::Data(b"a\n"),
                Packet::Delimiter,
                Packet::ResponseEnd,
                Packet::Data(b""),
                Packet::Flush
            ]
        );
    }

    #[test]
    fn broken_framing_says_where() {
        let all = |bytes: &'static [u8]| Packets::new(bytes).last().unwrap();
        assert_eq!(
            all(b"0006a\n0009abc"),
            Err(PacketError::Truncated { at: 6 })
        );
        assert_eq!(all(b"00"), Err(PacketError::Truncated { at: 0 }));
        assert_eq!(all(b"0003"), Err(PacketError::Length { at: 0 }));
        assert_eq!(all(b"fff1"), Err(PacketError::Length { at: 0 }));
        assert_eq!(all(b"0000<htm"), Err(PacketError::Length { at: 4 }));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(lines in prop::collection::vec("[^\n]{0,300}", 0..20)) {
            let mut bytes = Vec::new();
            for line in &lines {
                write_line(&mut bytes, line);
            }
            write_flush(&mut bytes);
            let mut read = Vec::new();
            for packet in Packets::new(&bytes) {
                if let Packet::Data(payload) = packet.unwrap() {
                    read.push(String::from_utf8(payload.to_vec()).unwrap().trim_end_matches('\n').to_owned());
                }
            }
            prop_assert_eq!(read, lines);
        }

        #[test]
        fn any_bytes_end_in_bounded_steps(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(Packets::new(&bytes).count() <= bytes.len());
        }

        #[test]
        fn a_cut_off_message_is_never_taken_for_a_whole_one(
            lines in prop::collection::vec("[a-z]{1,40}", 1..5), cut in any::<prop::sample::Index>()
        ) {
            let mut bytes = Vec::new();
            for line in &lines {
                write_line(&mut bytes, line);
            }
            write_flush(&mut bytes);
            bytes.truncate(cut.index(bytes.len()));
            let last = Packets::new(&bytes).last();
            prop_assert_ne!(last, Some(Ok(Packet::Flush)));
        }
    }
}
