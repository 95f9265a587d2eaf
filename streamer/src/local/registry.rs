//! A client of a registry with the logins of whoever sits at this machine.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use firn_crd::exit::Reason;
use firn_oci::registry::{Credentials, Limits, Registry, RegistrySettings};
use firn_oci::{Digest, Reference, Repository};

use super::arguments::{AccessArguments, RegistryArguments};
use super::{Result, unusable, usage};
use crate::failure::{Failure, chain};
use crate::push::Previous;

/// A registry, and the repository that is meant.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) registry: Registry,
    pub(super) repository: Repository,
}

impl Client {
    /// `patience` is how long a registry in trouble is asked again.
    pub(super) fn new(
        arguments: &RegistryArguments,
        reference: &Reference,
        patience: Duration,
    ) -> Result<Self> {
        let access = &arguments.access;
        let pem = access.ca.iter().map(|file| {
            fs::read(file).map_err(|error| usage(format!("--ca {}: {error}", file.display())))
        });
        let settings = RegistrySettings {
            plain_http: arguments.plain_http,
            extra_ca_pem: pem.collect::<Result<_>>()?,
            credentials: credentials(access)?,
            limits: Limits {
                retry_budget: patience,
                ..Limits::default()
            },
            ..RegistrySettings::new(reference.host.clone())
        };
        let registry = Registry::new(settings)
            .map_err(|error| Failure::new(Reason::RegistryUnavailable, chain(&error)))?;
        Ok(Self {
            registry,
            repository: reference.repository.clone(),
        })
    }

    /// Images pushed before: a digest alone is in the same repository. Those on other registries
    /// are of no use and refused.
    pub(super) fn previous(&self, texts: &[String]) -> Result<Vec<Previous>> {
        texts.iter().map(|text| self.previous_image(text)).collect()
    }

    fn previous_image(&self, text: &str) -> Result<Previous> {
        if let Ok(digest) = text.parse::<Digest>() {
            return Ok(Previous {
                repository: self.repository.clone(),
                digest,
            });
        }
        let reference: Reference = text
            .parse()
            .map_err(|error| unusable("--previous", &error))?;
        let digest = reference.digest.ok_or_else(|| {
            usage(format!(
                "--previous {text}: name the image by its digest; a tag may have been moved by anybody"
            ))
        })?;
        if reference.host != *self.registry.host() {
            return Err(usage(format!(
                "--previous {text}: layers can only be taken over within {}",
                self.registry.host()
            )));
        }
        Ok(Previous {
            repository: reference.repository,
            digest,
        })
    }
}

fn credentials(arguments: &AccessArguments) -> Result<Credentials> {
    let unreadable = |file: &PathBuf, what: String| {
        Failure::new(
            Reason::PushAuthFailed,
            format!("{} cannot be used: {what}", file.display()),
        )
    };
    // A file that was named must be there; of the usual ones the first that is.
    let named = arguments.auth_file.iter().cloned();
    for file in named.chain(usual_files()) {
        match fs::read(&file) {
            Ok(bytes) => {
                return Credentials::from_docker_config(&bytes)
                    .map_err(|error| unreadable(&file, chain(&error)).into());
            }
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && arguments.auth_file.is_none() => {}
            Err(error) => return Err(unreadable(&file, error.to_string()).into()),
        }
    }
    Ok(Credentials::default())
}

/// Where podman and docker leave logins, in the order in which podman looks.
fn usual_files() -> Vec<PathBuf> {
    let folder = |name: &str, rest: &str| {
        std::env::var_os(name).map(|folder| PathBuf::from(folder).join(rest))
    };
    [
        std::env::var_os("REGISTRY_AUTH_FILE").map(PathBuf::from),
        folder("XDG_RUNTIME_DIR", "containers/auth.json"),
        folder("DOCKER_CONFIG", "config.json"),
        folder("HOME", ".docker/config.json"),
        folder("HOME", ".config/containers/auth.json"),
    ]
    .into_iter()
    .flatten()
    .collect()
}
