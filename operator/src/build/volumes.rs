//! The volumes of a build pod and who mounts which, as the table in `firn_crd::pod` says: one
//! volume per producer, read-only elsewhere, and a secret only where it is used. Pure.

use firn_crd::exit::Container;
use firn_crd::names::ANNOTATION_CLUSTER_CA;
use firn_crd::pod;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource,
    EphemeralVolumeSource, KeyToPath, ObjectFieldSelector, PersistentVolumeClaimSpec,
    PersistentVolumeClaimTemplate, SecretVolumeSource, Volume, VolumeMount,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// File name of CA certificates in every CA folder.
pub const CA_FILE: &str = "ca.crt";
/// Files of secrets are readable by the pod's group, which only the container that mounts the
/// volume can make use of.
const SECRET_MODE: i32 = 0o440;
/// `/tmp` of a container that does little but talk.
const SMALL_TMP: &str = "256Mi";

/// What differs from build to build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volumes {
    /// The store.
    pub store: Store,
    /// Secret with the source's credentials.
    pub source_secret: Option<String>,
    /// CA certificates for the git server.
    pub source_ca: Option<Bundle>,
    /// Secret with the registry's credentials, of the kind `kubernetes.io/dockerconfigjson`.
    pub push_secret: Option<String>,
    /// Secret with logins for base images, of the same kind.
    pub base_secret: Option<String>,
    /// CA certificates for the registries of base images.
    pub base_ca: Option<Bundle>,
    /// CA certificates for the registry.
    pub push_ca: Option<Bundle>,
    /// CA certificates for substituters.
    pub substituter_ca: Option<Bundle>,
    /// Whether the pod's annotation holds CA certificates for everything.
    pub cluster_ca: bool,
}

/// What `/nix` is kept on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Store {
    /// Largest size; `None`: as much as the node has.
    pub size: Option<String>,
    /// A volume of this class, made and deleted with the pod; `None`: the node's own disk.
    pub storage_class: Option<String>,
}

/// A ConfigMap's key with PEM certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Name of the ConfigMap.
    pub config_map: String,
    /// Its key.
    pub key: String,
}

/// One volume and its mounts.
struct Part {
    volume: Volume,
    path: &'static str,
    writers: &'static [Container],
    readers: &'static [Container],
    /// Of use in pods with this container only.
    beside: Option<Container>,
}

use Container::{Build, Check, Fetch, Push};

impl Volumes {
    /// The volumes that a pod of these containers needs.
    pub fn volumes(&self, containers: &[Container]) -> Vec<Volume> {
        self.parts()
            .into_iter()
            .filter(|part| part.is_filled(containers))
            .filter(|part| containers.iter().any(|container| part.has(*container)))
            .map(|part| part.volume)
            .chain(containers.iter().map(|container| tmp(*container)))
            .collect()
    }

    /// What one container of a pod of these containers mounts.
    pub fn mounts(&self, container: Container, containers: &[Container]) -> Vec<VolumeMount> {
        self.parts()
            .into_iter()
            .filter(|part| part.is_filled(containers) && part.has(container))
            .map(|part| {
                mount(
                    &part.volume.name,
                    part.path,
                    !part.writers.contains(&container),
                )
            })
            .chain([mount(&tmp_name(container), "/tmp", false)])
            .collect()
    }

