//! `check`: may we push there? In seconds, before an hour's build. And is what is published still
//! there? The answer lies in a volume that build cannot write.

use firn_crd::exit::Reason;
use firn_crd::report::Outcome;
use firn_crd::run::{Build, Published};
use firn_oci::Digest;

use crate::failure::{Failure, Result};
use crate::handoff::{self, Checked};
use crate::settings::Settings;
use crate::target::{CHECK_PATIENCE, Target, failure};

/// Checks the target of `build`.
pub async fn check(settings: &Settings, build: &Build) -> Result<Outcome> {
    let target = Target::new(settings, CHECK_PATIENCE)?;
    let may_push = target.registry.can_push(&target.repository).await;
    may_push.map_err(|error| failure(&error))?;
    let published = match &build.published {
        Some(published) => still_there(&target, published).await?,
        None => None,
    };
    tracing::info!(repository = %target.repository, ?published, "pushing is allowed");
    handoff::write(&settings.paths.checked(), &Checked { published })
        .map_err(|error| Failure::internal(&error))?;
    Ok(Outcome::Passed)
}

/// The manifest is read, not looked for: registries remember descriptors of what was collected.
/// Without the index that names it, it is not published.
async fn still_there(target: &Target, published: &Published) -> Result<Option<String>> {
    for digest in [Some(&published.digest), published.index.as_ref()]
        .into_iter()
        .flatten()
    {
        let parsed: Digest = digest.parse().map_err(|error: firn_oci::DigestError| {
            Failure::new(Reason::InternalError, error.to_string())
        })?;
        if target.manifest(&parsed).await?.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(published.digest.clone()))
}
