//! Where a submodule is: its URL by git's rules, and the server that it names. Pure.

use std::fmt;
use std::net::Ipv6Addr;

use firn_crd::ssh::{SshUrl, UrlError as SshUrlError};

/// Longest URL, as in a source's `url`.
const URL_MAX: usize = 2048;
/// Longest part of an unusable URL that a message shows.
const SHOWN_MAX: usize = 200;

/// How a server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// The usual.
    Https,
    /// In the clear: only where the source itself comes so.
    Http,
    /// By keys.
    Ssh,
    /// A folder: only where the source itself is one, which the API does not allow.
    File,
}

impl Scheme {
    /// As `GIT_ALLOW_PROTOCOL` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::File => "file",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
            Self::Ssh => 22,
            Self::File => 0,
        }
    }
}

/// A server: what credentials are bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// How it is reached.
    pub scheme: Scheme,
    /// In lower case.
    host: String,
    port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port } = self;
        write!(f, "{}://{host}", scheme.name())?;
        if *port == scheme.port() {
            return Ok(());
        }
        write!(f, ":{port}")
    }
}

/// A repository that git can be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Absolute, and without a user unless it is by ssh: credentials come from the Secret alone.
    pub url: String,
    /// Its server.
    pub endpoint: Endpoint,
}

/// Why a URL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// More `../` than there are folders.
    #[error("leads above the root of {0}")]
    Above(String),
    /// Neither https nor ssh.
    #[error("is by {0:?}: only https:// and ssh are allowed")]
    Transport(String),
    /// A path, or nothing at all.
    #[error("is no URL: write https://…, ssh://…, user@host:path, or a relative one (../…)")]
    NoUrl,
    /// A secret that everybody may read who may read the repository.
    #[error("carries a password, which belongs in source.git.secretRef")]
    Password,
    /// What servers are not called.
    #[error("has no usable host, port or path")]
    Authority,
    /// What git, ssh or a log might take for something else.
    #[error("has characters that no URL needs, or more than {URL_MAX} of them")]
    Characters,
}

impl Remote {
    /// What `url` in the `.gitmodules` of the repository at `base` means.
    pub fn resolve(base: &str, url: &str) -> Result<Self, RemoteError> {
        Self::parse(&absolute(base, url)?)
    }

    /// Reads an absolute URL.
    pub fn parse(url: &str) -> Result<Self, RemoteError> {
        // The rule of a source's own `url`.
        let fine = |byte: u8| byte.is_ascii_graphic() && !b"\"#<>?\\^`{|}".contains(&byte);
        if url.len() > URL_MAX || !url.bytes().all(fine) {
            return Err(RemoteError::Characters);
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            // `ext::…` runs a program.
            let name = |helper: &str| helper.bytes().all(|b| b.is_ascii_alphanumeric());
            if let Some((helper, _)) = url.split_once("::").filter(|(helper, _)| name(helper)) {
                return Err(RemoteError::Transport(helper.into()));
            }
            if !SshUrl::is(url) {
                return Err(RemoteError::NoUrl);
            }
            return by_ssh(url);
        };
        let scheme = match scheme {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            "ssh" => return by_ssh(url),
            "file" => Scheme::File,
            other => return Err(RemoteError::Transport(other.into())),
        };
        let start = rest.find('/').ok_or(RemoteError::Authority)?;
        let (authority, path) = rest.split_at(start);
        let host = match authority.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => return Err(RemoteError::Password),
            Some((_, host)) => host,
            None => authority,
        };
        Ok(Self {
            url: format!("{}://{host}{path}", scheme.name()),
            endpoint: endpoint(scheme, host)?,
        })
    }
}

/// A URL for messages, usable or not: without credentials, query and fragment, and not endless.
pub fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let is_scheme = |text: &str| {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        text.bytes().all(fine)
    };
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (format!("{scheme}://"), rest),
        _ => (String::new(), url),
    };
    // A password may hold a slash that nobody escaped: the last `@` counts wherever it is. A user
    // alone may be a token, but not for ssh.
    let by_ssh = scheme.is_empty() || scheme.contains("ssh");
    let rest = match rest.rsplit_once('@') {
        Some((user, host)) if user.contains(':') || !by_ssh && !user.contains('/') => host,
        _ => rest,
    };
    scheme.chars().chain(rest.chars()).take(SHOWN_MAX).collect()
}

