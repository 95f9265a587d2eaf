//! Which fields of a spec change the image, which move tags only, and which wait for the next
//! build; with the hashes that tell. Pure.
//!
//! A field that has its default is not part of a hash. So a later version may add fields without
//! every image being built again after an upgrade; and every struct is taken apart without `..`,
//! so that a field nobody thought about does not compile.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::build_spec::{BuildSpec, Store};
use crate::container::Container;
use crate::files::Files;
use crate::flake::Flake;
use crate::image::NixImageSpec;
use crate::output::{Layers, Output, Platform};
use crate::signing::{Attestations, Signing};
use crate::source::{GitSource, OciSource, Source};

/// Some fields of a spec, by path, with the values that are not their defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(BTreeMap<&'static str, Value>);

/// Hash of [`image_fields`]: another one means another image.
pub fn build_hash(spec: &NixImageSpec) -> String {
    image_fields(spec).hash()
}

/// Hash of [`tag_fields`]: another one means that tags have to move.
pub fn tags_hash(spec: &NixImageSpec) -> String {
    tag_fields(spec).hash()
}

/// The fields that change the image, or where it goes.
///
/// The key that signs is one of them though it is the name of a Secret: another key makes another
/// signature. Other Secrets only open doors.
pub fn image_fields(spec: &NixImageSpec) -> Fields {
    let NixImageSpec {
        source,
        flake,
        output,
        build,
        signing,
        attestations,
        // These say when and how often something is done, not what.
        suspend: _,
        trigger: _,
        cache: _,
        run_policy: _,
        history: _,
        verification: _,
        deletion_policy: _,
    } = spec;
    let mut fields = Fields::default();
    put_source(&mut fields, source);
    put_flake(&mut fields, flake);
    put_output(&mut fields, output);
    put_build(&mut fields, build);
    put_signing(&mut fields, signing);
    put_attestations(&mut fields, attestations);
    fields
}

/// The fields that change tags only.
pub fn tag_fields(spec: &NixImageSpec) -> Fields {
    let blank = Output::new("");
    let mut fields = Fields::default();
    // A set: the order is nothing.
    fields.put(
        "output.tags",
        &sorted(&spec.output.tags),
        &sorted(&blank.tags),
    );
    fields.put(
        "output.tagPolicy",
        &spec.output.tag_policy,
        &blank.tag_policy,
    );
    fields
}

fn put_source(fields: &mut Fields, source: &Source) {
    let Source { git, oci } = source;
    if let Some(git) = git {
        let GitSource {
            url,
            reference,
            dir,
            submodules,
            secret_ref: _,
            ca_config_map_ref: _,
            webhook: _,
            interval: _,
            timeout: _,
        } = git;
        let blank = GitSource::new("");
        fields.put("source.git.url", url, &blank.url);
        fields.put("source.git.ref", reference, &blank.reference);
        fields.put("source.git.dir", dir, &blank.dir);
        fields.put("source.git.submodules", submodules, &blank.submodules);
    }
    if let Some(oci) = oci {
        let OciSource {
            image,
            dir,
            pull_secret_ref: _,
            ca_config_map_ref: _,
            interval: _,
        } = oci;
        fields.put("source.oci.image", image, &String::new());
        fields.put("source.oci.dir", dir, &crate::source::root());
    }
}

fn put_flake(fields: &mut Fields, flake: &Flake) {
    let Flake {
        attribute,
        accept_flake_config,
    } = flake;
    let blank = Flake::default();
    fields.put("flake.attribute", attribute, &blank.attribute);
    fields.put(
        "flake.acceptFlakeConfig",
        accept_flake_config,
        &blank.accept_flake_config,
    );
}

