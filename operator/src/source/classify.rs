//! From what a server, a connection or the git program says to a [`SourceFailure`]. Pure: every
//! rule is a row of a table in the tests.

use std::time::Duration;

use firn_crd::ssh::{self, SshUrl, Trouble};
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;

use super::{Kind, SourceFailure};

/// What was asked, for messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The URL as it may be shown.
    pub(crate) url: &'a str,
    /// Secret whose credentials were sent; `None`: none were.
    pub(crate) secret: Option<&'a str>,
}

/// What an HTTP status other than success means.
pub(crate) fn status(status: StatusCode, headers: &HeaderMap, asked: Asked<'_>) -> SourceFailure {
    let Asked { url, secret } = asked;
    let code = status.as_u16();
    if status == StatusCode::TOO_MANY_REQUESTS
        || (status == StatusCode::FORBIDDEN && says_limit(headers))
    {
        let pause = retry_after(headers);
        let how_long = pause.map_or_else(String::new, |p| format!(" for {} s", p.as_secs()));
        let remedy = if secret.is_some() {
            "polls pause until then; a longer source.git.interval asks less often"
        } else {
            "polls pause until then; credentials (source.git.secretRef) raise the limit of most \
             forges, a longer source.git.interval asks less often"
        };
        return SourceFailure {
            retry_after: pause,
            ..SourceFailure::new(
                Kind::RateLimited,
                format!("{url:?} asks us to wait{how_long} (HTTP {code}): {remedy}"),
            )
        };
    }
    let (kind, message) = match (code, secret) {
        (401 | 403, None) => (
            Kind::AuthFailed,
            format!(
                "{url:?} asks for credentials (HTTP {code}): if the URL is right the repository \
                 is private; set source.git.secretRef to a Secret with username and password, or \
                 bearerToken"
            ),
        ),
        (401 | 403, Some(secret)) => (
            Kind::AuthFailed,
            format!(
                "{url:?} refuses the credentials of Secret {secret:?} (HTTP {code}): check that \
                 they have not expired and may read this repository"
            ),
        ),
        (404 | 410, None) => (
            Kind::Invalid,
            format!(
                "there is no git repository at {url:?} (HTTP {code}): check source.git.url; a \
                 private repository needs source.git.secretRef"
            ),
        ),
        (404 | 410, Some(secret)) => (
            Kind::AuthFailed,
            format!(
                "{url:?} shows no repository to the credentials of Secret {secret:?} \
                 (HTTP {code}): check source.git.url, and that they may read this repository"
            ),
        ),
        (407, _) => (
            Kind::Unreachable,
            format!(
                "the proxy before {url:?} asks for credentials (HTTP 407): they belong in the \
                 operator's proxy settings"
            ),
        ),
        (408 | 425 | 500..=599, _) => (
            Kind::Unreachable,
            format!("{url:?} cannot answer now (HTTP {code}): it is asked again later"),
        ),
        _ => (
            Kind::Invalid,
            format!("{url:?} answers with HTTP {code}, not as a git server: check source.git.url"),
        ),
    };
    SourceFailure::new(kind, message)
}

/// What a request means that got no answer. `causes`: the error's chain, outermost first.
pub(crate) fn connection(causes: &str, url: &str) -> SourceFailure {
    let lower = causes.to_ascii_lowercase();
    let cause = last_cause(causes);
    if lower.contains("invalid peer certificate") || lower.contains("certificate verif") {
        return SourceFailure::new(
            Kind::CertificateUnknown,
            format!(
                "the TLS certificate of {url:?} is not trusted ({cause}): put the CA that signed \
                 it into a ConfigMap and name it in source.git.caConfigMapRef, or into the \
                 operator's CA bundle"
            ),
        );
    }
    SourceFailure::new(
        Kind::Unreachable,
        format!(
            "{url:?} cannot be reached ({cause}): check the host name, the network policies and \
             the proxy settings; it is asked again later"
        ),
    )
}

