//! `spec.source`: where the flake comes from. Pure.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::reference::{CaConfigMapRef, SecretRef};

/// Where the flake comes from. Exactly one of `git` and `oci` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.git), has(self.oci)].filter(x, x).size() == 1")
        .message("exactly one of source.git and source.oci must be set")
)]
pub struct Source {
    /// A git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
    /// A source tree kept as an OCI artifact: what `kubectl firn build .` uploads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oci: Option<OciSource>,
}

/// A git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitSource {
    /// `https://host/path`, `ssh://[user@]host/path` or `user@host:path`. Credentials do not belong
    /// here, they go in `secretRef`.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(
        validation = Rule::new(r"self.startsWith('https://') || self.startsWith('ssh://') || self.matches(r'^[A-Za-z0-9_][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^/-]')")
            .message("url must be https://, ssh:// or user@host:path (http://, git://, file:// and ext:: are refused)"),
        validation = Rule::new(r"!self.matches(r'^https://[^/]*@') && !self.matches(r'^ssh://[^/@]*:[^/@]*@')")
            .message("url must not carry credentials; use source.git.secretRef"),
        validation = Rule::new(r"!self.matches(r'^[a-z]+://([^/@]*@)?(-|/|$)') && !self.matches(r'^ssh://-')")
            .message("url has no usable host (a host must not be empty or start with '-')"),
        validation = Rule::new(r"self.matches(r'^[!$-,.-;=@-Z_a-z~%/\[\]-]+$')")
            .message(r"url must be printable ASCII without spaces, quotes, '?', '#' and backslashes (write refs and directories in their own fields)")
    )]
    pub url: String,
    /// What to follow. Default: the remote's HEAD.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<GitRef>,
    /// Directory of `flake.nix`, relative to the source's root.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = dir_rule())]
    pub dir: String,
    /// Fetch submodules too.
    #[serde(default)]
    pub submodules: bool,
    /// Secret with `username` and `password`, or `bearerToken`, or `identity` and `known_hosts`.
    /// Used by the fetch container, and by the operator to poll, as far as it may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// PEM bundle trusted for this endpoint besides the system's and the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
    /// Pushes that the forge tells of: the repository is then asked at once, besides at every
    /// `interval`. The operator must serve webhooks (docs/webhooks.md).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// How often the repository is asked for new revisions: 30s to 24h.
    #[serde(default = "interval")]
    #[x_kube(validation = interval_rule())]
    pub interval: Duration,
    /// Longest time for one answer of the git server: 1s to 10m.
    #[serde(default = "timeout")]
    #[x_kube(
        validation = Rule::new("self >= duration('1s') && self <= duration('10m')")
            .message("timeout must be between 1s and 10m")
    )]
    pub timeout: Duration,
}

/// Who may tell of pushes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Secret with a key `token`: what the forge signs with, or shows.
    pub secret_ref: SecretRef,
}

/// What to follow in a git repository. Exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.branch), has(self.tag), has(self.semver), has(self.commit)].filter(x, x).size() == 1")
        .message("exactly one of ref.branch, ref.tag, ref.semver and ref.commit must be set")
)]
pub struct GitRef {
    /// A branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = ref_name_rule())]
    pub branch: Option<String>,
    /// A tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = ref_name_rule())]
    pub tag: Option<String>,
    /// The highest tag in a range of semantic versions, as in `1.x`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = "^[0-9A-Za-z.*^~<>=|, +-]+$")
    )]
    pub semver: Option<String>,
    /// A commit: 40 or 64 hex digits. Never moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(
        validation = Rule::new("self.matches(r'^([0-9a-f]{40}|[0-9a-f]{64})$')")
            .message("ref.commit must be a full commit id of 40 or 64 hex digits")
    )]
    pub commit: Option<String>,
}

