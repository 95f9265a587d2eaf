//! Logins from Docker's `config.json`. Runs no helper, and reads no file but for [`Reread`].
//!
//! An entry of `auths` may be for a host or for a path on it; the longest that fits is taken, as
//! the kubelet does it for pull secrets. Credential helpers are programs of somebody's laptop:
//! they are never run, but remembered, so that a refusal can say why there was no login.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::secret::Secret;
use crate::provider;
use crate::{RegistryHost, Repository};

/// How to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// Name and password, sent as they are or exchanged for a token.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token (`identitytoken`), exchanged for an access token.
    Identity(Secret),
    /// An access token (`registrytoken`), sent as it is.
    Bearer(Secret),
}

/// All logins of one `config.json`; by default there are none.
#[derive(Clone, Default)]
pub struct Credentials {
    /// By host and path, without scheme.
    logins: BTreeMap<String, Login>,
    helpers: Vec<String>,
}

/// Reads credentials again, from wherever they were read first. Asked after a refusal only, on a
/// thread that may block.
#[derive(Clone)]
pub struct Reread(Arc<dyn Fn() -> Option<Credentials> + Send + Sync>);

/// A `config.json` that cannot be used. Says where, never what: it is all secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Not JSON, or of another shape.
    #[error(
        "failed to read the registry credentials: line {line}, column {column} is not what \
         Docker's config.json has there"
    )]
    Shape {
        /// Line of the file, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// `auth` is no `base64(username:password)`.
    #[error(
        "failed to read the registry credentials: \"auth\" of {entry:?} is not the base64 form of \
         \"username:password\""
    )]
    Auth {
        /// The key in `auths`.
        entry: String,
    },
    /// `username` without `password`, or the other way round.
    #[error(
        "failed to read the registry credentials: {entry:?} has a username or a password, not both"
    )]
    Half {
        /// The key in `auths`.
        entry: String,
    },
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, serde_json::Value>,
    #[serde(default, rename = "credsStore")]
    store: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

impl Credentials {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// It is not one, or an entry of `auths` is broken.
    pub fn from_docker_config(bytes: &[u8]) -> Result<Self, CredentialsError> {
        // serde_json's own message would quote the value it stumbled over.
        let file: File =
            serde_json::from_slice(bytes).map_err(|error| CredentialsError::Shape {
                line: error.line(),
                column: error.column(),
            })?;
        let mut logins = BTreeMap::new();
        for (key, entry) in file.auths {
            if let Some(login) = entry.login(&key)? {
                logins.insert(normalise(&key), login);
            }
        }
        let mut helpers: Vec<String> = file.helpers.keys().map(|key| normalise(key)).collect();
        if file.store.is_some() {
            helpers.push("*".to_owned());
        }
        Ok(Self { logins, helpers })
    }

    /// One login for everything.
    pub fn of(host: &RegistryHost, login: Login) -> Self {
        Self {
            logins: BTreeMap::from([(host.to_string(), login)]),
            helpers: Vec::new(),
        }
    }

    /// The login for a repository, or for the registry itself: the entry with the longest path
    /// that fits. `None`: anonymous.
    pub fn login(&self, host: &RegistryHost, repository: Option<&Repository>) -> Option<&Login> {
        let path = repository.map_or("", Repository::as_str);
        self.logins
            .iter()
            .filter_map(|(key, login)| {
                let (entry_host, entry_path) = key.split_once('/').unwrap_or((key, ""));
                let fits = names_host(entry_host, host) && is_within(path, entry_path);
                fits.then_some((entry_path.len(), !entry_host.contains('*'), login))
            })
            .max_by_key(|(length, exact, _)| (*length, *exact))
            .map(|(_, _, login)| login)
    }

    /// Whether a helper, which is not run, might have had a login for this registry.
    pub fn has_helper(&self, host: &RegistryHost) -> bool {
        self.helpers
            .iter()
            .any(|helper| helper == "*" || names_host(helper, host))
    }
}

impl Reread {
    /// More than any `config.json` has; a Secret is at most 1 MiB.
    const FILE_MAX: u64 = 1 << 20;

    /// By a function; `None` from it keeps what there was.
    pub fn new(read: impl Fn() -> Option<Credentials> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// From a `config.json` that may be replaced. One that is missing or broken (half written)
    /// keeps what there was.
    pub fn docker_config(path: PathBuf) -> Self {
        Self::new(move || {
            let mut bytes = Vec::new();
            let file = std::fs::File::open(&path).ok()?;
            file.take(Self::FILE_MAX).read_to_end(&mut bytes).ok()?;
            Credentials::from_docker_config(&bytes).ok()
        })
    }

    pub(super) fn read(&self) -> Option<Credentials> {
        (self.0)()
    }
}

impl fmt::Debug for Reread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reread(…)")
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("for", &self.logins.keys())
            .finish_non_exhaustive()
    }
}

impl Entry {
    fn login(self, key: &str) -> Result<Option<Login>, CredentialsError> {
        let given = |secret: Option<Secret>| secret.filter(|secret| !secret.expose().is_empty());
        let entry = || key.to_owned();
        if let Some(token) = given(self.registrytoken) {
            return Ok(Some(Login::Bearer(token)));
        }
        if let Some(token) = given(self.identitytoken) {
            return Ok(Some(Login::Identity(token)));
        }
        if let Some(auth) = given(self.auth) {
            let login = decode(&auth).ok_or_else(|| CredentialsError::Auth { entry: entry() })?;
            return Ok(Some(login));
        }
        match (
            self.username.filter(|name| !name.is_empty()),
            given(self.password),
        ) {
            (None, None) => Ok(None),
            (Some(username), Some(password)) => Ok(Some(Login::Password { username, password })),
            _ => Err(CredentialsError::Half { entry: entry() }),
        }
    }
}