/// No answer within the spec's timeout.
pub(crate) fn timeout(url: &str, timeout: Duration) -> SourceFailure {
    SourceFailure::new(
        Kind::Unreachable,
        format!(
            "{url:?} did not answer within {} s (source.git.timeout): it is asked again later",
            timeout.as_secs()
        ),
    )
}

/// What the git program's last words mean when it failed to read `subject`: a commit, or the refs.
pub(crate) fn git_program(stderr: &str, subject: &str, asked: Asked<'_>) -> SourceFailure {
    if let Some(failure) = by_ssh(stderr, asked) {
        return failure;
    }
    let lower = stderr.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let url = asked.url;
    // git's last words are the same whatever ssh said.
    let last_line = if SshUrl::is(url) {
        ssh::essence
    } else {
        last_line
    };
    if says(&[
        "not our ref",
        "unadvertised object",
        "couldn't find remote ref",
        "no such remote ref",
    ]) {
        return SourceFailure::new(
            Kind::RevisionNotFound,
            format!(
                "{url:?} has not got {subject}, or does not give it away by its id: check \
                 source.git.ref"
            ),
        );
    }
    if says(&["certificate"]) {
        return connection(
            &format!("invalid peer certificate: {}", last_line(stderr)),
            url,
        );
    }
    if says(&["error: 429"]) {
        return status(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), asked);
    }
    if says(&[
        "authentication failed",
        "could not read username",
        "could not read password",
        "error: 401",
        "error: 403",
    ]) {
        return status(StatusCode::UNAUTHORIZED, &HeaderMap::new(), asked);
    }
    if says(&[
        "could not resolve",
        "failed to connect",
        "connection",
        "timed out",
        "early eof",
        "rpc failed",
        "error: 5",
        "hung up",
    ]) {
        return connection(last_line(stderr), url);
    }
    SourceFailure::new(
        Kind::Invalid,
        format!(
            "git cannot read {subject} of {url:?}: {}",
            last_line(stderr)
        ),
    )
}

/// What ssh and forges behind it say. `None`: the source is not by ssh, or it is git that speaks.
fn by_ssh(stderr: &str, asked: Asked<'_>) -> Option<SourceFailure> {
    let Asked { url, secret } = asked;
    let trouble = Trouble::of(stderr).filter(|_| SshUrl::is(url))?;
    let kind = match trouble {
        Trouble::HostKey => Kind::HostKeyUnknown,
        Trouble::Identity | Trouble::Repository => Kind::AuthFailed,
        Trouble::NoRepository | Trouble::Algorithms => Kind::Invalid,
        Trouble::Connection => Kind::Unreachable,
    };
    let cause = super::ls_refs::printable(ssh::essence(stderr).as_bytes());
    let with = secret.map_or_else(String::new, |secret| format!(" with Secret {secret:?}"));
    Some(SourceFailure::new(
        kind,
        format!(
            "{url:?} cannot be read{with} ({cause}): {}",
            trouble.remedy()
        ),
    ))
}

/// How long the server wants to be left alone. Absolute times are compared with the answer's own
/// `Date`, so that nobody's clock matters.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let date = text(header::DATE.as_str()).and_then(http_date);
    let until = |then: Timestamp| {
        let seconds = then.as_second().checked_sub(date?.as_second())?;
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    };
    if let Some(wish) = text(header::RETRY_AFTER.as_str()) {
        return match wish.parse() {
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => until(http_date(wish)?),
        };
    }
    if text("x-ratelimit-remaining") == Some("0") {
        return until(Timestamp::from_second(text("x-ratelimit-reset")?.parse().ok()?).ok()?);
    }
    None
}

fn says_limit(headers: &HeaderMap) -> bool {
    headers.contains_key(header::RETRY_AFTER)
        || headers
            .get("x-ratelimit-remaining")
            .is_some_and(|v| v == "0")
}

fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(text)
        .ok()
        .map(|date| date.timestamp())
}

fn last_cause(causes: &str) -> String {
    super::ls_refs::printable(causes.rsplit(": ").next().unwrap_or(causes).as_bytes())
}

