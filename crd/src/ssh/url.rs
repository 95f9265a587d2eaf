//! `ssh://[user@]host[:port]/path` and `user@host:path`.

/// Where a repository is that is reached by ssh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshUrl {
    /// `None`: whoever runs ssh, which no forge wants.
    pub user: Option<String>,
    /// Name or address, an IPv6 address without brackets.
    pub host: String,
    /// 22 unless said otherwise.
    pub port: u16,
}

/// Why an ssh URL cannot be used. The schema refuses most of it; objects may be older than a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// A password has no place in it.
    #[error("carries a password, which belongs in source.git.secretRef")]
    Password,
    /// No host, or one that ssh would take for an option.
    #[error("has no usable host")]
    Host,
    /// A user that ssh would take for something else.
    #[error("has no usable user")]
    User,
    /// Not a number from 1 to 65535.
    #[error("has no usable port")]
    Port,
    /// Nothing after the host, or something that looks like an option.
    #[error("has no usable path")]
    Path,
}

impl SshUrl {
    /// Whether `url` is one that ssh is used for.
    pub fn is(url: &str) -> bool {
        url.starts_with("ssh://") || (!url.contains("://") && url.contains('@'))
    }

    /// Reads either form.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let (authority, path, port) = if let Some(rest) = url.strip_prefix("ssh://") {
            let (authority, path) = rest.split_once('/').ok_or(UrlError::Path)?;
            let (authority, port) = split_port(authority)?;
            (authority, path, port)
        } else {
            let (authority, path) = url.split_once(':').ok_or(UrlError::Path)?;
            (authority, path, 22)
        };
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        if let Some(user) = user {
            if user.contains(':') {
                return Err(UrlError::Password);
            }
            if !is_name(user, |c| c == '_', "._-") {
                return Err(UrlError::User);
            }
        }
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let usable = match bare {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_name(host, |_| false, ".-"),
        };
        if !usable {
            return Err(UrlError::Host);
        }
        if path.is_empty() || path.starts_with('-') {
            return Err(UrlError::Path);
        }
        Ok(Self {
            user: user.map(str::to_owned),
            host: bare.unwrap_or(host).to_owned(),
            port,
        })
    }

    /// `host:port`: whom connections are counted by.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The host as `known_hosts` has it: with brackets and port unless that is 22.
    pub fn known_as(&self) -> String {
        match self.port {
            22 => self.host.clone(),
            port => format!("[{}]:{port}", self.host),
        }
    }
}

/// The authority of an `ssh://` URL without its port, and the port.
fn split_port(authority: &str) -> Result<(&str, u16), UrlError> {
    // Behind the user, whose `:` is a password's, and behind an address in brackets.
    let host = authority.rfind('@').map_or(0, |at| at + 1);
    let start = authority.rfind(']').map_or(host, |end| end.max(host));
    let Some(colon) = authority.get(start..).and_then(|rest| rest.find(':')) else {
        return Ok((authority, 22));
    };
    let (name, port) = authority.split_at(start + colon);
    let port = port.trim_start_matches(':').parse().ok();
    let port = port.filter(|port| *port != 0).ok_or(UrlError::Port)?;
    Ok((name, port))
}

fn is_name(text: &str, first: impl Fn(char) -> bool, further: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || first(c))
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || first(c) || further.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        for (url, user, host, port) in [
            (
                "ssh://git@git.example/team/app.git",
                Some("git"),
                "git.example",
                22,
            ),
            ("ssh://git.example:2222/~/app", None, "git.example", 2222),
            (
                "ssh://git@[2001:db8::1]:22022/app",
                Some("git"),
                "2001:db8::1",
                22022,
            ),
            ("ssh://git@[::1]/app", Some("git"), "::1", 22),
            (
                "git@git.example:team/app.git",
                Some("git"),
                "git.example",
                22,
            ),
            (
                "org-1_x.y@git.example:app",
                Some("org-1_x.y"),
                "git.example",
                22,
            ),
        ] {
            let expected = SshUrl {
                user: user.map(str::to_owned),
                host: host.to_owned(),
                port,
            };
            assert!(SshUrl::is(url));
            assert_eq!(SshUrl::parse(url), Ok(expected), "{url}");
        }
        assert!(!SshUrl::is("https://git.example/a@b"));
    }

    #[test]
    fn what_ssh_would_misunderstand_is_refused() {
        for (url, error) in [
            ("ssh://git:pw@git.example/app", UrlError::Password),
            ("ssh://-oProxyCommand=x/app", UrlError::Host),
            ("ssh://git@-oX=x/app", UrlError::Host),
            ("ssh:///app", UrlError::Host),
            ("ssh://-x@git.example/app", UrlError::User),
            ("-x@git.example:app", UrlError::User),
            ("git@-x:app", UrlError::Host),
            ("git@git.example:-x", UrlError::Path),
            ("git@git.example:", UrlError::Path),
            ("ssh://git@git.example", UrlError::Path),
            ("ssh://git@git.example:0/app", UrlError::Port),
            ("ssh://git@git.example:x/app", UrlError::Port),
            ("ssh://git@[x]/app", UrlError::Host),
        ] {
            assert_eq!(SshUrl::parse(url), Err(error), "{url}");
        }
    }

    #[test]
    fn hosts_are_told_apart_by_port() {
        let url = |text| SshUrl::parse(text).unwrap();
        assert_eq!(url("git@h.example:a").endpoint(), "h.example:22");
        assert_eq!(url("git@h.example:a").known_as(), "h.example");
        assert_eq!(
            url("ssh://git@h.example:2222/a").known_as(),
            "[h.example]:2222"
        );
    }
}
