//! `spec.signing` and `spec.attestations`: what travels with the image. Pure.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};

use crate::reference::SecretRef;
use crate::schema::Entries;

/// Whether and how the image is signed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.mode) || self.mode != 'Key' || has(self.keySecretRef)")
        .message("signing.mode Key needs signing.keySecretRef"),
    validation = Rule::new("!has(self.keyless) || (has(self.mode) && self.mode == 'Keyless')")
        .message("signing.keyless goes with signing.mode Keyless")
)]
pub struct Signing {
    /// `None`, `Key` (a private key from a Secret) or `Keyless` (the pod's identity, by sigstore).
    #[serde(default)]
    pub mode: SigningMode,
    /// Secret with `cosign.key` and `cosign.password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_secret_ref: Option<SecretRef>,
    /// Services for mode Keyless. Default: the public ones of sigstore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyless: Option<Keyless>,
    /// `Bundle`: a referrer, for verifiers of cosign v3. `Legacy`: a tag ending in `.sig`. `Both`.
    #[serde(default)]
    pub format: SignatureFormat,
    /// Annotations that are part of what is signed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = Entries { count: 32, length: 1024 })]
    pub annotations: BTreeMap<String, String>,
}

/// Services for signing without a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Keyless {
    /// Certificate authority.
    #[serde(default, rename = "fulcioURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https://[^\s]+$"))]
    pub fulcio_url: Option<String>,
    /// Transparency log.
    #[serde(default, rename = "rekorURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https://[^\s]+$"))]
    pub rekor_url: Option<String>,
    /// Audience of the pod's token.
    #[serde(default = "sigstore")]
    #[schemars(length(max = 256))]
    pub audience: String,
}

impl Default for Keyless {
    fn default() -> Self {
        Self {
            fulcio_url: None,
            rekor_url: None,
            audience: sigstore(),
        }
    }
}

fn sigstore() -> String {
    "sigstore".into()
}

/// Who signs.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
pub enum SigningMode {
    /// Nobody.
    #[default]
    None,
    /// A private key.
    Key,
    /// The pod's identity.
    Keyless,
}

/// How a signature is kept in the registry.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
pub enum SignatureFormat {
    /// A referrer of the image.
    #[default]
    Bundle,
    /// A tag derived from the digest.
    Legacy,
    /// Both.
    Both,
}

/// Statements about the image, attached to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attestations {
    /// Attach SLSA provenance: what the image was built from, where and how.
    #[serde(default)]
    pub provenance: bool,
    /// Attach a list of what is in the image: `None`, `SPDX` or `CycloneDX`.
    #[serde(default)]
    pub sbom: SbomFormat,
}

/// Format of the list of what is in the image.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
pub enum SbomFormat {
    /// No list.
    #[default]
    None,
    /// SPDX.
    #[serde(rename = "SPDX")]
    #[strum(serialize = "SPDX")]
    Spdx,
    /// CycloneDX.
    CycloneDX,
}
