//! The `NixImageBuild` of a new run: a snapshot of the spec with everything that moves resolved.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use firn_crd::build::{BuildReason, Change, ImageRef};
use firn_crd::build_spec::BuildSpec;
use firn_crd::hash;
use firn_crd::names;
use firn_crd::output::Platform;
use firn_crd::report::first_bytes;
use firn_crd::resolved::{ResolvedGit, ResolvedOutput, ResolvedSource};
use firn_crd::resources::Resources;
use firn_crd::{NixImage, NixImageBuild, NixImageBuildSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use serde_json::{Map, Value};

use super::Site;
use super::key::Key;
use super::revision::whole_seconds;
use super::template::short;
use crate::settings;
use crate::source::Revision;

/// Most changes that a build records; the schema's bound.
const CHANGES_MAX: usize = 16;
/// Longest value of a change, in bytes; the schema's bound.
const VALUE_MAX: usize = 512;

/// What is decided about a new run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRun {
    /// Its number.
    pub number: i64,
    /// All that asks for it, the strongest first.
    pub reasons: Vec<BuildReason>,
    /// Which try of this work it is.
    pub attempt: u32,
    /// The request that a person made, if one did.
    pub requested: Option<String>,
    /// Tags, expanded.
    pub tags: Vec<String>,
    /// The source.
    pub revision: Revision,
}

/// The object, `before` being the run it is compared with.
pub fn build(
    image: &NixImage,
    site: &Site,
    new: &NewRun,
    before: Option<&NixImageBuildSpec>,
) -> NixImageBuild {
    let name = image.name_any();
    let uid = image.uid().unwrap_or_default();
    let build_hash = hash::build_hash(&image.spec);
    let tags_hash = hash::tags_hash(&image.spec);
    let attempt = new.attempt.to_string();
    let key = Key {
        image_uid: &uid,
        build_hash: &build_hash,
        tags_hash: &tags_hash,
        commit: &new.revision.commit,
        nonce: new.requested.as_deref().unwrap_or(&attempt),
    }
    .text();
    let mut spec = NixImageBuildSpec {
        cancel: false,
        image: Some(ImageRef {
            name: name.clone(),
            uid,
            generation: image.metadata.generation.unwrap_or_default(),
        }),
        number: Some(new.number),
        key: Some(key.clone()),
        reasons: new.reasons.clone(),
        changes: Vec::new(),
        source: source(image, &new.revision),
        flake: image.spec.flake.clone(),
        output: output(image, site, &new.tags),
        build: build_spec(image, site),
        cache: image.spec.cache.clone(),
        signing: None,
        attestations: image.spec.attestations.clone(),
    };
    spec.changes = before
        .map(|before| changes(before, &spec))
        .unwrap_or_default();
    let mut annotations = BTreeMap::from([
        (names::ANNOTATION_BUILD_HASH.into(), build_hash),
        (names::ANNOTATION_TAGS_HASH.into(), tags_hash),
        (names::ANNOTATION_ATTEMPT.into(), new.attempt.to_string()),
    ]);
    annotations.extend(
        new.requested
            .clone()
            .map(|value| (names::ANNOTATION_BUILD.into(), value)),
    );
    NixImageBuild {
        metadata: ObjectMeta {
            name: Some(names::build_name(&name, new.number)),
            namespace: image.namespace(),
            labels: Some(
                [
                    (names::LABEL_MANAGED_BY.into(), names::MANAGED_BY.into()),
                    (names::LABEL_IMAGE.into(), name),
                    (names::LABEL_KEY.into(), key),
                ]
                .into(),
            ),
            annotations: Some(annotations),
            owner_references: owner(image).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

/// The image goes only when its builds, and with them their Jobs and pods, are gone.
fn owner(image: &NixImage) -> Option<OwnerReference> {
    let owner = image.controller_owner_ref(&())?;
    Some(OwnerReference {
        block_owner_deletion: Some(true),
        ..owner
    })
}

fn source(image: &NixImage, revision: &Revision) -> ResolvedSource {
    ResolvedSource {
        short_revision: Some(short(&revision.commit)),
        lock_hash: revision.lock_hash.clone(),
        paths_hash: revision.paths_hash.clone(),
        commit_time: revision.commit_time.map(whole_seconds),
        git: image.spec.source.git.as_ref().map(|git| ResolvedGit {
            url: git.url.clone(),
            reference: revision.reference.clone(),
            commit: revision.commit.clone(),
            dir: git.dir.clone(),
            submodules: git.submodules,
            secret_ref: git.secret_ref.clone(),
            ca_config_map_ref: git.ca_config_map_ref.clone(),
        }),
        oci: None,
    }
}

fn output(image: &NixImage, site: &Site, tags: &[String]) -> ResolvedOutput {
    let output = &image.spec.output;
    ResolvedOutput {
        repository: output.repository.clone(),
        tags: tags.to_vec(),
        tag_policy: output.tag_policy,
        push_secret_ref: output.push_secret_ref.clone(),
        base_pull_secret_ref: output.base_pull_secret_ref.clone(),
        base_ca_config_map_ref: output.base_ca_config_map_ref.clone(),
        base_plain_http_hosts: output.base_plain_http_hosts.clone(),
        ca_config_map_ref: output.ca_config_map_ref.clone(),
        plain_http: output.plain_http,
        platforms: output
            .platforms
            .iter()
            .map(|platform| Platform {
                platform: platform.platform,
                attribute: platform
                    .attribute
                    .clone()
                    .or_else(|| Some(image.spec.flake.attribute.clone())),
                node_selector: image
                    .spec
                    .build
                    .node_selector
                    .clone()
                    .into_iter()
                    .chain(platform.node_selector.clone())
                    .collect(),
                resources: platform
                    .resources
                    .clone()
                    .or_else(|| image.spec.build.resources.clone())
                    .or_else(|| Some(default_resources(&site.resources))),
            })
            .collect(),
        labels: output.labels.clone(),
        annotations: output.annotations.clone(),
        timestamp: output.timestamp,
        layers: output.layers.clone(),
        config: output.config.clone(),
        files: output.files.clone(),
    }
}

fn build_spec(image: &NixImage, site: &Site) -> BuildSpec {
    let mut build = image.spec.build.clone();
    if build.substituters.is_empty() {
        build
            .substituters
            .clone_from(&site.allowed.default_substituters);
    }
    for key in &site.allowed.default_public_keys {
        if !build.trusted_public_keys.contains(key) {
            build.trusted_public_keys.push(key.clone());
        }
    }
    build
}

fn default_resources(defaults: &settings::Resources) -> Resources {
    let settings::Resources {
        cpu_request,
        memory_request,
        cpu_limit,
        memory_limit,
    } = defaults;
    let quantities = |cpu: &Option<String>, memory: &Option<String>| {
        [("cpu", cpu), ("memory", memory)]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), Quantity(value.clone()?))))
            .collect()
    };
    Resources {
        requests: quantities(cpu_request, memory_request),
        limits: quantities(cpu_limit, memory_limit),
    }
}

