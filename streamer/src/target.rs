//! Where the image goes: a client of the registry with the pod's credentials, and the registry's
//! answers as failures.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use firn_crd::exit::Reason;
use firn_crd::pod;
use firn_oci::registry::{
    Credentials, Error, Limits, ManifestName, Registry, RegistrySettings, Reread,
};
use firn_oci::{Digest, Document, Reference, Repository, Tag};
use tokio::time::Instant;

use crate::ca;
use crate::failure::{Failure, Result, chain};
use crate::push::presence;
use crate::settings::Settings;
use crate::stop::Stop;
use crate::tag_policy::{Fate, Moves, Ownership};

/// How long check asks again: a wrong address or password should show soon.
pub const CHECK_PATIENCE: Duration = Duration::from_secs(60);
/// How long push and publish ask again: a build of an hour is not thrown away for a registry that
/// is back in a quarter of one.
pub const PUSH_PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Tags are not moved later than this after the container's start, by the monotone clock: a pod
/// that slept may have been given up and followed by another.
pub const TAG_LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

/// One repository of one registry.
#[derive(Debug)]
pub struct Target {
    /// The client.
    pub registry: Registry,
    /// The repository.
    pub repository: Repository,
    tags: Vec<Tag>,
    ownership: Ownership,
    temporary_tag: Option<Tag>,
    deadline: Instant,
}

impl Target {
    /// The target that the run names, with the push Secret's credentials.
    pub fn new(settings: &Settings, patience: Duration) -> Result<Self> {
        let output = &settings.run.output;
        let invalid = |error: &dyn std::error::Error| {
            // The API admits neither; a message beats a panic.
            Failure::new(Reason::InternalError, chain(error))
        };
        let reference: Reference = output.repository.parse().map_err(|error| invalid(&error))?;
        let tags = output
            .tags
            .iter()
            .map(|tag| tag.parse())
            .collect::<std::result::Result<_, _>>()
            .map_err(|error: firn_oci::reference::ReferenceError| invalid(&error))?;
        let temporary_tag = output.temporary_tag.as_deref().map(str::parse);
        let temporary_tag = temporary_tag
            .transpose()
            .map_err(|error: firn_oci::reference::ReferenceError| invalid(&error))?;
        let ours = output.ours.iter().map(|digest| digest.parse());
        let ownership = Ownership {
            policy: output.tag_policy,
            ours: ours
                .collect::<std::result::Result<_, _>>()
                .map_err(|error: firn_oci::DigestError| invalid(&error))?,
        };
        let mounts = [pod::PUSH_CA];
        let client = RegistrySettings {
            plain_http: output.plain_http,
            extra_ca_pem: ca::extra(settings, &mounts)
                .map_err(|error| Failure::internal(&error))?,
            credentials: credentials(settings)?,
            // The Secret may be replaced while a long push runs; the kubelet then replaces the file.
            reread: Some(Reread::docker_config(credentials_file(settings))),
            limits: Limits {
                retry_budget: patience,
                ..Limits::default()
            },
            ..RegistrySettings::new(reference.host)
        };
        let registry = Registry::new(client)
            .map_err(|error| Failure::new(Reason::RegistryUnavailable, chain(&error)))?;
        Ok(Self {
            ownership,
            temporary_tag,
            ..Self::of(registry, reference.repository, tags)
        })
    }

    /// A repository of a registry, and the tags that are to point to the image.
    pub fn of(registry: Registry, repository: Repository, tags: Vec<Tag>) -> Self {
        Self {
            registry,
            repository,
            tags,
            ownership: Ownership::default(),
            temporary_tag: None,
            deadline: Instant::now() + TAG_LIMIT,
        }
    }

    /// A manifest by its digest. `None`: it is not there.
    pub async fn manifest(&self, digest: &Digest) -> Result<Option<Document>> {
        let name = ManifestName::Digest(*digest);
        let found = self.registry.get_manifest(&self.repository, &name).await;
        found.map_err(|error| failure(&error))
    }

    /// Moves the run's tags to `manifest`, which is there; places of those that were kept. That all
    /// is there, too, that it leads to is looked at before; not where no tag has to move.
    pub async fn tag(&self, manifest: &Document, stop: &Stop) -> Result<Vec<u8>> {
        let Moves { stale, kept } = self.moves(manifest).await?;
        if !stale.is_empty() {
            presence::check(self, manifest).await?;
        }
        self.move_tags(&stale, manifest, stop).await?;
        Ok(kept)
    }

