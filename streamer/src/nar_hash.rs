//! Hashes of NARs as Nix writes them in one form or another: SRI, base 32, base 16, or an object.
//! Always SHA-256. Pure.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// SHA-256 of a NAR. Shown and stored as `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NarHash(pub [u8; 32]);

/// Text that is no SHA-256 hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a SHA-256 hash in any form that Nix writes")]
pub struct InvalidNarHash(String);

impl FromStr for NarHash {
    type Err = InvalidNarHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            if let Some(base64) = text.strip_prefix("sha256-") {
                return decode_base64(base64);
            }
            let digits = text.strip_prefix("sha256:")?;
            match digits.len() {
                64 => decode_base16(digits),
                52 => decode_base32(digits),
                44 => decode_base64(digits),
                _ => None,
            }
        };
        read()
            .map(Self)
            .ok_or_else(|| InvalidNarHash(text.chars().take(100).collect()))
    }
}

fn decode_base16(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        // `from_str_radix` would take a sign.
        if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

/// Nix's base 32: its own alphabet, the last character first.
fn decode_base32(digits: &str) -> Option<[u8; 32]> {
    const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let mut bytes = [0_u8; 32];
    for (place, character) in digits.bytes().rev().enumerate() {
        let digit = ALPHABET.iter().position(|c| *c == character)?;
        let (index, shift) = (place * 5 / 8, place * 5 % 8);
        let wide = u16::try_from(digit).ok()? << shift;
        let [low, high] = wide.to_le_bytes();
        *bytes.get_mut(index)? |= low;
        if high != 0 {
            *bytes.get_mut(index + 1)? |= high;
        }
    }
    Some(bytes)
}

fn decode_base64(text: &str) -> Option<[u8; 32]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

impl fmt::Display for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for NarHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NarHash {
    /// Text in any of Nix's forms, or its newer object `{algorithm, format, hash}`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Object { algorithm: String, hash: String },
        }
        let text = match Form::deserialize(deserializer)? {
            Form::Text(text) => text,
            Form::Object { algorithm, hash } if hash.starts_with(&algorithm) => hash,
            Form::Object { algorithm, hash } => format!("{algorithm}:{hash}"),
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SHA-256 of nothing, in the forms of `nix hash convert`.
    const HEX: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn every_form_gives_the_same_hash() {
        for form in [
            HEX,
            "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
        ] {
            assert_eq!(form.parse::<NarHash>().unwrap().to_string(), HEX, "{form}");
        }
        for form in [
            r#"{"algorithm":"sha256","format":"base64","hash":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}"#,
            r#"{"algorithm":"sha256","format":"sri","hash":"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}"#,
        ] {
            let hash: NarHash = serde_json::from_str(form).unwrap();
            assert_eq!(hash.to_string(), HEX, "{form}");
        }
    }

    #[test]
    fn nothing_else_passes() {
        for bad in ["", "sha256:", "sha256-", "md5:00", "sha256:+1", &HEX[..70]] {
            assert!(bad.parse::<NarHash>().is_err(), "{bad:?}");
        }
    }
}