/// A source tree kept as an OCI artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OciSource {
    /// Registry host and repository, with a tag (polled) or a digest (pinned).
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = Rule::new(r"self.matches(r'^([a-z0-9-]+(\.[a-z0-9-]+)+(:[0-9]{1,5})?|[a-z0-9-]+:[0-9]{1,5}|localhost)(/[a-z0-9]+([._-]+[a-z0-9]+)*)+(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$')")
            .message("source.oci.image must be registry-host/repository with a :tag or an @sha256: digest of 64 hex digits"),
        validation = Rule::new("self.contains('@sha256:') || self.split('/')[self.split('/').size() - 1].contains(':')")
            .message("source.oci.image needs a tag (polled) or a digest (pinned)")
    )]
    pub image: String,
    /// Directory of `flake.nix`, relative to the source's root.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = dir_rule())]
    pub dir: String,
    /// Secret of type `kubernetes.io/dockerconfigjson` to pull the artifact with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret_ref: Option<SecretRef>,
    /// PEM bundle trusted for this endpoint besides the system's and the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map_ref: Option<CaConfigMapRef>,
    /// How often the registry is asked what the tag points to: 30s to 24h.
    #[serde(default = "interval")]
    #[x_kube(validation = interval_rule())]
    pub interval: Duration,
}

/// What a [`GitSource`] follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow<'a> {
    /// The remote's default branch.
    Head,
    /// A branch.
    Branch(&'a str),
    /// A tag.
    Tag(&'a str),
    /// The highest tag in a range of semantic versions.
    Semver(&'a str),
    /// A commit.
    Commit(&'a str),
}

impl GitSource {
    /// `url` with every other field at its default.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            reference: None,
            dir: root(),
            submodules: false,
            secret_ref: None,
            ca_config_map_ref: None,
            webhook: None,
            interval: interval(),
            timeout: timeout(),
        }
    }

    /// What is followed. The schema sees to it that a `ref` has exactly one field; of several the
    /// one that moves least counts.
    pub fn follow(&self) -> Follow<'_> {
        let Some(reference) = &self.reference else {
            return Follow::Head;
        };
        let GitRef {
            branch,
            tag,
            semver,
            commit,
        } = reference;
        commit
            .as_deref()
            .map(Follow::Commit)
            .or_else(|| tag.as_deref().map(Follow::Tag))
            .or_else(|| semver.as_deref().map(Follow::Semver))
            .or_else(|| branch.as_deref().map(Follow::Branch))
            .unwrap_or(Follow::Head)
    }
}

impl OciSource {
    /// The digest that pins the artifact. `None`: the tag is polled.
    pub fn digest(&self) -> Option<&str> {
        self.image.split_once('@').map(|(_, digest)| digest)
    }
}

pub(crate) fn root() -> String {
    ".".into()
}

fn interval() -> Duration {
    Duration::of(std::time::Duration::from_secs(5 * 60))
}

fn timeout() -> Duration {
    Duration::of(std::time::Duration::from_secs(60))
}

fn ref_name_rule() -> kube::core::Rule {
    kube::core::Rule::new(r"self.matches(r'^[^-/.\s~^:?*\[\\][^\s~^:?*\[\\]*$') && !self.contains('..') && !self.contains('@{') && !self.contains('//') && !self.endsWith('/') && !self.endsWith('.') && !self.endsWith('.lock')")
        .message(r"not a valid git ref name (must not start with '-', '/' or '.', nor contain spaces, '..', '@{', '//' or any of ~^:?*[\)")
}

fn dir_rule() -> kube::core::Rule {
    kube::core::Rule::new("self.matches(r'^[A-Za-z0-9._@+][A-Za-z0-9._@+/-]*$') && !self.split('/').exists(p, p == '..')")
        .message("dir must be a relative path of letters, digits and ._@+-/ without '..'")
}

fn interval_rule() -> kube::core::Rule {
    kube::core::Rule::new("self >= duration('30s') && self <= duration('24h')")
        .message("interval must be between 30s and 24h")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_git_source_follows_what_its_ref_names() {
        let follow = |reference: GitRef| {
            let source = GitSource {
                reference: Some(reference),
                ..GitSource::new("https://git.example.com/x")
            };
            format!("{:?}", source.follow())
        };
        assert_eq!(GitSource::new("https://x").follow(), Follow::Head);
        assert_eq!(
            follow(GitRef {
                branch: Some("b".into()),
                ..GitRef::default()
            }),
            r#"Branch("b")"#
        );
        assert_eq!(
            follow(GitRef {
                tag: Some("t".into()),
                ..GitRef::default()
            }),
            r#"Tag("t")"#
        );
        assert_eq!(
            follow(GitRef {
                semver: Some("1.x".into()),
                ..GitRef::default()
            }),
            r#"Semver("1.x")"#
        );
        assert_eq!(
            follow(GitRef {
                commit: Some("c0".into()),
                ..GitRef::default()
            }),
            r#"Commit("c0")"#
        );
    }
}