fn by_ssh(url: &str) -> Result<Remote, RemoteError> {
    let parsed = SshUrl::parse(url).map_err(|error| match error {
        SshUrlError::Password => RemoteError::Password,
        SshUrlError::Host | SshUrlError::User | SshUrlError::Port | SshUrlError::Path => {
            RemoteError::Authority
        }
    })?;
    Ok(Remote {
        url: url.to_owned(),
        endpoint: Endpoint {
            scheme: Scheme::Ssh,
            host: parsed.host.to_ascii_lowercase(),
            port: parsed.port,
        },
    })
}

fn endpoint(scheme: Scheme, authority: &str) -> Result<Endpoint, RemoteError> {
    if scheme == Scheme::File {
        // Another machine's folders are nobody's.
        return match authority {
            "" => Ok(Endpoint {
                scheme,
                host: String::new(),
                port: 0,
            }),
            _ => Err(RemoteError::Authority),
        };
    }
    let end = authority.rfind(']').unwrap_or_default();
    let (host, port) = match authority.rfind(':').filter(|colon| *colon >= end) {
        Some(colon) => {
            let (host, port) = authority.split_at(colon);
            let port = port.trim_start_matches(':').parse().ok();
            (host, port.filter(|port| *port != 0))
        }
        None => (authority, Some(scheme.port())),
    };
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let usable = match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            host.starts_with(|c: char| c.is_ascii_alphanumeric())
                && host
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
        }
    };
    match port {
        Some(port) if usable => Ok(Endpoint {
            scheme,
            host: host.to_ascii_lowercase(),
            port,
        }),
        _ => Err(RemoteError::Authority),
    }
}

