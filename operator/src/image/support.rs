//! What this version does not do yet, and what the operator does not allow. The API may be ahead of
//! the code only where its defaults mean "off": a spec that asks for more is refused with the
//! field's name. A test walks every leaf of the schema and finds it in [`HONOURED`] or in
//! [`NOT_YET`], never in both. Pure.

use firn_crd::NixImageSpec;
use firn_crd::build_spec::{Isolation, StoreType};
use firn_crd::cache::CacheMode;
use firn_crd::exit::Reason;
use firn_crd::policy::DeletionPolicy;
use firn_crd::signing::{SbomFormat, SignatureFormat, SigningMode};

use crate::settings::Allowed;

/// A leaf of the schema, and what shows that it is honoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Honoured {
    /// Path under `spec`.
    pub path: &'static str,
    /// Module whose tests show it.
    pub by: &'static str,
}

/// A leaf of the schema that is refused unless it has its default.
pub struct NotYet {
    /// Path under `spec`.
    pub path: &'static str,
    /// The value that is asked for, if it is more than the default.
    asked: fn(&NixImageSpec) -> Option<String>,
    /// What to do instead.
    remedy: &'static str,
}

impl std::fmt::Debug for NotYet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NotYet")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Why a spec cannot be followed: the reason, and the field, the value and the remedy.
pub fn refusal(spec: &NixImageSpec, allowed: &Allowed) -> Option<(Reason, String)> {
    not_yet(spec)
        .map(|message| (Reason::NotSupported, message))
        .or_else(|| not_allowed(spec, allowed))
}

/// The first thing that this version does not do yet.
fn not_yet(spec: &NixImageSpec) -> Option<String> {
    NOT_YET.iter().find_map(|leaf| {
        let value = (leaf.asked)(spec)?;
        let NotYet { path, remedy, .. } = leaf;
        Some(format!(
            "spec.{path}: {value} is not supported yet: {remedy}"
        ))
    })
}

fn not_allowed(spec: &NixImageSpec, allowed: &Allowed) -> Option<(Reason, String)> {
    let output = &spec.output;
    let host = output.repository.split('/').next().unwrap_or_default();
    let plain = output.plain_http.then_some(("plainHTTP", host));
    let bases = output.base_plain_http_hosts.iter();
    let plain = plain
        .into_iter()
        .chain(bases.map(|host| ("basePlainHTTPHosts", host.as_str())));
    for (field, host) in plain {
        if !allowed.plain_http_hosts.contains(host) {
            return Some((
                Reason::RegistryNotAllowed,
                format!(
                    "spec.output.{field}: the operator does not allow plain HTTP to {host:?}: \
                     use https, or ask for the host in the operator's list of plain HTTP hosts"
                ),
            ));
        }
    }
    let substituter = spec.build.substituters.iter().find(|url| {
        !allowed.default_substituters.contains(url) && !allowed.substituters.permits(url)
    });
    if let Some(url) = substituter {
        return Some((
            Reason::TrustNotAllowed,
            format!(
                "spec.build.substituters: the operator does not allow {url:?}: leave it out, or ask \
                 for it in the operator's list of allowed substituters"
            ),
        ));
    }
    let key = spec.build.trusted_public_keys.iter().find(|key| {
        !allowed.default_public_keys.contains(key) && !allowed.public_keys.permits(key)
    })?;
    Some((
        Reason::TrustNotAllowed,
        format!(
            "spec.build.trustedPublicKeys: the operator does not allow {key:?}: leave it out, or \
             ask for it in the operator's list of allowed keys"
        ),
    ))
}

/// `Some(text)` if it is so.
fn when(is_so: bool, text: &str) -> Option<String> {
    is_so.then(|| text.to_owned())
}

fn unless_default<T: Default + PartialEq + std::fmt::Display>(value: &T) -> Option<String> {
    (*value != T::default()).then(|| value.to_string())
}

