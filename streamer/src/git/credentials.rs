//! Credentials for one git server, from the files of a mounted Secret. They go to git as
//! configuration in its environment, bound to the server's origin: never as an argument, never to
//! another host.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use firn_crd::exit::Reason;
use firn_crd::ssh::{self, Keys, SshUrl};

use crate::failure::{Failure, Result};

/// Who we are for the git server. `Debug` shows no value.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody.
    None,
    /// HTTP basic authentication.
    Basic {
        /// May be anything for most forges if the password is a token.
        username: String,
        /// A password or a token.
        password: String,
    },
    /// A bearer token.
    Bearer(String),
    /// A private key for ssh, and the host keys that are believed.
    Ssh(Keys),
}

impl Credentials {
    /// Reads what `url` needs: `identity` and `known_hosts` for ssh, else `username` and `password`,
    /// or `bearerToken`. A missing directory means none, which is a failure for ssh.
    pub fn read(directory: &Path, url: &str) -> Result<Self> {
        if SshUrl::is(url) {
            return ssh_keys(directory).map(Self::Ssh);
        }
        let read = |key: &str| read_key(directory, key);
        let (username, password) = (read("username")?, read("password")?);
        match (read("bearerToken")?, username, password) {
            (Some(token), _, _) => Ok(Self::Bearer(token)),
            (None, username, Some(password)) => Ok(Self::Basic {
                username: username.unwrap_or_else(|| "git".into()),
                password,
            }),
            (None, None, None) => Ok(Self::None),
            (None, Some(_), None) => Err(Failure::new(
                Reason::SourceAuthFailed,
                "the source's Secret has `username` but no `password`: add it, or use `bearerToken`",
            )),
        }
    }

    /// Key and value of git's configuration that send the credentials to `url`'s origin.
    pub fn git_config(&self, url: &str) -> Option<(String, String)> {
        let header = match self {
            Self::None | Self::Ssh(_) => return None,
            Self::Basic { username, password } => {
                let pair = BASE64.encode(format!("{username}:{password}"));
                format!("Authorization: Basic {pair}")
            }
            Self::Bearer(token) => format!("Authorization: Bearer {token}"),
        };
        Some((format!("http.{}/.extraHeader", origin(url)?), header))
    }

    /// A line for curl's netrc: Nix fetches tarballs of the same server by it.
    pub fn netrc(&self, url: &str) -> Option<String> {
        let host = host(url)?;
        match self {
            Self::Basic { username, password } => Some(format!(
                "machine {host} login {username} password {password}\n"
            )),
            Self::None | Self::Bearer(_) | Self::Ssh(_) => None,
        }
    }

    /// Nix's `access-tokens` setting: `github:` and `gitlab:` inputs of the same server use it.
    pub fn access_token(&self, url: &str) -> Option<String> {
        let host = host(url)?;
        match self {
            Self::None | Self::Ssh(_) => None,
            Self::Basic {
                password: token, ..
            }
            | Self::Bearer(token) => {
                // What has a blank in it is a password and no token.
                (!token.contains(char::is_whitespace)).then(|| format!("{host}={token}"))
            }
        }
    }

    /// `text` without any of the secret values.
    pub fn redact(&self, text: &str) -> String {
        let secret = match self {
            Self::None => return text.to_owned(),
            Self::Basic { password, .. } => password,
            Self::Bearer(token) => token,
            Self::Ssh(keys) => return keys.redact(text),
        };
        let mut clean = text.replace(secret.as_str(), "***");
        if let Self::Basic { username, password } = self {
            clean = clean.replace(&BASE64.encode(format!("{username}:{password}")), "***");
        }
        clean
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "Credentials::None",
            Self::Basic { .. } => "Credentials::Basic(…)",
            Self::Bearer(_) => "Credentials::Bearer(…)",
            Self::Ssh(_) => "Credentials::Ssh(…)",
        })
    }
}