/// git's rule (`relative_url` of its `remote.c`): each `../` takes a folder away, and behind the
/// last one of `user@host:path` the path begins anew. git goes on where no folder is left, and so
/// to another host; here that is an error.
fn absolute(base: &str, url: &str) -> Result<String, RemoteError> {
    if !url.starts_with("./") && !url.starts_with("../") {
        return Ok(url.to_owned());
    }
    let mut left = base.strip_suffix('/').unwrap_or(base);
    let mut separator = '/';
    let mut rest = url;
    loop {
        if let Some(further) = rest.strip_prefix("../") {
            rest = further;
            let above = || RemoteError::Above(shown(base));
            if separator == ':' {
                return Err(above());
            }
            let slash = left.rfind('/').filter(|at| *at >= root(base));
            let at = if let Some(at) = slash {
                at
            } else {
                separator = ':';
                let colon = left.rfind(':').filter(|_| !base.contains("://"));
                colon.ok_or_else(above)?
            };
            left = left.get(..at).unwrap_or_default();
        } else if let Some(further) = rest.strip_prefix("./") {
            rest = further;
        } else {
            break;
        }
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    Ok(format!("{left}{separator}{rest}"))
}

/// Where the path of a URL begins.
fn root(url: &str) -> usize {
    let Some(authority) = url.find("://").map(|at| at + 3) else {
        return url.find(':').map_or(0, |colon| colon + 1);
    };
    let slash = url.get(authority..).and_then(|rest| rest.find('/'));
    slash.map_or(url.len(), |slash| authority + slash)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `git submodule` resolves them, but for those that leave the host.
    #[test]
    fn relative_urls_are_gits() {
        for (base, url, wanted) in [
            (
                "https://h/org/app.git",
                "../lib.git",
                "https://h/org/lib.git",
            ),
            (
                "https://h/org/app.git/",
                "../lib.git",
                "https://h/org/lib.git",
            ),
            ("https://h/org/app", "../../o2/lib/", "https://h/o2/lib"),
            ("https://h/org/app", "./lib", "https://h/org/app/lib"),
            ("https://h/org/app", ".././../lib", "https://h/lib"),
            ("https://h:8443/app", "../lib", "https://h:8443/lib"),
            ("ssh://git@h:22/org/app", "../lib", "ssh://git@h:22/org/lib"),
            ("git@h:org/app.git", "../lib.git", "git@h:org/lib.git"),
            ("git@h:org/app.git", "../../lib.git", "git@h:lib.git"),
            ("git@h:app.git", "../lib.git", "git@h:lib.git"),
            ("https://h/app", "https://other/lib", "https://other/lib"),
            ("https://h/app", "git@other:lib", "git@other:lib"),
        ] {
            let found = Remote::resolve(base, url).map(|remote| remote.url);
            assert_eq!(found, Ok(wanted.to_owned()), "{base} {url}");
        }
        for (base, url) in [
            ("https://h/app", "../../lib"),
            ("https://h/app", "../../../evil.example/lib"),
            ("ssh://git@h/app", "../../lib"),
            ("git@h:app", "../../lib"),
            ("git@h:org/app", "../../../lib"),
        ] {
            let found = Remote::resolve(base, url);
            assert!(matches!(found, Err(RemoteError::Above(_))), "{found:?}");
        }
    }

    #[test]
    fn what_is_no_repository_over_https_or_ssh_is_refused() {
        use RemoteError::{Authority, Characters, NoUrl, Password, Transport};
        for (url, error) in [
            ("", NoUrl),
            ("lib", NoUrl),
            ("/srv/lib", NoUrl),
            ("-uhost", NoUrl),
            ("ext::sh@x", Transport("ext".into())),
            ("git://h/lib", Transport("git".into())),
            ("HTTPS://h/lib", Transport("HTTPS".into())),
            ("https://u:secret@h/lib", Password),
            ("ssh://git:secret@h/lib", Password),
            ("https://h", Authority),
            ("https:///lib", Authority),
            ("https://-h/lib", Authority),
            ("https://h:0/lib", Authority),
            ("https://h:x/lib", Authority),
            ("https://[::x]/lib", Authority),
            ("file://h/lib", Authority),
            ("ssh://-oProxyCommand=x/lib", Authority),
            ("https://h/lib?token=x", Characters),
            ("https://h/a b", Characters),
            ("https://h/a\nb", Characters),
        ] {
            assert_eq!(Remote::parse(url), Err(error), "{url}");
        }
        let long = format!("https://h/{}", "x".repeat(URL_MAX));
        assert_eq!(Remote::parse(&long), Err(Characters));
    }

    #[test]
    fn a_server_is_scheme_host_and_port() {
        let endpoint = |url| Remote::parse(url).unwrap().endpoint;
        for (one, other, same) in [
            ("https://h/a", "https://H:443/b", true),
            ("https://me@h/a", "https://h/b", true),
            ("git@h:a", "ssh://other@h:22/b", true),
            ("https://[::1]/a", "https://[::1]:443/b", true),
            ("https://h/a", "https://h:444/b", false),
            ("https://h/a", "http://h:443/b", false),
            ("https://h/a", "https://h.evil.example/b", false),
            ("https://h/a", "git@h:b", false),
        ] {
            assert_eq!(endpoint(one) == endpoint(other), same, "{one} {other}");
        }
        assert_eq!(endpoint("https://H:443/a").to_string(), "https://h");
        assert_eq!(endpoint("ssh://g@h:2222/a").to_string(), "ssh://h:2222");
        let user = Remote::parse("https://me@h:8443/a.git").unwrap();
        assert_eq!(user.url, "https://h:8443/a.git");
    }

    #[test]
    fn no_credentials_are_shown() {
        for (url, wanted) in [
            ("https://ada:hunter2@h/lib", "https://h/lib"),
            ("https://ada:hun/ter2@h/lib", "https://h/lib"),
            ("ada:hunter2@h/lib", "h/lib"),
            ("https://token@h/lib", "https://h/lib"),
            ("https://h/l@b", "https://h/l@b"),
            ("../l@b", "../l@b"),
            ("https://h/lib?token=hunter2", "https://h/lib"),
            ("git@h:org/lib", "git@h:org/lib"),
            ("ada:hunter2@h/lib://x", "h/lib://x"),
        ] {
            assert_eq!(shown(url), wanted);
        }
        for end in ["", "://h"] {
            assert!(shown(&("x".repeat(9999) + end)).len() <= SHOWN_MAX);
        }
    }
}
