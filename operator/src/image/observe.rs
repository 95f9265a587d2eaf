//! Reads everything that a plan about an image may use. Nothing else of `image` reads.

use std::sync::Arc;

use firn_crd::names::build_number;
use firn_crd::source::{Follow, GitSource};
use firn_crd::{NixImage, NixImageBuild};
use kube::{Resource, ResourceExt};

use super::{Observed, Rival, Run, decide, drift};
use crate::context::Context;
use crate::error::Error;
use crate::registry;
use crate::source::{self, Git, ImageKey, Observation, Query, Target};

/// The image as it is now, with its builds and its source. `None`: it is gone.
pub async fn observe(ctx: &Context, image: &ImageKey) -> Result<Option<Observed>, Error> {
    let namespace = image.namespace.as_str();
    let Some(object) = ctx.cluster.get::<NixImage>(namespace, &image.name).await? else {
        return Ok(None);
    };
    let uid = object.uid().ok_or_else(|| Error::Incomplete {
        kind: "NixImage",
        name: image.name.clone(),
        field: "metadata.uid",
    })?;
    // By field and not by label: whoever claims to be a build of this image uses up its number.
    let fields = format!("spec.image.name={}", image.name);
    let builds = ctx
        .cluster
        .list_by_field::<NixImageBuild>(namespace, &fields)
        .await?;
    let highest_number = builds
        .iter()
        .filter_map(|build| build_number(&image.name, &build.name_any()))
        .max()
        .unwrap_or(0);
    let mut runs: Vec<Run> = builds
        .into_iter()
        .filter_map(|build| Run::read(build, &uid))
        .collect();
    runs.sort_by_key(|run| run.number);
    let mut observed = Observed {
        now: ctx.now(),
        rivals: rivals(ctx, &object).await?,
        image: Arc::new(object),
        source: nothing_asked(ctx),
        registry: registry::Observation::Pending,
        runs,
        highest_number,
        site: ctx.site.clone(),
    };
    observed.source = source(ctx, image, &observed);
    observed.registry = registry(ctx, image, &observed);
    Ok(Some(observed))
}

fn nothing_asked(ctx: &Context) -> source::Observed {
    source::Observed {
        observation: Observation::Pending,
        answered: None,
        next_poll: ctx.now(),
    }
}

/// Asks the source only if the spec can be followed: nothing else stops polling it.
fn source(ctx: &Context, key: &ImageKey, observed: &Observed) -> source::Observed {
    let spec = &observed.image.spec;
    let followed = spec.source.git.as_ref().filter(|_| is_followed(observed));
    let Some(git) = followed else {
        ctx.sources.forget(key);
        return nothing_asked(ctx);
    };
    let query = Query {
        git: asked(git),
        paths: spec.trigger.paths.clone(),
        known: decide::known(observed),
        asked: decide::question(&observed.image),
    };
    ctx.sources.observe(key, &query, observed.now)
}

/// Whether the spec can be followed, and is to be.
fn is_followed(observed: &Observed) -> bool {
    let spec = &observed.image.spec;
    let allowed = &observed.site.allowed;
    observed.image.metadata.deletion_timestamp.is_none()
        && !spec.suspend
        && super::support::refusal(spec, allowed).is_none()
}

/// Asks the registry what it has of what was published, if `verification` wants to know.
fn registry(ctx: &Context, key: &ImageKey, observed: &Observed) -> registry::Observation {
    let query = is_followed(observed).then(|| drift::question(observed));
    let Some(query) = query.flatten() else {
        ctx.registries.forget(key);
        return registry::Observation::Pending;
    };
    ctx.registries.observe(key, &query)
}

/// The source in the terms of whoever asks it.
fn asked(git: &GitSource) -> Git {
    Git {
        url: git.url.clone(),
        target: match git.follow() {
            Follow::Head => Target::Head,
            Follow::Semver(range) => Target::Semver(range.to_owned()),
            Follow::Branch(branch) => Target::Branch(branch.to_owned()),
            Follow::Tag(tag) => Target::Tag(tag.to_owned()),
            Follow::Commit(commit) => Target::Commit(commit.to_owned()),
        },
        dir: git.dir.clone(),
        secret: git.secret_ref.as_ref().map(|secret| secret.name.clone()),
        ca: git
            .ca_config_map_ref
            .as_ref()
            .map(|ca| (ca.name.clone(), ca.key.clone())),
        webhook: git
            .webhook
            .as_ref()
            .map(|webhook| webhook.secret_ref.name.clone()),
        interval: git.interval.as_std(),
        timeout: git.timeout.as_std(),
    }
}

/// Other images in the same repository, in every namespace that is served.
async fn rivals(ctx: &Context, image: &NixImage) -> Result<Vec<Rival>, Error> {
    let fields = format!("spec.output.repository={}", image.spec.output.repository);
    let mut rivals = Vec::new();
    for scope in &ctx.scopes {
        let found = ctx
            .cluster
            .list_in::<NixImage>(scope.0.as_deref(), &fields)
            .await?;
        rivals.extend(
            found
                .into_iter()
                .filter(|other| {
                    other.uid() != image.uid() && other.meta().deletion_timestamp.is_none()
                })
                .map(|other| Rival {
                    name: format!(
                        "{}/{}",
                        other.namespace().unwrap_or_default(),
                        other.name_any()
                    ),
                    born: (
                        other.creation_timestamp().map(|time| time.0),
                        other.uid().unwrap_or_default(),
                    ),
                    tags: other.spec.output.tags,
                }),
        );
    }
    rivals.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rivals)
}

#[cfg(test)]
mod tests {
    use firn_crd::source::GitRef;

    use super::*;

    fn target(reference: GitRef) -> Target {
        asked(&GitSource {
            reference: Some(reference),
            ..GitSource::new("https://git.example/web")
        })
        .target
    }

    #[test]
    fn each_kind_of_ref_is_asked_for_as_such() {
        assert_eq!(
            asked(&GitSource::new("https://git.example/web")).target,
            Target::Head
        );
        let branch = GitRef {
            branch: Some("b".into()),
            ..GitRef::default()
        };
        assert_eq!(target(branch), Target::Branch("b".into()));
        let tag = GitRef {
            tag: Some("t".into()),
            ..GitRef::default()
        };
        assert_eq!(target(tag), Target::Tag("t".into()));
        let commit = GitRef {
            commit: Some("c".into()),
            ..GitRef::default()
        };
        assert_eq!(target(commit), Target::Commit("c".into()));
    }
}