/// Leaves that are refused unless they have their default.
pub const NOT_YET: &[NotYet] = &[
    NotYet {
        path: "source.oci.image",
        asked: |spec| {
            spec.source
                .oci
                .as_ref()
                .map(|oci| format!("{:?}", oci.image))
        },
        remedy: "use source.git",
    },
    oci("source.oci.dir"),
    oci("source.oci.pullSecretRef.name"),
    oci("source.oci.caConfigMapRef.name"),
    oci("source.oci.caConfigMapRef.key"),
    oci("source.oci.interval"),
    NotYet {
        path: "flake.acceptFlakeConfig",
        asked: |spec| when(spec.flake.accept_flake_config, "true"),
        remedy: "name substituters and keys in spec.build",
    },
    NotYet {
        path: "build.isolation",
        asked: |spec| {
            let isolation = spec.build.isolation?;
            (isolation != Isolation::Restricted).then(|| isolation.to_string())
        },
        remedy: "use Restricted",
    },
    NotYet {
        path: "build.remoteBuilder.address",
        asked: |spec| {
            spec.build
                .remote_builder
                .as_ref()
                .map(|remote| format!("{:?}", remote.address))
        },
        remedy: "leave it out",
    },
    NotYet {
        path: "build.remoteBuilder.tlsSecretRef.name",
        asked: |spec| {
            let secret = spec
                .build
                .remote_builder
                .as_ref()?
                .tls_secret_ref
                .as_ref()?;
            Some(format!("{:?}", secret.name))
        },
        remedy: "leave it out",
    },
    NotYet {
        path: "build.store.type",
        asked: |spec| unless_default::<StoreType>(&spec.build.store.kind),
        remedy: "use Ephemeral, with storageClassName and size if the node's disk is too small",
    },
    NotYet {
        path: "build.store.claimName",
        asked: |spec| {
            spec.build
                .store
                .claim_name
                .as_ref()
                .map(|name| format!("{name:?}"))
        },
        remedy: "use storageClassName and size",
    },
    NotYet {
        path: "build.netrcSecretRef.name",
        asked: |spec| {
            spec.build
                .netrc_secret_ref
                .as_ref()
                .map(|secret| format!("{:?}", secret.name))
        },
        remedy: "use substituters that need no credentials",
    },
    NotYet {
        path: "cache.mode",
        asked: |spec| unless_default::<CacheMode>(&spec.cache.mode),
        remedy: "use Disabled",
    },
    NotYet {
        path: "cache.repository",
        asked: |spec| {
            spec.cache
                .repository
                .as_ref()
                .map(|name| format!("{name:?}"))
        },
        remedy: "leave it out",
    },
    NotYet {
        path: "cache.secretRef.name",
        asked: |spec| {
            spec.cache
                .secret_ref
                .as_ref()
                .map(|secret| format!("{:?}", secret.name))
        },
        remedy: "leave it out",
    },
    NotYet {
        path: "signing.mode",
        asked: |spec| unless_default::<SigningMode>(&spec.signing.mode),
        remedy: "use None, and sign the digest in status with a tool of your own",
    },
    NotYet {
        path: "signing.keySecretRef.name",
        asked: |spec| {
            spec.signing
                .key_secret_ref
                .as_ref()
                .map(|secret| format!("{:?}", secret.name))
        },
        remedy: "leave it out",
    },
    keyless("signing.keyless.fulcioURL"),
    keyless("signing.keyless.rekorURL"),
    keyless("signing.keyless.audience"),
    NotYet {
        path: "signing.format",
        asked: |spec| unless_default::<SignatureFormat>(&spec.signing.format),
        remedy: "leave it out",
    },
    NotYet {
        path: "signing.annotations",
        asked: |spec| when(!spec.signing.annotations.is_empty(), "a map"),
        remedy: "leave it out",
    },
    NotYet {
        path: "attestations.provenance",
        asked: |spec| when(spec.attestations.provenance, "true"),
        remedy: "leave it out",
    },
    NotYet {
        path: "attestations.sbom",
        asked: |spec| unless_default::<SbomFormat>(&spec.attestations.sbom),
        remedy: "use None",
    },
    NotYet {
        path: "deletionPolicy",
        asked: |spec| unless_default::<DeletionPolicy>(&spec.deletion_policy),
        remedy: "use Retain, and delete the image in the registry",
    },
    NotYet {
        path: "build.substituters",
        asked: |spec| {
            let url = spec
                .build
                .substituters
                .iter()
                .find(|url| url.starts_with("s3://"))?;
            Some(format!("{url:?}"))
        },
        remedy: "use an http:// or https:// URL",
    },
];

/// Leaves of which some values are refused and the others honoured: in both lists.
pub const PARTLY: &[&str] = &["build.substituters"];

const fn oci(path: &'static str) -> NotYet {
    NotYet {
        path,
        asked: |spec| when(spec.source.oci.is_some(), "a source.oci"),
        remedy: "use source.git",
    }
}

const fn keyless(path: &'static str) -> NotYet {
    NotYet {
        path,
        asked: |spec| when(spec.signing.keyless.is_some(), "signing without a key"),
        remedy: "leave it out",
    }
}

const fn honoured(path: &'static str, by: &'static str) -> Honoured {
    Honoured { path, by }
}