    fn parts(&self) -> Vec<Part> {
        let work = vec![
            part(self.store.volume(), pod::NIX, &[Fetch, Build], &[Push]),
            part(
                scratch("source", None),
                pod::SOURCE,
                &[Fetch],
                &[Build, Push],
            ),
            part(
                scratch("check", Some("16Mi")),
                pod::CHECK,
                &[Check],
                &[Build, Push],
            ),
            part(scratch("handoff", None), pod::HANDOFF, &[Build], &[Push]),
        ];
        let given = vec![
            self.source_secret.as_deref().map(|name| {
                part(
                    secret("source-secret", name, None),
                    pod::SOURCE_SECRET,
                    &[],
                    &[Fetch],
                )
            }),
            self.push_secret.as_deref().map(|name| {
                let config = (".dockerconfigjson", "config.json");
                part(
                    secret("push-secret", name, Some(config)),
                    pod::PUSH_SECRET,
                    &[],
                    &[Check, Push],
                )
            }),
            self.base_secret.as_deref().map(|name| {
                let config = (".dockerconfigjson", "config.json");
                Part {
                    // A pod that only publishes makes no image.
                    beside: Some(Build),
                    ..part(
                        secret("base-secret", name, Some(config)),
                        pod::BASE_SECRET,
                        &[],
                        &[Push],
                    )
                }
            }),
            self.base_ca.as_ref().map(|ca| Part {
                beside: Some(Build),
                ..part(bundle("base-ca", ca), pod::BASE_CA, &[], &[Push])
            }),
            self.source_ca
                .as_ref()
                .map(|ca| part(bundle("source-ca", ca), pod::SOURCE_CA, &[], &[Fetch])),
            self.push_ca
                .as_ref()
                .map(|ca| part(bundle("push-ca", ca), pod::PUSH_CA, &[], &[Check, Push])),
            self.substituter_ca.as_ref().map(|ca| {
                part(
                    bundle("substituter-ca", ca),
                    pod::SUBSTITUTER_CA,
                    &[],
                    &[Fetch, Build],
                )
            }),
            self.cluster_ca.then(|| {
                part(
                    cluster_ca(),
                    pod::CLUSTER_CA,
                    &[],
                    &[Check, Fetch, Build, Push],
                )
            }),
        ];
        work.into_iter()
            .chain(given.into_iter().flatten())
            .collect()
    }
}

impl Part {
    /// Whether it is given, or a container of the pod writes it: a pod that only publishes has no
    /// store and no hand-off.
    fn is_filled(&self, containers: &[Container]) -> bool {
        if self
            .beside
            .is_some_and(|other| !containers.contains(&other))
        {
            return false;
        }
        self.writers.is_empty()
            || self
                .writers
                .iter()
                .any(|writer| containers.contains(writer))
    }

    fn has(&self, container: Container) -> bool {
        self.writers.contains(&container) || self.readers.contains(&container)
    }
}

impl Store {
    fn volume(&self) -> Volume {
        let Some(class) = &self.storage_class else {
            return scratch("nix", self.size.as_deref());
        };
        Volume {
            name: "nix".into(),
            ephemeral: Some(EphemeralVolumeSource {
                volume_claim_template: Some(PersistentVolumeClaimTemplate {
                    metadata: None,
                    spec: PersistentVolumeClaimSpec {
                        access_modes: Some(vec!["ReadWriteOnce".into()]),
                        storage_class_name: Some(class.clone()),
                        resources: Some(VolumeResourceRequirements {
                            requests: self
                                .size
                                .clone()
                                .map(|size| [("storage".to_owned(), Quantity(size))].into()),
                            limits: None,
                        }),
                        ..PersistentVolumeClaimSpec::default()
                    },
                }),
            }),
            ..Volume::default()
        }
    }
}

const fn part(
    volume: Volume,
    path: &'static str,
    writers: &'static [Container],
    readers: &'static [Container],
) -> Part {
    Part {
        volume,
        path,
        writers,
        readers,
        beside: None,
    }
}

fn scratch(name: &str, limit: Option<&str>) -> Volume {
    Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: None,
            size_limit: limit.map(|limit| Quantity(limit.into())),
        }),
        ..Volume::default()
    }
}

fn tmp_name(container: Container) -> String {
    format!("tmp-{container}")
}

/// Nix builds in `/tmp`: as large as the node's disk. The others need little.
fn tmp(container: Container) -> Volume {
    let limit = match container {
        Check => Some(SMALL_TMP),
        Fetch | Build | Push => None,
    };
    scratch(&tmp_name(container), limit)
}

fn secret(volume: &str, name: &str, item: Option<(&str, &str)>) -> Volume {
    Volume {
        name: volume.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(name.into()),
            default_mode: Some(SECRET_MODE),
            items: item.map(|(key, path)| vec![key_to_path(key, path)]),
            optional: None,
        }),
        ..Volume::default()
    }
}

