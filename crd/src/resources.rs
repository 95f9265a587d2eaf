//! What a build container may use, and on which nodes. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Requests and limits of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the container is sure to get.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub requests: BTreeMap<String, Quantity>,
    /// What the container may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

impl From<Resources> for ResourceRequirements {
    fn from(Resources { requests, limits }: Resources) -> Self {
        let some = |map: BTreeMap<_, _>| (!map.is_empty()).then_some(map);
        Self {
            claims: None,
            limits: some(limits),
            requests: some(requests),
        }
    }
}

/// The operator sets these two from the platform; a user's would contradict them or be lost.
pub(crate) fn node_selector_rule() -> Rule {
    Rule::new("!('kubernetes.io/os' in self) && !('kubernetes.io/arch' in self)").message(
        "kubernetes.io/os and kubernetes.io/arch are set by the operator (from output.platforms)",
    )
}