/// git's own last word: the last line that is none of a server's.
fn last_line(stderr: &str) -> &str {
    stderr
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("remote:"))
        .map(|line| line.strip_prefix("fatal: ").unwrap_or(line))
        .map_or("it gave no reason", |line| {
            crate::source::failure::cut(line, 300)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(k, v)| (k.parse::<http::HeaderName>().unwrap(), v.parse().unwrap()))
            .collect()
    }

    #[test]
    fn every_status_has_its_kind() {
        let kind = |code, pairs: &[(&'static str, &'static str)], secret| {
            let asked = Asked {
                url: "https://git.example.com/a",
                secret,
            };
            status(StatusCode::from_u16(code).unwrap(), &headers(pairs), asked).kind
        };
        for (code, pairs, secret, expected) in [
            (401, &[][..], None, Kind::AuthFailed),
            (401, &[], Some("deploy"), Kind::AuthFailed),
            (403, &[], None, Kind::AuthFailed),
            (
                403,
                &[("x-ratelimit-remaining", "0")],
                None,
                Kind::RateLimited,
            ),
            (
                403,
                &[("x-ratelimit-remaining", "7")],
                None,
                Kind::AuthFailed,
            ),
            (403, &[("retry-after", "60")], None, Kind::RateLimited),
            (404, &[], None, Kind::Invalid),
            (404, &[], Some("deploy"), Kind::AuthFailed),
            (407, &[], None, Kind::Unreachable),
            (418, &[], None, Kind::Invalid),
            (429, &[], None, Kind::RateLimited),
            (500, &[], None, Kind::Unreachable),
            (503, &[], Some("deploy"), Kind::Unreachable),
        ] {
            assert_eq!(
                kind(code, pairs, secret),
                expected,
                "{code} {pairs:?} {secret:?}"
            );
        }
    }

    #[test]
    fn messages_name_the_value_and_the_remedy() {
        let text = |code, secret| {
            let asked = Asked {
                url: "https://git.example.com/a",
                secret,
            };
            status(
                StatusCode::from_u16(code).unwrap(),
                &HeaderMap::new(),
                asked,
            )
            .message
        };
        expect_test::expect![[r#"
            "https://git.example.com/a" asks for credentials (HTTP 401): if the URL is right the repository is private; set source.git.secretRef to a Secret with username and password, or bearerToken
            "https://git.example.com/a" refuses the credentials of Secret "deploy" (HTTP 403): check that they have not expired and may read this repository
            there is no git repository at "https://git.example.com/a" (HTTP 404): check source.git.url; a private repository needs source.git.secretRef
            "https://git.example.com/a" cannot answer now (HTTP 502): it is asked again later"#]]
        .assert_eq(
            &[text(401, None), text(403, Some("deploy")), text(404, None), text(502, None)].join("\n"),
        );
    }

    #[test]
    fn a_wish_to_wait_is_read_in_all_its_forms() {
        let date = ("date", "Wed, 21 Oct 2026 07:28:00 GMT");
        let wait = |pairs: &[(&'static str, &'static str)]| {
            retry_after(&headers(pairs)).map(|d| d.as_secs())
        };
        assert_eq!(wait(&[("retry-after", "120")]), Some(120));
        assert_eq!(
            wait(&[date, ("retry-after", "Wed, 21 Oct 2026 07:30:00 GMT")]),
            Some(120)
        );
        assert_eq!(
            wait(&[date, ("retry-after", "Wed, 21 Oct 2026 07:00:00 GMT")]),
            Some(0)
        );
        assert_eq!(
            wait(&[("retry-after", "Wed, 21 Oct 2026 07:30:00 GMT")]),
            None
        );
        assert_eq!(
            wait(&[
                date,
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "1792567740")
            ]),
            Some(60)
        );
        assert_eq!(wait(&[date, ("x-ratelimit-reset", "1792567740")]), None);
        assert_eq!(wait(&[("retry-after", "soon")]), None);
    }

    #[test]
    fn a_connection_without_trust_is_not_a_network_failure() {
        let kind = |causes| connection(causes, "https://git.example.com/a").kind;
        assert_eq!(
            kind("client error (Connect): invalid peer certificate: UnknownIssuer"),
            Kind::CertificateUnknown
        );
        assert_eq!(
            kind("client error (Connect): dns error: no such host"),
            Kind::Unreachable
        );
        assert_eq!(
            kind("tcp connect error: Connection refused (os error 111)"),
            Kind::Unreachable
        );
    }

    #[test]
    fn what_ssh_says_has_its_kind_and_names_the_secret() {
        let end = "fatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\nand the repository exists.\n";
        let says = |words: &str| {
            let asked = Asked {
                url: "git@git.example.com:a",
                secret: Some("deploy"),
            };
            let failure = git_program(&format!("{words}\n{end}"), "the list of refs", asked);
            format!("{:?}: {}", failure.kind, failure.message)
        };
        expect_test::expect![[r#"
            HostKeyUnknown: "git@git.example.com:a" cannot be read with Secret "deploy" (No ED25519 host key is known for git.example.com and you have requested strict checking.): put the server's host key into known_hosts of the source's Secret, after comparing it with what the server's owner says
            AuthFailed: "git@git.example.com:a" cannot be read with Secret "deploy" (git@git.example.com: Permission denied (publickey).): check that the public half of identity is registered there, and the user in the URL
            AuthFailed: "git@git.example.com:a" cannot be read with Secret "deploy" (ERROR: Repository not found.): check the URL, and that the identity of the source's Secret may read this repository
            Invalid: "git@git.example.com:a" cannot be read with Secret "deploy" (fatal: 'a' does not appear to be a git repository): check the path in the URL
            Unreachable: "git@git.example.com:a" cannot be read with Secret "deploy" (ssh: connect to host git.example.com port 22: Connection refused): check host, port and the network policies (ssh goes past HTTP proxies); this is tried again by itself
            RevisionNotFound: "git@git.example.com:a" has not got the list of refs, or does not give it away by its id: check source.git.ref"#]]
        .assert_eq(
            &[
                "No ED25519 host key is known for git.example.com and you have requested strict checking.\nHost key verification failed.",
                "git@git.example.com: Permission denied (publickey).",
                "ERROR: Repository not found.",
                "fatal: 'a' does not appear to be a git repository",
                "ssh: connect to host git.example.com port 22: Connection refused",
                "fatal: remote error: upload-pack: not our ref 1234",
            ]
            .map(says)
            .join("\n"),
        );
    }

    #[test]
    fn what_git_says_has_its_kind() {
        let asked = Asked {
            url: "https://git.example.com/a",
            secret: None,
        };
        for (stderr, expected) in [
            (
                "fatal: remote error: upload-pack: not our ref 1234",
                Kind::RevisionNotFound,
            ),
            (
                "error: Server does not allow request for unadvertised object 12",
                Kind::RevisionNotFound,
            ),
            (
                "fatal: Authentication failed for 'https://git.example.com/a/'",
                Kind::AuthFailed,
            ),
            (
                "fatal: could not read Username for 'https://x': terminal prompts disabled",
                Kind::AuthFailed,
            ),
            (
                "fatal: unable to access 'https://x/': server certificate verification failed. CAfile: none",
                Kind::CertificateUnknown,
            ),
            (
                "fatal: unable to access 'https://x/': Could not resolve host: x",
                Kind::Unreachable,
            ),
            (
                "error: RPC failed; curl 18 transfer closed\nfatal: early EOF",
                Kind::Unreachable,
            ),
            (
                "fatal: unable to access 'https://x/': The requested URL returned error: 503",
                Kind::Unreachable,
            ),
            (
                "fatal: unable to access 'https://x/': The requested URL returned error: 429",
                Kind::RateLimited,
            ),
            ("fatal: bad object", Kind::Invalid),
            ("", Kind::Invalid),
        ] {
            assert_eq!(
                git_program(stderr, "c0ffee", asked).kind,
                expected,
                "{stderr}"
            );
        }
    }
}
