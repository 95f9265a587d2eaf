//! Credentials and certificates of a source, read from the cluster by name when they are needed
//! and kept no longer than the poll. Never listed, never watched: the operator may read only what
//! a namespace's `RoleBinding` lets it read.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use firn_crd::ssh::{Keys, KeysError, SshUrl};
use http::HeaderValue;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};

use super::{Git, Kind, SourceFailure};

/// Longest time for one object: the client itself retries for much longer.
const API_TIMEOUT: Duration = Duration::from_secs(10);

/// What a request carries. Prints nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// `Authorization: Basic`.
    Basic {
        /// User.
        username: String,
        /// Password or token.
        password: String,
    },
    /// `Authorization: Bearer`.
    Bearer(String),
    /// A private key, and the host keys of whom it is for.
    Ssh(Keys),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Basic { .. } => "Basic(…)",
            Self::Bearer(_) => "Bearer(…)",
            Self::Ssh(_) => "Ssh(…)",
        })
    }
}

impl Credentials {
    /// The value of `Authorization`. `None`: a token with line feeds or other control characters,
    /// or nothing that HTTP knows.
    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        let text = match self {
            Self::Basic { username, password } => {
                format!(
                    "Basic {}",
                    STANDARD.encode(format!("{username}:{password}"))
                )
            }
            Self::Bearer(token) => format!("Bearer {token}"),
            Self::Ssh(_) => return None,
        };
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// What the cluster says about one source.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust {
    /// Credentials, if the spec names a Secret that has some.
    pub(crate) credentials: Option<Credentials>,
    /// PEM bundle of the Secret's `ca.crt` and the `ConfigMap`, trusted besides the others.
    pub(crate) ca: Option<Vec<u8>>,
}

/// Reads Secret and `ConfigMap` of a source.
pub(crate) async fn read(
    client: &Client,
    namespace: &str,
    git: &Git,
) -> Result<Trust, SourceFailure> {
    let mut trust = Trust::default();
    let by_ssh = SshUrl::is(&git.url);
    if by_ssh && git.secret.is_none() {
        return Err(SourceFailure::new(
            Kind::SecretMissing,
            "a source by ssh needs a Secret with identity and known_hosts: name it in \
             source.git.secretRef",
        ));
    }
    if let Some(name) = &git.secret {
        let api = Api::<Secret>::namespaced(client.clone(), namespace);
        let secret = get("Secret", namespace, name, "source.git", api.get(name)).await?;
        let data = secret.data.unwrap_or_default();
        let field = |key: &str| data.get(key).map(|value| value.0.as_slice());
        trust.credentials = if by_ssh {
            Some(keys(name, namespace, field)?)
        } else {
            credentials(name, namespace, field)?
        };
        trust.ca = field("ca.crt").map(<[u8]>::to_vec);
    }
    if let Some((name, key)) = &git.ca {
        let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
        let map = get("ConfigMap", namespace, name, "source.git", api.get(name)).await?;
        let text = map
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .map(String::as_bytes);
        let bytes = map
            .binary_data
            .as_ref()
            .and_then(|data| data.get(key))
            .map(|b| b.0.as_slice());
        let pem = text.or(bytes).ok_or_else(|| {
            SourceFailure::new(
                Kind::SecretMissing,
                format!("ConfigMap {name:?} in namespace {namespace:?} has no key {key:?} (source.git.caConfigMapRef)"),
            )
        })?;
        let bundle = trust.ca.get_or_insert_default();
        bundle.push(b'\n');
        bundle.extend_from_slice(pem);
    }
    Ok(trust)
}

/// The secret that a forge and a `NixImage` share: key `token` of a Secret.
pub async fn webhook_secret(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Vec<u8>, SourceFailure> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let secret = get("Secret", namespace, name, "source.git", api.get(name)).await?;
    let token = secret.data.unwrap_or_default().remove("token");
    // As of passwords: a line feed at the end is nobody's intention.
    let token = token.map(|value| value.0.trim_ascii_end().to_vec());
    token.filter(|token| !token.is_empty()).ok_or_else(|| {
        SourceFailure::new(
            Kind::SecretMissing,
            format!(
                "Secret {name:?} in namespace {namespace:?} has no key \"token\" \
                 (source.git.webhook.secretRef)"
            ),
        )
    })
}

