//! `publish`: moves tags to an image that is in the registry already. Nothing is built.

use firn_crd::exit::Reason;
use firn_crd::report::{Outcome, StageName};
use firn_oci::Digest;

use crate::failure::{Failure, Result};
use crate::settings::Settings;
use crate::stages::Stages;
use crate::stop::Stop;
use crate::target::{PUSH_PATIENCE, Target};

/// Moves the run's tags to `digest`.
pub async fn publish(
    settings: &Settings,
    digest: &str,
    stages: &mut Stages,
    stop: &Stop,
) -> Result<Outcome> {
    let target = Target::new(settings, PUSH_PATIENCE)?;
    tag(&target, digest, stages, stop).await?;
    Ok(Outcome::Published {
        digest: digest.to_owned(),
    })
}

/// Moves the target's tags to `digest`, which must be there.
pub async fn tag(target: &Target, digest: &str, stages: &mut Stages, stop: &Stop) -> Result<()> {
    let parsed: Digest = digest.parse().map_err(|error: firn_oci::DigestError| {
        Failure::new(Reason::InternalError, error.to_string())
    })?;
    let running = Stages::begin(StageName::Tag);
    let found = target.manifest(&parsed).await?;
    let manifest = found.ok_or_else(|| {
        Failure::new(
            Reason::ManifestRejected,
            format!(
                "{} no longer has {digest}: build the image again",
                target.repository
            ),
        )
    })?;
    let tagged = target.tag(&manifest, stop).await;
    stages.end(&running);
    tagged
}