fn decode(auth: &Secret) -> Option<Login> {
    let bytes = STANDARD.decode(auth.expose().trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    // Docker pads the password with NULs on some platforms, and strips them itself.
    let password = password.trim_end_matches('\0');
    Some(Login::Password {
        username: username.to_owned(),
        password: Secret::new(password.to_owned()),
    })
}

/// `https://index.docker.io/v1/` and `GHCR.io` become `docker.io` and `ghcr.io`; paths stay.
fn normalise(key: &str) -> String {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let host = host.to_ascii_lowercase();
    let host = provider::usual_host(&host);
    // What the old and the new API are called is no repository.
    match path.trim_end_matches('/') {
        "" | "v1" | "v2" => host.to_owned(),
        path => format!("{host}/{path}"),
    }
}

/// Equal, or equal but for labels that are `*`. The kubelet knows more patterns; nobody uses them.
fn names_host(entry: &str, host: &RegistryHost) -> bool {
    let host = provider::usual_host(host.as_str());
    let mut labels = entry.split('.');
    let mut wanted = host.split('.');
    loop {
        match (labels.next(), wanted.next()) {
            (None, None) => return true,
            (Some(label), Some(part)) if label == part || (label == "*" && !part.contains(':')) => {
            }
            _ => return false,
        }
    }
}

/// Whether `path` is `entry` or below it.
fn is_within(path: &str, entry: &str) -> bool {
    entry.is_empty()
        || path
            .strip_prefix(entry)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn user(credentials: &Credentials, host: &str, repository: &str) -> Option<String> {
        let login = credentials.login(&host.parse().unwrap(), Some(&repository.parse().unwrap()));
        match login? {
            Login::Password { username, .. } => Some(username.clone()),
            other => Some(format!("{other:?}")),
        }
    }

    fn config(json: &str) -> Result<Credentials, CredentialsError> {
        Credentials::from_docker_config(json.as_bytes())
    }

    #[test]
    fn the_longest_path_on_the_host_wins() {
        let credentials = config(
            r#"{"auths":{
                "https://Reg.example:5000/v2/":{"username":"host","password":"x"},
                "reg.example:5000/team":{"username":"team","password":"x"},
                "reg.example:5000/team/app":{"auth":"YXBwOngAAA=="},
                "*.cloud.example":{"username":"wild","password":"x"},
                "https://index.docker.io/v1/":{"username":"hub","password":"x"},
                "empty.example":{}}}"#,
        )
        .unwrap();
        for (host, repository, expected) in [
            ("reg.example:5000", "other/app", Some("host")),
            ("reg.example:5000", "team/b", Some("team")),
            ("reg.example:5000", "team/app", Some("app")),
            ("reg.example:5000", "team/app2", Some("team")),
            ("reg.example:5000", "teamwork", Some("host")),
            ("reg.example", "team/app", None),
            ("a.cloud.example", "x", Some("wild")),
            ("a.b.cloud.example", "x", None),
            ("docker.io", "library/x", Some("hub")),
            ("empty.example", "x", None),
        ] {
            assert_eq!(
                user(&credentials, host, repository).as_deref(),
                expected,
                "{host}/{repository}"
            );
        }
    }

    #[test]
    fn every_kind_of_login_is_read_and_none_is_shown() {
        let credentials = config(
            r#"{"auths":{"a.example":{"auth":"dTpjYW5hcnk=","identitytoken":"canary"},
                "b.example":{"registrytoken":"canary"},"c.example":{"auth":"dTpjYW46YXJ5"}}}"#,
        )
        .unwrap();
        let secret = Secret::new("canary".to_owned());
        let login = |host: &str| credentials.login(&host.parse().unwrap(), None).unwrap();
        assert_eq!(login("a.example"), &Login::Identity(secret.clone()));
        assert_eq!(login("b.example"), &Login::Bearer(secret));
        assert!(matches!(login("c.example"),
            Login::Password { password, .. } if password.expose() == "can:ary"));
        let shown = format!("{credentials:?} {:?}", login("a.example"));
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn what_is_broken_is_named_and_not_quoted() {
        for json in [
            r#"{"auths":{"a.example":{"auth":"canary"}}}"#,
            r#"{"auths":{"a.example":{"auth":"Y2FuYXJ5"}}}"#,
            r#"{"auths":{"a.example":{"username":"u"}}}"#,
            r#"{"auths":{"a.example":"canary"}}"#,
            r#"{"auths":{"a.example":{"password":["canary"]}}}"#,
            r#"{"auths":"canary"}"#,
            "canary",
            "",
        ] {
            let error = config(json).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(
                !shown.contains("canary") && !shown.contains("Y2Fu"),
                "{shown}"
            );
        }
    }

    #[test]
    fn helpers_are_remembered_and_not_run() {
        let host = "a.example".parse().unwrap();
        let with = |json: &str| config(json).unwrap().has_helper(&host);
        assert!(with(r#"{"credHelpers":{"a.example":"x"}}"#));
        assert!(with(r#"{"credsStore":"desktop"}"#));
        assert!(!with(
            r#"{"credHelpers":{"b.example":"x"},"HttpHeaders":{}}"#
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_are_credentials_or_an_error(text in "\\{\"auths\":\\{\"\\PC{0,9}\":\\{\\PC{0,30}|\\PC*") {
            let _ = Credentials::from_docker_config(text.as_bytes());
        }
    }
}