/// The keys of a Secret for ssh.
fn keys<'a>(
    name: &str,
    namespace: &str,
    field: impl Fn(&str) -> Option<&'a [u8]>,
) -> Result<Credentials, SourceFailure> {
    Keys::read(field).map(Credentials::Ssh).map_err(|error| {
        let kind = match error {
            KeysError::NoIdentity => Kind::SecretMissing,
            KeysError::NoKnownHosts | KeysError::NotText => Kind::HostKeyUnknown,
            KeysError::NotAKey | KeysError::Passphrase => Kind::AuthFailed,
        };
        SourceFailure::new(
            kind,
            format!("Secret {name:?} in namespace {namespace:?} {error} (source.git.secretRef)"),
        )
    })
}

/// The credentials of a Secret for https. `None`: it holds only a certificate.
fn credentials<'a>(
    name: &str,
    namespace: &str,
    field: impl Fn(&str) -> Option<&'a [u8]>,
) -> Result<Option<Credentials>, SourceFailure> {
    let missing = |what: &str| {
        SourceFailure::new(
            Kind::SecretMissing,
            format!(
                "Secret {name:?} in namespace {namespace:?} {what}: an https source needs \
                 username and password, or bearerToken (source.git.secretRef)"
            ),
        )
    };
    let text = |key: &str| -> Result<Option<String>, SourceFailure> {
        let Some(bytes) = field(key) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(bytes)
            .map_err(|_| missing(&format!("has a key {key:?} that is not text")))?;
        // `echo token | kubectl create secret` leaves a line feed that no password has.
        let text = text.trim_end_matches(['\r', '\n']);
        if text.chars().any(char::is_control) {
            return Err(missing(&format!(
                "has a key {key:?} with control characters"
            )));
        }
        Ok(Some(text.to_owned()))
    };
    if let Some(token) = text("bearerToken")? {
        return Ok(Some(Credentials::Bearer(token)));
    }
    match (text("username")?, text("password")?) {
        (Some(username), Some(password)) => Ok(Some(Credentials::Basic { username, password })),
        (Some(_), None) => Err(missing("has username but no password")),
        (None, Some(_)) => Err(missing("has password but no username")),
        (None, None) if field("ca.crt").is_some() => Ok(None),
        (None, None) => Err(missing("holds no credentials")),
    }
}

/// One object that `field` of the spec names, or the failure that its absence means.
pub(crate) async fn get<K>(
    kind: &'static str,
    namespace: &str,
    name: &str,
    field: &str,
    request: impl Future<Output = Result<K, kube::Error>>,
) -> Result<K, SourceFailure> {
    let answer = tokio::time::timeout(API_TIMEOUT, request).await;
    let error = match answer {
        Ok(Ok(object)) => return Ok(object),
        Ok(Err(error)) => error,
        Err(_) => {
            return Err(SourceFailure::new(
                Kind::Internal,
                format!(
                    "the API server did not give {kind} {name:?} within {} s: it is asked again later",
                    API_TIMEOUT.as_secs()
                ),
            ));
        }
    };
    Err(match &error {
        kube::Error::Api(status) if status.code == 404 => SourceFailure::new(
            Kind::SecretMissing,
            format!(
                "there is no {kind} {name:?} in namespace {namespace:?}: create it, or change the reference in {field}"
            ),
        ),
        kube::Error::Api(status) if status.code == 403 => {
            forbidden(kind, namespace, name, &status.message)
        }
        _ => {
            tracing::warn!(namespace, kind, name, error = %error, "failed to read what a spec names");
            SourceFailure::new(
                Kind::Internal,
                format!(
                    "{kind} {name:?} in namespace {namespace:?} could not be read from the API server: it is asked again later"
                ),
            )
        }
    })
}