fn put_output(fields: &mut Fields, output: &Output) {
    let Output {
        repository,
        platforms,
        labels,
        annotations,
        timestamp,
        layers,
        config,
        files,
        // Of their own hash.
        tags: _,
        tag_policy: _,
        push_secret_ref: _,
        base_pull_secret_ref: _,
        base_ca_config_map_ref: _,
        base_plain_http_hosts: _,
        ca_config_map_ref: _,
        plain_http: _,
    } = output;
    let blank = Output::new("");
    fields.put("output.repository", repository, &blank.repository);
    fields.put(
        "output.platforms",
        &built(platforms),
        &built(&blank.platforms),
    );
    fields.put("output.labels", labels, &blank.labels);
    fields.put("output.annotations", annotations, &blank.annotations);
    fields.put("output.timestamp", timestamp, &blank.timestamp);
    let Layers {
        max,
        head_room,
        strategy,
        compression,
        level,
        profile,
    } = layers;
    fields.put("output.layers.max", max, &blank.layers.max);
    fields.put("output.layers.headRoom", head_room, &blank.layers.head_room);
    fields.put("output.layers.strategy", strategy, &blank.layers.strategy);
    fields.put(
        "output.layers.compression",
        compression,
        &blank.layers.compression,
    );
    fields.put("output.layers.level", level, &blank.layers.level);
    fields.put("output.layers.profile", profile, &blank.layers.profile);
    put_container(fields, config);
    put_files(fields, files);
}

fn put_container(fields: &mut Fields, config: &Container) {
    let Container {
        entrypoint,
        cmd,
        env: _,
        user,
        working_dir,
        exposed_ports,
        volumes,
        stop_signal,
        healthcheck,
    } = config;
    let blank = Container::default();
    fields.put("output.config.entrypoint", entrypoint, &blank.entrypoint);
    fields.put("output.config.cmd", cmd, &blank.cmd);
    // A map: the order of variables is nothing.
    fields.put("output.config.env", &config.variables(), &blank.variables());
    fields.put("output.config.user", user, &blank.user);
    fields.put("output.config.workingDir", working_dir, &blank.working_dir);
    fields.put(
        "output.config.exposedPorts",
        &sorted(exposed_ports),
        &blank.exposed_ports,
    );
    fields.put("output.config.volumes", &sorted(volumes), &blank.volumes);
    fields.put("output.config.stopSignal", stop_signal, &blank.stop_signal);
    fields.put("output.config.healthcheck", healthcheck, &blank.healthcheck);
}

fn put_files(fields: &mut Fields, files: &Files) {
    let Files {
        tmp,
        ca_certificates,
        users,
        copy_to_root,
        bin_sh,
        usr_bin_env,
    } = files;
    let blank = Files::default();
    fields.put("output.files.tmp", tmp, &blank.tmp);
    fields.put(
        "output.files.caCertificates",
        ca_certificates,
        &blank.ca_certificates,
    );
    fields.put("output.files.users", users, &blank.users);
    fields.put("output.files.copyToRoot", copy_to_root, &blank.copy_to_root);
    fields.put("output.files.binSh", bin_sh, &blank.bin_sh);
    fields.put("output.files.usrBinEnv", usr_bin_env, &blank.usr_bin_env);
}

/// What is built for which platform. A map: the order of platforms is nothing.
fn built(platforms: &[Platform]) -> BTreeMap<&'static str, Option<&str>> {
    platforms
        .iter()
        .map(|platform| {
            let Platform {
                platform: name,
                attribute,
                // Where and with how much.
                node_selector: _,
                resources: _,
            } = platform;
            (name.as_str(), attribute.as_deref())
        })
        .collect()
}

fn put_build(fields: &mut Fields, build: &BuildSpec) {
    let BuildSpec {
        store,
        substituters,
        trusted_public_keys,
        // Where, how long and with how much.
        isolation: _,
        remote_builder: _,
        timeout: _,
        pending_timeout: _,
        retries: _,
        resources: _,
        runtime_class_name: _,
        priority_class_name: _,
        queue_name: _,
        node_selector: _,
        tolerations: _,
        affinity: _,
        netrc_secret_ref: _,
        ca_config_map_ref: _,
    } = build;
    let Store {
        kind,
        claim_name: _,
        storage_class_name: _,
        size: _,
    } = store;
    let blank = BuildSpec::default();
    fields.put("build.store.type", kind, &blank.store.kind);
    fields.put("build.substituters", substituters, &blank.substituters);
    fields.put(
        "build.trustedPublicKeys",
        &sorted(trusted_public_keys),
        &blank.trusted_public_keys,
    );
}

