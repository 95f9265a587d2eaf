//! Does what a plan says, in its order, and decides nothing.

use firn_crd::names::{ANNOTATION_SUPERSEDED, MANAGER_IMAGE};
use firn_crd::{NixImage, NixImageBuild};
use kube::api::PropagationPolicy;
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::plan::{Action, Plan};
use crate::apply::{Cluster, Created};
use crate::context::Context;
use crate::error::Error;
use crate::events;

/// Does it; stops at the first error.
pub async fn act(ctx: &Context, image: &NixImage, plan: &Plan) -> Result<(), Error> {
    let Plan {
        actions,
        status,
        events,
        cleanup,
        look_again: _,
    } = plan;
    let namespace = image.namespace().unwrap_or_default();
    for action in actions {
        perform(&ctx.cluster, &namespace, action).await?;
    }
    if let Some(status) = status {
        let value = serde_json::to_value(status.as_ref()).unwrap_or_default();
        ctx.cluster
            .apply_status(image, MANAGER_IMAGE, &value)
            .await?;
    }
    events::publish(&ctx.image_events, &image.object_ref(&()), events).await;
    for action in cleanup {
        perform(&ctx.cluster, &namespace, action).await?;
    }
    Ok(())
}

async fn perform(cluster: &Cluster, namespace: &str, action: &Action) -> Result<(), Error> {
    match action {
        Action::CreateBuild(build) => create(cluster, namespace, build).await,
        // The UID is part of the patch: of another build of that name nothing is known.
        Action::SupersedeBuild { name, uid } => {
            tracing::info!(build = name, "build cancelled for a newer one");
            let patch = json!({
                "metadata": { "uid": uid, "annotations": { (ANNOTATION_SUPERSEDED): "true" } },
                "spec": { "cancel": true },
            });
            cluster
                .merge::<NixImageBuild>(namespace, name, MANAGER_IMAGE, &patch)
                .await
        }
        Action::DeleteBuild { name, uid } => {
            let propagation = PropagationPolicy::Background;
            cluster
                .delete::<NixImageBuild>(namespace, name, uid, propagation)
                .await
        }
    }
}

/// Makes the build, or finds that a run before a crash made it.
async fn create(cluster: &Cluster, namespace: &str, build: &NixImageBuild) -> Result<(), Error> {
    if cluster.create(namespace, MANAGER_IMAGE, build).await? == Created::New {
        tracing::info!(build = build.name_any(), reasons = ?build.spec.reasons, "build created");
        return Ok(());
    }
    let name = build.name_any();
    let there: Option<NixImageBuild> = cluster.get(namespace, &name).await?;
    there.map_or(Ok(()), |there| adopt(&there, build))
}

/// What it means that a build of this name is there: it is this one, or another of the same image,
/// which somebody made since the image was observed (that one may run: nothing is begun beside it),
/// or a stranger's, which takes its number only.
fn adopt(there: &NixImageBuild, build: &NixImageBuild) -> Result<(), Error> {
    let of = |build: &NixImageBuild| build.spec.image.as_ref().map(|image| image.uid.clone());
    let (kind, name) = ("NixImageBuild", build.name_any());
    if of(there) != of(build) {
        Err(Error::NameTaken { kind, name })
    } else if there.spec.key != build.spec.key {
        Err(Error::Outdated { kind, name })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::tests::build;

    #[test]
    fn a_build_of_the_same_name_is_ours_or_news_or_a_strangers() {
        let ours = build();
        assert!(adopt(&ours, &ours).is_ok());
        let mut news = build();
        news.spec.key = Some("another".into());
        assert!(matches!(adopt(&news, &ours), Err(Error::Outdated { .. })));
        let mut strangers = news;
        strangers.spec.image.as_mut().unwrap().uid = "another".into();
        assert!(matches!(
            adopt(&strangers, &ours),
            Err(Error::NameTaken { .. })
        ));
    }
}