fn forbidden(kind: &str, namespace: &str, name: &str, message: &str) -> SourceFailure {
    // The API server says who was refused; `system:serviceaccount:<namespace>:<name>`.
    let account = message
        .split_once("system:serviceaccount:")
        .and_then(|(_, rest)| rest.split(['"', '\'', ' ']).next())
        .unwrap_or("<operator's namespace>:<its service account>");
    SourceFailure::new(
        Kind::CredentialsForbidden,
        format!(
            "the operator may not read {kind} {name:?} in namespace {namespace:?}: allow it with \
             `kubectl create rolebinding firn-secret-reader -n {namespace} \
             --clusterrole=firn-secret-reader --serviceaccount={account}`"
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn of(pairs: &[(&'static str, &'static str)]) -> Result<Option<Credentials>, String> {
        let map: BTreeMap<_, _> = pairs.iter().copied().collect();
        credentials("deploy", "shop", |key| map.get(key).map(|v| v.as_bytes()))
            .map_err(|f| f.message)
    }

    #[test]
    fn each_kind_of_secret_is_read() {
        let basic = Credentials::Basic {
            username: "u".into(),
            password: "p:w".into(),
        };
        assert_eq!(
            of(&[("username", "u"), ("password", "p:w\n")]),
            Ok(Some(basic.clone()))
        );
        assert_eq!(basic.authorization().unwrap(), "Basic dTpwOnc=");
        assert_eq!(
            of(&[("bearerToken", "t\r\n")]),
            Ok(Some(Credentials::Bearer("t".into())))
        );
        assert_eq!(of(&[("ca.crt", "pem")]), Ok(None));
    }

    #[test]
    fn an_incomplete_secret_is_named() {
        let says = |pairs: &[(&'static str, &'static str)], what: &str| {
            let message = of(pairs).unwrap_err();
            assert!(
                message.contains(what) && message.contains(r#""deploy""#),
                "{message}"
            );
        };
        says(&[("username", "u")], "no password");
        says(&[("password", "p")], "no username");
        says(&[("identity", "ssh")], "holds no credentials");
        says(&[("bearerToken", "a\nb")], "control characters");
    }

    #[test]
    fn a_secret_for_ssh_that_cannot_be_used_is_named() {
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----\n";
        let of = |pairs: &[(&'static str, &'static str)]| {
            let map: BTreeMap<_, _> = pairs.iter().copied().collect();
            keys("deploy", "shop", |key| map.get(key).map(|v| v.as_bytes()))
                .map_err(|failure| (failure.kind, failure.message))
        };
        assert!(of(&[("identity", key), ("known_hosts", "h ssh-rsa A")]).is_ok());
        for (pairs, kind) in [
            (&[("identity", key)][..], Kind::HostKeyUnknown),
            (&[("known_hosts", "h ssh-rsa A")], Kind::SecretMissing),
            (&[("username", "u"), ("password", "p")], Kind::SecretMissing),
            (
                &[("identity", "x"), ("known_hosts", "h ssh-rsa A")],
                Kind::AuthFailed,
            ),
        ] {
            let (found, message) = of(pairs).unwrap_err();
            assert_eq!(found, kind, "{message}");
            assert!(message.contains(r#""deploy""#), "{message}");
        }
    }

    #[test]
    fn nothing_prints_a_secret() {
        let secret = "s3cr3t-canary";
        let basic = Credentials::Basic {
            username: secret.into(),
            password: secret.into(),
        };
        let bearer = Credentials::Bearer(secret.into());
        let trust = Trust {
            credentials: Some(basic.clone()),
            ca: None,
        };
        let text = format!(
            "{basic:?} {bearer:?} {:?} {trust:?}",
            bearer.authorization()
        );
        assert!(!text.contains(secret), "{text}");
    }

    #[test]
    fn a_refusal_names_the_binding_it_needs() {
        let message = r#"secrets "deploy" is forbidden: User "system:serviceaccount:firn-system:firn" cannot get resource "secrets""#;
        expect_test::expect![[r#"the operator may not read Secret "deploy" in namespace "shop": allow it with `kubectl create rolebinding firn-secret-reader -n shop --clusterrole=firn-secret-reader --serviceaccount=firn-system:firn`"#]]
            .assert_eq(&forbidden("Secret", "shop", "deploy", message).message);
    }
}