fn put_signing(fields: &mut Fields, signing: &Signing) {
    let Signing {
        mode,
        key_secret_ref,
        keyless,
        format,
        annotations,
    } = signing;
    let blank = Signing::default();
    fields.put("signing.mode", mode, &blank.mode);
    fields.put(
        "signing.keySecretRef",
        key_secret_ref,
        &blank.key_secret_ref,
    );
    fields.put("signing.keyless", keyless, &blank.keyless);
    fields.put("signing.format", format, &blank.format);
    fields.put("signing.annotations", annotations, &blank.annotations);
}

fn put_attestations(fields: &mut Fields, attestations: &Attestations) {
    let Attestations { provenance, sbom } = attestations;
    let blank = Attestations::default();
    fields.put("attestations.provenance", provenance, &blank.provenance);
    fields.put("attestations.sbom", sbom, &blank.sbom);
}

fn sorted(items: &[String]) -> Vec<String> {
    let mut items = items.to_vec();
    items.sort();
    items
}

impl Fields {
    fn put<T: Serialize + PartialEq>(&mut self, path: &'static str, value: &T, default: &T) {
        if value != default {
            self.0.insert(path, json!(value));
        }
    }

    /// sha256 in hex, of a form whose bytes depend on nothing but the values.
    pub fn hash(&self) -> String {
        let mut text = String::new();
        for (path, value) in &self.0 {
            text.push_str(path);
            text.push('=');
            write_canonical(value, &mut text);
            text.push('\n');
        }
        let digest = Sha256::digest(text.as_bytes());
        let bytes: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        bytes.concat()
    }
}

/// JSON with sorted keys: whether `serde_json` keeps their order is a feature that any other crate
/// may switch on.
fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let entries: BTreeMap<&String, &Value> = map.iter().collect();
            text.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use crate::output::PlatformName;

    use super::*;

    fn spec() -> NixImageSpec {
        let source = Source {
            git: Some(GitSource::new("https://git.example.com/web")),
            oci: None,
        };
        NixImageSpec::new(source, Output::new("registry.example.com/web"))
    }

    fn platforms(names: &[PlatformName]) -> NixImageSpec {
        let mut spec = spec();
        let platform = |name: &PlatformName| Platform {
            platform: *name,
            ..Platform::default()
        };
        spec.output.platforms = names.iter().map(platform).collect();
        spec
    }

    #[test]
    fn the_hash_of_a_spec_stays_what_it_is() {
        // Another value here builds every image of every user again after an upgrade.
        assert_eq!(
            build_hash(&spec()),
            "d1b3efcdac502334244c1a1289ac9234bfab1ea18e8a60c374f08d8092434fad"
        );
        assert_eq!(
            tags_hash(&spec()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn order_is_nothing_where_the_schema_says_so() {
        use PlatformName::{LinuxAmd64, LinuxArm64};
        assert_eq!(
            build_hash(&platforms(&[LinuxAmd64, LinuxArm64])),
            build_hash(&platforms(&[LinuxArm64, LinuxAmd64]))
        );
        let mut one = spec();
        one.output.tags = vec!["a".into(), "b".into()];
        let mut other = spec();
        other.output.tags = vec!["b".into(), "a".into()];
        assert_eq!(tags_hash(&one), tags_hash(&other));

        one.build.substituters = vec!["https://a".into(), "https://b".into()];
        other.build.substituters = vec!["https://b".into(), "https://a".into()];
        assert_ne!(build_hash(&one), build_hash(&other));
    }

    #[test]
    fn a_default_among_others_is_not_lost() {
        use PlatformName::{LinuxAmd64, LinuxArm64};
        assert_ne!(
            build_hash(&platforms(&[LinuxAmd64, LinuxArm64])),
            build_hash(&platforms(&[LinuxArm64]))
        );
    }
}