    /// What becomes of each of the run's tags. All are looked at before the first is moved.
    ///
    /// Errors: one points to somebody else's image, and the policy is `Fail`.
    pub async fn moves(&self, manifest: &Document) -> Result<Moves> {
        let image = manifest.descriptor.digest;
        let mut moves = Moves::default();
        for (place, tag) in self.tags.iter().enumerate() {
            let name = ManifestName::Tag(tag.clone());
            let there = self.registry.head_manifest(&self.repository, &name).await;
            let there = there.map_err(|error| failure(&error))?;
            let there = there.map(|there| there.digest);
            match self.ownership.fate(there.as_ref(), &image) {
                Fate::There => {}
                Fate::Moves => moves.stale.push(tag.clone()),
                Fate::Kept => {
                    tracing::warn!(%tag, "the tag points to somebody else's image, and stays");
                    moves.kept.extend(u8::try_from(place));
                }
                Fate::Refused => return Err(self.taken(tag, there, &image)),
            }
        }
        Ok(moves)
    }

    fn taken(&self, tag: &Tag, there: Option<Digest>, image: &Digest) -> Failure {
        let there = there.map(|digest| digest.to_string()).unwrap_or_default();
        Failure::new(
            Reason::TagExists,
            format!(
                "{}:{tag} points to {there}, which this NixImage did not publish, and \
                 output.tagPolicy is Fail: no tag was moved. The image is there as {image}. Delete \
                 the tag, name another, or set output.tagPolicy",
                self.repository
            ),
        )
    }

    /// Moves tags to `manifest`, which must be there with all it leads to.
    pub async fn move_tags(&self, tags: &[Tag], manifest: &Document, stop: &Stop) -> Result<()> {
        for tag in tags {
            let name = ManifestName::Tag(tag.clone());
            // Last thing before the request: between here and its arrival nobody can hold it.
            stop.check()?;
            self.check_deadline()?;
            let put = self
                .registry
                .put_manifest(&self.repository, &name, manifest);
            put.await.map_err(|error| failure(&error))?;
            tracing::info!(%tag, digest = %manifest.descriptor.digest, "tag moved");
        }
        Ok(())
    }

    /// Whether tags are to be moved.
    pub const fn has_tags(&self) -> bool {
        !self.tags.is_empty()
    }

    /// Points the run's temporary tag to `manifest`, so that clean-up policies leave it until an
    /// index names it. A registry that does not let it be is only a lost precaution: the words say
    /// so.
    pub async fn keep(&self, manifest: &Document, stop: &Stop) -> Result<Option<String>> {
        let Some(tag) = &self.temporary_tag else {
            return Ok(None);
        };
        stop.check()?;
        let name = ManifestName::Tag(tag.clone());
        let put = self
            .registry
            .put_manifest(&self.repository, &name, manifest);
        Ok(put.await.err().map(|error| {
            let words = format!("no temporary tag {tag}: {}", chain(&error));
            tracing::warn!("{words}");
            words
        }))
    }

    fn check_deadline(&self) -> Result<()> {
        if Instant::now() < self.deadline {
            return Ok(());
        }
        Err(Failure::new(
            Reason::NotLatest,
            format!(
                "the push took more than {} minutes: the image is in {}, but no tag was moved, since a newer build may have been published",
                TAG_LIMIT.as_secs() / 60,
                self.repository
            ),
        ))
    }
}

fn credentials_file(settings: &Settings) -> PathBuf {
    settings.paths.at(pod::PUSH_SECRET).join("config.json")
}

fn credentials(settings: &Settings) -> Result<Credentials> {
    let file = credentials_file(settings);
    match fs::read(&file) {
        Ok(bytes) => Credentials::from_docker_config(&bytes).map_err(|error| {
            Failure::new(
                Reason::PushAuthFailed,
                format!("the push Secret cannot be used: {}", chain(&error)),
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Credentials::default()),
        Err(error) => Err(Failure::internal(&error)),
    }
}

/// What a registry's answer means for the build.
pub fn failure(error: &Error) -> Failure {
    let reason = if error.is_auth() {
        Reason::PushAuthFailed
    } else if error.is_rate_limited() {
        Reason::RegistryRateLimited
    } else if error.is_tag_immutable() {
        Reason::TagImmutable
    } else if error.is_unavailable() || error.is_damaged() {
        Reason::RegistryUnavailable
    } else if matches!(error, Error::Refused(_)) {
        Reason::ManifestRejected
    } else {
        Reason::InternalError
    };
    let retry_after = error
        .retry_after()
        .map(|d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX));
    let message = chain(error);
    let remedy = if reason == Reason::PushAuthFailed {
        "; see `pushSecretRef`"
    } else {
        ""
    };
    Failure::new(reason, format!("{message}{remedy}")).with_retry_after(retry_after)
}
