//! `spec.flake`: what is built from the source. Pure.

use kube::KubeSchema;
use kube::core::Rule as CelRule;
use serde::{Deserialize, Serialize};

/// What is built from the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Flake {
    /// Attribute of the flake. A short name is `packages.<system>.<name>`; a dotted one is taken as
    /// it is. Names may be quoted: `packages.x86_64-linux."python3.11"`.
    #[serde(default = "default_attribute")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = attribute_rule())]
    pub attribute: String,
    /// Honour `nixConfig` of the flake, as far as the operator allows.
    #[serde(default)]
    pub accept_flake_config: bool,
}

impl Default for Flake {
    fn default() -> Self {
        Self {
            attribute: default_attribute(),
            accept_flake_config: false,
        }
    }
}

fn default_attribute() -> String {
    "default".into()
}

/// Attribute names joined by dots; what reaches Nix's command line is one of these.
pub(crate) fn attribute_rule() -> CelRule {
    CelRule::new(r#"self.matches(r'^([A-Za-z_][A-Za-z0-9_\x27-]*|"[^"\\\s]{1,128}")([.]([A-Za-z_][A-Za-z0-9_\x27-]*|"[^"\\\s]{1,128}"))*$')"#)
        .message("an attribute must be attribute names of letters, digits, _ - and ', or any name in double quotes, joined by dots")
}