fn ssh_keys(directory: &Path) -> Result<Keys> {
    let read = |key: &str| match fs::read(directory.join(key)) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(key, &error)),
    };
    let (identity, known_hosts) = (read(ssh::IDENTITY)?, read(ssh::KNOWN_HOSTS)?);
    let field = |key: &str| {
        let value = if key == ssh::IDENTITY {
            &identity
        } else {
            &known_hosts
        };
        value.as_deref()
    };
    Keys::read(field)
        .map_err(|error| Failure::new(error.reason(), format!("the source's Secret {error}")))
}

fn unreadable(key: &str, error: &io::Error) -> Failure {
    Failure::new(
        Reason::SourceAuthFailed,
        format!("key {key:?} of the source's Secret cannot be read: {error}"),
    )
}

fn read_key(directory: &Path, key: &str) -> Result<Option<String>> {
    let file = directory.join(key);
    let value = match fs::read_to_string(&file) {
        Ok(value) => value,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(unreadable(key, &error));
        }
    };
    // Editors and `echo` add a line end that nobody means.
    let value = value.trim_end_matches(['\n', '\r']);
    if value.is_empty() {
        return Ok(None);
    }
    if value.contains(char::is_control) {
        return Err(Failure::new(
            Reason::SourceAuthFailed,
            format!(
                "key {key:?} of the source's Secret holds a line break or control character: remove it"
            ),
        ));
    }
    Ok(Some(value.to_owned()))
}

/// `https://host:port` of a URL, without user information.
fn origin(url: &str) -> Option<String> {
    let (scheme, _) = url.split_once("://")?;
    Some(format!("{scheme}://{}", authority(url)?))
}

fn authority(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(
        authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host),
    )
}

fn host(url: &str) -> Option<&str> {
    let authority = authority(url)?;
    let host = authority
        .split_once(':')
        .map_or(authority, |(host, _)| host);
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_secret<T>(files: &[(&str, &str)], check: impl FnOnce(Result<Credentials>) -> T) -> T {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in files {
            fs::write(dir.path().join(name), value).unwrap();
        }
        check(Credentials::read(dir.path(), "https://git.example/app"))
    }

    fn secret(files: &[(&str, &str)]) -> Credentials {
        with_secret(files, |read| read.unwrap())
    }

    #[test]
    fn each_kind_of_secret_is_read() {
        assert_eq!(secret(&[]), Credentials::None);
        assert_eq!(
            secret(&[("bearerToken", "t\n")]),
            Credentials::Bearer("t".into())
        );
        let basic = Credentials::Basic {
            username: "ada".into(),
            password: "pw".into(),
        };
        assert_eq!(secret(&[("username", "ada"), ("password", "pw\n")]), basic);
    }

    #[test]
    fn half_a_secret_is_refused() {
        for files in [&[("username", "ada")][..], &[("bearerToken", "a\nb")]] {
            assert_eq!(
                with_secret(files, |read| read.unwrap_err().reason()),
                Reason::SourceAuthFailed
            );
        }
    }

    #[test]
    fn a_source_by_ssh_needs_both_keys() {
        let dir = tempfile::tempdir().unwrap();
        let reason = || {
            Credentials::read(dir.path(), "git@git.example:app").map_err(|failure| failure.reason())
        };
        assert_eq!(reason(), Err(Reason::SecretMissing));
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----";
        fs::write(dir.path().join("identity"), key).unwrap();
        assert_eq!(reason(), Err(Reason::HostKeyUnknown));
        fs::write(dir.path().join("known_hosts"), "git.example ssh-ed25519 A").unwrap();
        assert!(matches!(reason(), Ok(Credentials::Ssh(_))));
    }

    #[test]
    fn credentials_are_bound_to_the_origin() {
        let config =
            Credentials::Bearer("t".into()).git_config("https://x@git.example:8443/a/b.git");
        assert_eq!(
            config,
            Some((
                "http.https://git.example:8443/.extraHeader".into(),
                "Authorization: Bearer t".into()
            ))
        );
    }

    #[test]
    fn no_value_is_shown() {
        let basic = Credentials::Basic {
            username: "ada".into(),
            password: "hunter2".into(),
        };
        assert!(!format!("{basic:?}").contains("hunter2"));
        assert_eq!(
            basic.redact("for ada:hunter2: YWRhOmh1bnRlcjI="),
            "for ada:***: ***"
        );
    }
}