fn bundle(volume: &str, ca: &Bundle) -> Volume {
    Volume {
        name: volume.into(),
        config_map: Some(ConfigMapVolumeSource {
            name: ca.config_map.clone(),
            items: Some(vec![key_to_path(&ca.key, CA_FILE)]),
            default_mode: None,
            optional: None,
        }),
        ..Volume::default()
    }
}

fn cluster_ca() -> Volume {
    Volume {
        name: "cluster-ca".into(),
        downward_api: Some(DownwardAPIVolumeSource {
            default_mode: None,
            items: Some(vec![DownwardAPIVolumeFile {
                path: CA_FILE.into(),
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".into()),
                    field_path: format!("metadata.annotations['{ANNOTATION_CLUSTER_CA}']"),
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
        }),
        ..Volume::default()
    }
}

fn key_to_path(key: &str, path: &str) -> KeyToPath {
    KeyToPath {
        key: key.into(),
        path: path.into(),
        mode: None,
    }
}

fn mount(volume: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    fn all() -> Volumes {
        let bundle = |name: &str| {
            Some(Bundle {
                config_map: name.into(),
                key: "bundle.pem".into(),
            })
        };
        Volumes {
            store: Store::default(),
            source_secret: Some("git-token".into()),
            source_ca: bundle("git-ca"),
            push_secret: Some("registry-login".into()),
            base_secret: Some("base-login".into()),
            base_ca: bundle("base-ca"),
            push_ca: bundle("registry-ca"),
            substituter_ca: bundle("cache-ca"),
            cluster_ca: true,
        }
    }

    fn mounted(container: Container) -> Vec<String> {
        all()
            .mounts(container, &Container::iter().collect::<Vec<_>>())
            .into_iter()
            .map(|mount| {
                let mode = if mount.read_only == Some(true) {
                    "ro"
                } else {
                    "rw"
                };
                format!("{} {mode}", mount.name)
            })
            .collect()
    }

    #[test]
    fn each_container_mounts_what_the_table_says() {
        assert_eq!(
            mounted(Check),
            [
                "check rw",
                "push-secret ro",
                "push-ca ro",
                "cluster-ca ro",
                "tmp-check rw"
            ]
        );
        assert_eq!(
            mounted(Fetch),
            [
                "nix rw",
                "source rw",
                "source-secret ro",
                "source-ca ro",
                "substituter-ca ro",
                "cluster-ca ro",
                "tmp-fetch rw"
            ]
        );
        assert_eq!(
            mounted(Build),
            [
                "nix rw",
                "source ro",
                "check ro",
                "handoff rw",
                "substituter-ca ro",
                "cluster-ca ro",
                "tmp-build rw"
            ]
        );
        assert_eq!(
            mounted(Push),
            [
                "nix ro",
                "source ro",
                "check ro",
                "handoff ro",
                "push-secret ro",
                "base-secret ro",
                "base-ca ro",
                "push-ca ro",
                "cluster-ca ro",
                "tmp-push rw"
            ]
        );
    }

    #[test]
    fn build_holds_no_secret() {
        let containers: Vec<_> = Container::iter().collect();
        let volumes = all().volumes(&containers);
        for mount in all().mounts(Build, &containers) {
            let volume = volumes
                .iter()
                .find(|volume| volume.name == mount.name)
                .unwrap();
            assert_eq!(volume.secret, None, "{}", mount.name);
        }
    }

    #[test]
    fn a_pod_that_only_publishes_reads_no_base_image() {
        let volumes = all().volumes(&[Push]);
        let of_base = |volume: &Volume| volume.name.starts_with("base-");
        assert!(!volumes.iter().any(of_base));
        assert!(volumes.iter().any(|volume| volume.name == "push-secret"));
    }

    #[test]
    fn every_mount_has_its_volume_and_every_volume_a_mount() {
        for containers in [Container::iter().collect::<Vec<_>>(), vec![Push]] {
            let mut volumes: Vec<_> = all()
                .volumes(&containers)
                .into_iter()
                .map(|v| v.name)
                .collect();
            let mut mounts: Vec<_> = containers
                .iter()
                .flat_map(|container| all().mounts(*container, &containers))
                .map(|m| m.name)
                .collect();
            volumes.sort();
            mounts.sort();
            mounts.dedup();
            assert_eq!(volumes, mounts);
        }
    }
}
