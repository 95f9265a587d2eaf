//! From [`Args`] to [`Settings`]: the checks that need more than one flag, or a file.

use std::path::{Path, PathBuf};

use firn_crd::pod::CLUSTER_CA_MAX;

use super::{
    Allowed, AllowedArgs, Args, Limits, Network, NetworkArgs, Permitted, PodArgs, Pods, Proxies,
    Resources, Settings, Watch,
};

/// Why settings cannot be used. For whoever starts the operator.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The CA file cannot be read.
    #[error(
        "failed to read --ca-file {path:?}: mount the ConfigMap with the CA certificates there, or leave the flag out"
    )]
    ReadCaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The CA file holds no certificate.
    #[error("--ca-file {path:?} holds no PEM certificate (no \"-----BEGIN CERTIFICATE-----\")")]
    EmptyCaFile {
        /// The file.
        path: PathBuf,
    },
    /// The CA file is longer than a build pod can carry.
    #[error(
        "--ca-file {path:?} has {bytes} bytes, more than {CLUSTER_CA_MAX}: leave out the \
         certificates that the system trusts anyway"
    )]
    LargeCaFile {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// A required value is empty.
    #[error("{flag} is empty: {remedy}")]
    Empty {
        /// The flag.
        flag: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A value is not of the form it should have.
    #[error("{flag}: {value:?} {expected}")]
    Malformed {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

impl Settings {
    /// Checks what was asked for and reads the CA file.
    pub fn resolve(args: Args) -> Result<Self, SettingsError> {
        let Args {
            namespace,
            pod_name,
            watch_namespaces,
            listen,
            webhook_listen,
            log,
            log_format,
            pods,
            allowed,
            limits,
            network,
        } = args;
        let names: std::collections::BTreeSet<_> = present(watch_namespaces).into_iter().collect();
        Ok(Self {
            namespace,
            pod_name,
            watch: if names.is_empty() {
                Watch::All
            } else {
                Watch::Only(names)
            },
            listen,
            webhook_listen,
            log,
            log_format,
            pods: resolve_pods(pods)?,
            allowed: resolve_allowed(allowed)?,
            limits: Limits {
                concurrent_builds: limits.max_concurrent_builds,
                concurrent_builds_per_namespace: limits
                    .max_concurrent_builds_per_namespace
                    .min(limits.max_concurrent_builds),
            },
            network: resolve_network(network)?,
        })
    }
}

fn resolve_pods(args: PodArgs) -> Result<Pods, SettingsError> {
    let PodArgs {
        builder_image,
        builder_pull_secrets,
        build_cpu_request,
        build_memory_request,
        build_cpu_limit,
        build_memory_limit,
        job_retention,
    } = args;
    if builder_image.trim().is_empty() {
        return Err(SettingsError::Empty {
            flag: "--builder-image",
            remedy: "give the reference of Firn's builder image (the chart's builder.image)",
        });
    }
    Ok(Pods {
        builder_image: builder_image.trim().to_owned(),
        pull_secrets: present(builder_pull_secrets),
        resources: Resources {
            cpu_request: quantity("--build-cpu-request", build_cpu_request)?,
            memory_request: quantity("--build-memory-request", build_memory_request)?,
            cpu_limit: quantity("--build-cpu-limit", build_cpu_limit)?,
            memory_limit: quantity("--build-memory-limit", build_memory_limit)?,
        },
        job_retention,
    })
}

fn resolve_allowed(args: AllowedArgs) -> Result<Allowed, SettingsError> {
    let AllowedArgs {
        substituters,
        trusted_public_keys,
        allowed_substituters,
        allowed_public_keys,
        plain_http_hosts,
    } = args;
    let substituters = present(substituters);
    if let Some(wrong) = substituters
        .iter()
        .find(|s| !s.starts_with("http://") && !s.starts_with("https://"))
    {
        return Err(SettingsError::Malformed {
            flag: "--substituters",
            value: wrong.clone(),
            expected: "is not an http:// or https:// URL",
        });
    }
    let trusted_public_keys = present(trusted_public_keys);
    if let Some(wrong) = trusted_public_keys.iter().find(|k| !k.contains(':')) {
        return Err(SettingsError::Malformed {
            flag: "--trusted-public-keys",
            value: wrong.clone(),
            expected: "is not a key of the form name:base64",
        });
    }
    Ok(Allowed {
        default_substituters: substituters,
        default_public_keys: trusted_public_keys,
        substituters: permitted(allowed_substituters),
        public_keys: permitted(allowed_public_keys),
        plain_http_hosts: present(plain_http_hosts).into_iter().collect(),
    })
}

fn resolve_network(args: NetworkArgs) -> Result<Network, SettingsError> {
    let NetworkArgs {
        ca_file,
        system_ca_file,
        http_proxy,
        https_proxy,
        no_proxy,
    } = args;
    let ca_file = ca_file.filter(|path| !path.as_os_str().is_empty());
    Ok(Network {
        ca_pem: ca_file.as_deref().map(read_ca).transpose()?,
        system_ca_file,
        proxies: Proxies {
            http: http_proxy.and_then(some_text),
            https: https_proxy.and_then(some_text),
            none_for: no_proxy.and_then(some_text),
        },
    })
}

fn read_ca(path: &Path) -> Result<Vec<u8>, SettingsError> {
    let pem = std::fs::read(path).map_err(|source| SettingsError::ReadCaFile {
        path: path.to_owned(),
        source,
    })?;
    let has_certificate = reqwest::Certificate::from_pem_bundle(&pem).is_ok_and(|c| !c.is_empty());
    if !has_certificate {
        return Err(SettingsError::EmptyCaFile {
            path: path.to_owned(),
        });
    }
    if pem.len() > CLUSTER_CA_MAX {
        return Err(SettingsError::LargeCaFile {
            path: path.to_owned(),
            bytes: pem.len(),
        });
    }
    Ok(pem)
}

/// A Kubernetes quantity; the empty one means "not set".
fn quantity(flag: &'static str, value: String) -> Result<Option<String>, SettingsError> {
    let Some(value) = some_text(value) else {
        return Ok(None);
    };
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = value.get(digits.len()..).unwrap_or_default();
    let known = ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"].contains(&suffix);
    let number = !digits.is_empty() && digits.parse::<f64>().is_ok_and(f64::is_finite);
    if known && number && !digits.starts_with(['-', '+']) {
        Ok(Some(value))
    } else {
        Err(SettingsError::Malformed {
            flag,
            value,
            expected: "is not a quantity such as 500m, 2 or 4Gi",
        })
    }
}

fn permitted(values: Vec<String>) -> Permitted {
    let values = present(values);
    if values.iter().any(|v| v == "*") {
        Permitted::Any
    } else {
        Permitted::Only(values.into_iter().collect())
    }
}

/// A chart renders a list that is not set as an empty string: it means no value.
fn present(values: Vec<String>) -> Vec<String> {
    values.into_iter().filter_map(some_text).collect()
}

fn some_text(value: impl AsRef<str>) -> Option<String> {
    let trimmed = value.as_ref().trim();
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate as PEM: what is in it does not matter here.
    const CERTIFICATE: &str =
        "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";

    #[test]
    fn a_ca_file_holds_certificates_and_fits_a_build_pod() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.crt");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_ca(&path)
        };
        assert_eq!(read(CERTIFICATE).unwrap(), CERTIFICATE.as_bytes());
        assert!(matches!(
            read("nonsense"),
            Err(SettingsError::EmptyCaFile { .. })
        ));
        let copies = CLUSTER_CA_MAX / CERTIFICATE.len();
        assert!(read(&CERTIFICATE.repeat(copies)).is_ok());
        assert!(matches!(
            read(&CERTIFICATE.repeat(copies + 1)),
            Err(SettingsError::LargeCaFile { .. })
        ));
    }
}
