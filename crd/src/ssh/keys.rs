//! `identity` and `known_hosts` of a Secret, by Flux's names.

use std::fmt;

use super::{IDENTITY, KNOWN_HOSTS};
use crate::exit::Reason;

/// What an unencrypted key in OpenSSH's format begins with, in base64: its magic word and the
/// cipher `none`. Source: PROTOCOL.key of OpenSSH.
const OPENSSH_MAGIC: &str = "b3BlbnNzaC1rZXktdjEA";
const OPENSSH_UNENCRYPTED: &str = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU";

/// A private key and the host keys it may be used with. Prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// The private key as the ssh program wants its file.
    pub identity: String,
    /// Lines of host keys.
    pub known_hosts: String,
}

/// Why a Secret cannot be used for ssh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// No private key.
    #[error(
        "has no key \"identity\": an ssh source needs identity, a private key, and known_hosts"
    )]
    NoIdentity,
    /// Something else than a private key.
    #[error("has something in \"identity\" that is no private key in PEM or OpenSSH format")]
    NotAKey,
    /// Nobody is there to be asked for a passphrase.
    #[error("has an \"identity\" with a passphrase: give a key without one")]
    Passphrase,
    /// Nobody vouches for the server.
    #[error(
        "has no host keys in \"known_hosts\", without which a server is not believed: put there \
         what `ssh-keyscan` prints for it, after comparing it with what the server's owner says"
    )]
    NoKnownHosts,
    /// Text that is none.
    #[error("has a key \"known_hosts\" that is not text")]
    NotText,
}

impl KeysError {
    /// The reason in conditions and events.
    pub const fn reason(self) -> Reason {
        match self {
            Self::NoKnownHosts | Self::NotText => Reason::HostKeyUnknown,
            Self::NoIdentity => Reason::SecretMissing,
            Self::NotAKey | Self::Passphrase => Reason::SourceAuthFailed,
        }
    }
}

impl Keys {
    /// Reads a Secret, whose value for a key `field` gives.
    pub fn read<'a>(field: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, KeysError> {
        let identity = field(IDENTITY).ok_or(KeysError::NoIdentity)?;
        let identity = std::str::from_utf8(identity).map_err(|_| KeysError::NotAKey)?;
        let identity = lines(identity);
        if !identity.starts_with("-----BEGIN ") || !identity.contains("PRIVATE KEY-----") {
            return Err(KeysError::NotAKey);
        }
        if is_encrypted(&identity) {
            return Err(KeysError::Passphrase);
        }
        let known_hosts = field(KNOWN_HOSTS).ok_or(KeysError::NoKnownHosts)?;
        let known_hosts = std::str::from_utf8(known_hosts).map_err(|_| KeysError::NotText)?;
        let known_hosts = lines(known_hosts);
        let is_entry = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        if !known_hosts.lines().any(is_entry) {
            return Err(KeysError::NoKnownHosts);
        }
        Ok(Self {
            identity,
            known_hosts,
        })
    }

    /// `text` without any line of the private key.
    pub fn redact(&self, text: &str) -> String {
        let secret = self.identity.lines().filter(|line| {
            // Shorter ones occur by chance; the frame is no secret.
            line.len() >= 16 && !line.starts_with("-----")
        });
        secret.fold(text.to_owned(), |text, line| text.replace(line, "***"))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// With the line ends that ssh wants: it refuses a key without the last one, or with others.
fn lines(text: &str) -> String {
    let mut text = text.trim().replace("\r\n", "\n");
    text.push('\n');
    text
}

fn is_encrypted(pem: &str) -> bool {
    let body = pem.lines().nth(1).unwrap_or_default();
    pem.starts_with("-----BEGIN ENCRYPTED ")
        || pem.contains("4,ENCRYPTED")
        || (body.starts_with(OPENSSH_MAGIC) && !body.starts_with(OPENSSH_UNENCRYPTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of what `ssh-keygen -t ed25519` writes, without and with a passphrase.
    const PLAIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\r\n\
        b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\r\n\
        -----END OPENSSH PRIVATE KEY-----";
    const LOCKED: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n\
        b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABAobcuFKM\n\
        -----END OPENSSH PRIVATE KEY-----\n";
    const HOST: &str = "git.example ssh-ed25519 AAAA";

    fn read(identity: Option<&str>, known_hosts: Option<&str>) -> Result<Keys, KeysError> {
        let field = |key: &str| match key {
            IDENTITY => identity.map(str::as_bytes),
            KNOWN_HOSTS => known_hosts.map(str::as_bytes),
            _ => None,
        };
        Keys::read(field)
    }

    #[test]
    fn a_key_gets_the_line_ends_that_ssh_wants() {
        let keys = read(Some(PLAIN), Some(HOST)).unwrap();
        assert!(keys.identity.ends_with("KEY-----\n") && !keys.identity.contains('\r'));
        assert_eq!(keys.known_hosts, format!("{HOST}\n"));
    }

    #[test]
    fn without_a_host_key_nothing_is_believed() {
        for known in [None, Some(""), Some("# git.example ssh-ed25519 AAAA\n")] {
            let error = read(Some(PLAIN), known).unwrap_err();
            assert_eq!(error, KeysError::NoKnownHosts);
            assert_eq!(error.reason(), Reason::HostKeyUnknown);
        }
    }

    #[test]
    fn an_identity_that_nobody_could_use_is_named() {
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n";
        let pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n";
        for (identity, error) in [
            (None, KeysError::NoIdentity),
            (Some("ssh-ed25519 AAAA me"), KeysError::NotAKey),
            (Some(LOCKED), KeysError::Passphrase),
            (Some(old), KeysError::Passphrase),
            (Some(pkcs8), KeysError::Passphrase),
        ] {
            assert_eq!(read(identity, Some(HOST)), Err(error));
        }
    }

    #[test]
    fn nothing_of_the_key_is_shown() {
        let keys = read(Some(PLAIN), Some(HOST)).unwrap();
        assert_eq!(format!("{keys:?}"), "Keys(…)");
        let line = keys.identity.lines().nth(1).unwrap();
        assert_eq!(keys.redact(&format!("key {line}!")), "key ***!");
    }
}
