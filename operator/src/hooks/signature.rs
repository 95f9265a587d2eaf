//! How forges prove that a push is theirs. Pure: headers and body in, an answer out.
//!
//! | forge | header | value |
//! |---|---|---|
//! | GitHub | `X-Hub-Signature-256` | `sha256=` and HMAC-SHA256 of the body, in hex |
//! | Gitea, Forgejo, Gogs | `X-Gitea-Signature`, `X-Forgejo-Signature`, `X-Gogs-Signature` | the same without `sha256=` |
//! | GitLab | `X-Gitlab-Token` | the secret itself |
//! | anybody | `X-Signature` | as GitHub |

use http::HeaderMap;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Headers with a signature; the first that is there is looked at.
const SIGNATURES: [&str; 5] = [
    "x-hub-signature-256",
    "x-forgejo-signature",
    "x-gitea-signature",
    "x-gogs-signature",
    "x-signature",
];
/// The header with the secret itself.
const TOKEN: &str = "x-gitlab-token";
/// Bytes of a block of SHA-256. Source: FIPS 180-4; RFC 2104 pads the key to it.
const BLOCK: usize = 64;

/// What a request says to prove itself. Prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// HMAC-SHA256 of the body.
    Signature([u8; 32]),
    /// The secret.
    Token(Vec<u8>),
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Signature(_) => "Signature(…)",
            Self::Token(_) => "Token(…)",
        })
    }
}

impl Proof {
    /// `None`: the request proves nothing, or has a signature that is none.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        if let Some(value) = SIGNATURES.iter().find_map(|name| headers.get(*name)) {
            let text = value.to_str().ok()?;
            return hex(text.strip_prefix("sha256=").unwrap_or(text)).map(Self::Signature);
        }
        let token = headers.get(TOKEN)?;
        Some(Self::Token(token.as_bytes().to_vec()))
    }

    /// Whether it is proof for `secret` and the body that `signature` has seen. Takes as long
    /// whatever differs.
    pub(super) fn holds(&self, secret: &[u8], signature: Hmac) -> bool {
        match self {
            Self::Signature(given) => given.ct_eq(&signature.end()).into(),
            // Of equal length, so that the length of the secret does not show either.
            Self::Token(given) => Sha256::digest(given).ct_eq(&Sha256::digest(secret)).into(),
        }
    }
}

/// HMAC-SHA256 of a body that comes in pieces. Source: RFC 2104.
pub(super) struct Hmac {
    inner: Sha256,
    outer: Sha256,
}

impl Hmac {
    /// With this key.
    pub(super) fn new(key: &[u8]) -> Self {
        let mut block = [0; BLOCK];
        let digest = Sha256::digest(key);
        let key = if key.len() > BLOCK { &digest } else { key };
        block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
        let padded = |pad: u8| Sha256::new().chain_update(block.map(|byte| byte ^ pad));
        Self {
            inner: padded(0x36),
            outer: padded(0x5c),
        }
    }

    /// The next piece of the body.
    pub(super) fn update(&mut self, piece: &[u8]) {
        self.inner.update(piece);
    }

    fn end(self) -> [u8; 32] {
        self.outer
            .chain_update(self.inner.finalize())
            .finalize()
            .into()
    }
}

/// 64 hex digits.
fn hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(key: &[u8], body: &[u8]) -> String {
        let mut hmac = Hmac::new(key);
        body.chunks(3).for_each(|piece| hmac.update(piece));
        hmac.end()
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    fn holds(name: &'static str, value: &str, secret: &str, body: &str) -> bool {
        let headers =
            HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())]);
        let mut hmac = Hmac::new(secret.as_bytes());
        hmac.update(body.as_bytes());
        Proof::of(&headers).is_some_and(|proof| proof.holds(secret.as_bytes(), hmac))
    }

    /// Test cases 1, 2 and 6 of RFC 4231.
    #[test]
    fn the_hmac_is_that_of_the_standard() {
        for (key, body, expected) in [
            (
                &[0x0b; 20][..],
                &b"Hi There"[..],
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            assert_eq!(signature(key, body), expected);
        }
    }

    /// The example of GitHub's documentation, "Validating webhook deliveries".
    #[test]
    fn githubs_own_example_holds() {
        let secret = "It's a Secret to Everybody";
        let value = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(holds("x-hub-signature-256", value, secret, "Hello, World!"));
        assert!(!holds(
            "x-hub-signature-256",
            value,
            secret,
            "Hello, World?"
        ));
        assert!(!holds(
            "x-hub-signature-256",
            value,
            "another",
            "Hello, World!"
        ));
        let bare = value.strip_prefix("sha256=").unwrap();
        for name in [
            "x-gitea-signature",
            "x-forgejo-signature",
            "x-gogs-signature",
            "x-signature",
        ] {
            assert!(holds(name, bare, secret, "Hello, World!"), "{name}");
        }
    }

    #[test]
    fn gitlab_shows_the_secret_itself() {
        assert!(holds("x-gitlab-token", "s3cret", "s3cret", "any"));
        for wrong in ["s3cre", "s3cret1", "S3cret", "x"] {
            assert!(!holds("x-gitlab-token", wrong, "s3cret", "any"), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_signature_proves_nothing() {
        for value in [
            "",
            "sha256=",
            "sha1=00",
            &"0".repeat(63),
            &"g".repeat(64),
            &"é".repeat(32),
        ] {
            assert!(!holds("x-hub-signature-256", value, "s", "b"), "{value}");
        }
        assert_eq!(Proof::of(&HeaderMap::new()), None);
        let token = Proof::Token(b"canary".to_vec());
        assert!(!format!("{token:?}").contains("canary"));
    }
}