/// What differs between two runs, in the sections that make an image what it is.
fn changes(before: &NixImageBuildSpec, now: &NixImageBuildSpec) -> Vec<Change> {
    let view = |spec: &NixImageBuildSpec| {
        let git = spec.source.git.as_ref();
        let mut output = serde_json::to_value(&spec.output).unwrap_or_default();
        if let Some(output) = output.as_object_mut() {
            // Not part of what is built.
            for field in [
                "tags",
                "tagPolicy",
                "pushSecretRef",
                "basePullSecretRef",
                "baseCAConfigMapRef",
                "basePlainHTTPHosts",
                "caConfigMapRef",
                "plainHTTP",
                "platforms",
            ] {
                output.remove(field);
            }
        }
        let platforms: BTreeMap<_, _> = spec
            .output
            .platforms
            .iter()
            .map(|platform| (platform.platform.as_str(), platform.attribute.clone()))
            .collect();
        serde_json::json!({
            "source": {
                "url": git.map(|git| &git.url),
                "dir": git.map(|git| &git.dir),
                "revision": git.map(|git| &git.commit),
                "lockHash": spec.source.lock_hash,
                "pathsHash": spec.source.paths_hash,
            },
            "flake": spec.flake,
            "output": output,
            "platforms": platforms,
            "build": {
                "substituters": spec.build.substituters,
                "trustedPublicKeys": spec.build.trusted_public_keys,
            },
        })
    };
    let mut found = Vec::new();
    differences("", &view(before), &view(now), &mut found);
    found.truncate(CHANGES_MAX);
    found
}

fn differences(path: &str, old: &Value, new: &Value, found: &mut Vec<Change>) {
    if old == new {
        return;
    }
    if let (Some(old), Some(new)) = (fields(old), fields(new)) {
        let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        for key in keys {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            let at = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
            differences(&path, &at(&old), &at(&new), found);
        }
        return;
    }
    let reason = match path {
        "source.revision" => BuildReason::Revision,
        "source.lockHash" | "source.pathsHash" => BuildReason::LockFile,
        _ => BuildReason::Config,
    };
    found.push(Change {
        reason: reason.to_string(),
        field: Some(first_bytes(path, 256).to_owned()),
        old: text(old),
        new: text(new),
    });
}

/// The fields of a map; one that is empty is not written, and is a map all the same.
fn fields(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map.clone()),
        Value::Null => Some(Map::new()),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(first_bytes(&text, VALUE_MAX).to_owned())
}