/// Leaves that are honoured.
pub const HONOURED: &[Honoured] = &[
    honoured("suspend", "image::tests"),
    honoured("source.git.url", "source::remote"),
    honoured("source.git.ref.branch", "image::observe"),
    honoured("source.git.ref.tag", "image::observe"),
    honoured("source.git.ref.semver", "source::semver"),
    honoured("source.git.ref.commit", "image::observe"),
    honoured("source.git.dir", "build::order"),
    honoured("source.git.submodules", "build::order"),
    honoured("source.git.secretRef.name", "build::order"),
    honoured("source.git.caConfigMapRef.name", "build::order"),
    honoured("source.git.caConfigMapRef.key", "build::order"),
    honoured("source.git.webhook.secretRef.name", "hooks"),
    honoured("source.git.interval", "image::observe"),
    honoured("source.git.timeout", "image::observe"),
    honoured("flake.attribute", "build::order"),
    honoured("trigger.mode", "image::tests"),
    honoured("runPolicy", "image::tests"),
    honoured("trigger.paths", "image::observe"),
    honoured("output.repository", "build::order"),
    honoured("output.tags", "image::tests"),
    honoured("output.tagPolicy", "build::order"),
    honoured("output.pushSecretRef.name", "build::order"),
    honoured("output.basePullSecretRef.name", "build::order"),
    honoured("output.baseCAConfigMapRef.name", "build::order"),
    honoured("output.baseCAConfigMapRef.key", "build::order"),
    honoured("output.basePlainHTTPHosts", "build::order"),
    honoured("output.caConfigMapRef.name", "build::order"),
    honoured("output.caConfigMapRef.key", "build::order"),
    honoured("output.plainHTTP", "build::order"),
    honoured("output.platforms.platform", "build::tests::platforms"),
    honoured("output.platforms.attribute", "build::order"),
    honoured("output.platforms.nodeSelector", "build::order"),
    honoured("output.platforms.resources.requests", "build::order"),
    honoured("output.platforms.resources.limits", "build::order"),
    honoured("output.labels", "build::order"),
    honoured("output.annotations", "build::order"),
    honoured("output.timestamp", "build::order"),
    honoured("output.layers.max", "build::order"),
    honoured("output.layers.compression", "build::order"),
    honoured("output.layers.level", "build::order"),
    honoured("output.layers.headRoom", "build::order"),
    honoured("output.layers.strategy", "build::order"),
    honoured("output.layers.profile", "build::order"),
    honoured("output.config.entrypoint", "build::order"),
    honoured("output.config.cmd", "build::order"),
    honoured("output.config.env.name", "build::order"),
    honoured("output.config.env.value", "build::order"),
    honoured("output.config.user", "build::order"),
    honoured("output.config.workingDir", "build::order"),
    honoured("output.config.exposedPorts", "build::order"),
    honoured("output.config.volumes", "build::order"),
    honoured("output.config.stopSignal", "build::order"),
    honoured("output.config.healthcheck.test", "build::order"),
    honoured("output.config.healthcheck.interval", "build::order"),
    honoured("output.config.healthcheck.timeout", "build::order"),
    honoured("output.config.healthcheck.startPeriod", "build::order"),
    honoured("output.config.healthcheck.startInterval", "build::order"),
    honoured("output.config.healthcheck.retries", "build::order"),
    honoured("output.files.tmp", "build::order"),
    honoured("output.files.caCertificates", "build::order"),
    honoured("output.files.users.name", "build::order"),
    honoured("output.files.users.uid", "build::order"),
    honoured("output.files.users.gid", "build::order"),
    honoured("output.files.users.home", "build::order"),
    honoured("output.files.users.shell", "build::order"),
    honoured("output.files.copyToRoot", "build::order"),
    honoured("output.files.binSh", "build::order"),
    honoured("output.files.usrBinEnv", "build::order"),
    honoured("build.timeout", "build::order"),
    honoured("build.pendingTimeout", "build::tests"),
    honoured("build.retries", "image::tests"),
    honoured("build.resources.requests", "build::order"),
    honoured("build.resources.limits", "build::order"),
    honoured("build.runtimeClassName", "build::order"),
    honoured("build.priorityClassName", "build::order"),
    honoured("build.queueName", "build::tests"),
    honoured("build.nodeSelector", "build::order"),
    honoured("build.tolerations", "build::order"),
    honoured("build.affinity", "build::order"),
    honoured("build.store.storageClassName", "build::order"),
    honoured("build.store.size", "build::order"),
    honoured("build.substituters", "build::order"),
    honoured("build.trustedPublicKeys", "build::order"),
    honoured("build.caConfigMapRef.name", "build::order"),
    honoured("build.caConfigMapRef.key", "build::order"),
    honoured("history.succeeded", "history"),
    honoured("history.failed", "history"),
    honoured("history.ttlAfterFinished", "history"),
    honoured("verification.interval", "registry::checker"),
    honoured("verification.onDrift", "image::tests::drift"),
];

#[cfg(test)]
mod tests;
