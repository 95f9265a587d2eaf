//! What Kubernetes itself is asked to hold: manifests that are refused, and deletion.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use firn_e2e::registry::Registry;
use firn_e2e::story::{BUILD, Wanted, World, names, tell};
use firn_e2e::wait::{Seen, eventually};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};

#[expect(
    clippy::unwrap_used,
    reason = "the tables are files of this repository"
)]
#[path = "../../../crd/tests/table/mod.rs"]
mod table;

/// Each bad manifest is refused by the real API server with its message, each good one passes.
#[tokio::test]
async fn the_api_server_refuses_bad_manifests_with_their_messages() -> Result<()> {
    tell("manifests", async |world| {
        let mut wrong = Vec::new();
        let cases: Vec<_> = table::refused()
            .into_iter()
            .chain(table::accepted())
            .collect();
        ensure!(cases.len() > 120, "only {} manifests", cases.len());
        for case in cases {
            let answer = submit(world, &case).await?;
            let as_told = match &answer {
                Ok(()) => case.message.is_empty(),
                Err(text) => !case.message.is_empty() && text.contains(&case.message),
            };
            if !as_told {
                wrong.push(format!(
                    "{}: expected {:?}, got {answer:?}",
                    case.name, case.message
                ));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
    .await
}

/// `kubectl create`, as strict about unknown fields as kubectl is.
async fn create(
    world: &World,
    plural: &str,
    keep: bool,
    object: &Value,
) -> Result<std::result::Result<(), String>> {
    let dry = if keep { "" } else { "&dryRun=All" };
    let path = format!(
        "/apis/firn.dev/v1alpha1/namespaces/{}/{plural}",
        world.namespace
    );
    let request = http::Request::post(format!("{path}?fieldValidation=Strict{dry}"))
        .header("content-type", "application/json")
        .body(serde_json::to_vec(object)?)?;
    let created = world.client.request::<Value>(request).await;
    Ok(created.map(drop).map_err(|error| error.to_string()))
}

/// What the API server says to a manifest, or to an update of it; nothing is kept but what an
/// update needs.
async fn submit(world: &World, case: &table::Case) -> Result<std::result::Result<(), String>> {
    let kind = case.object["kind"]
        .as_str()
        .context("a manifest without kind")?;
    let gvk = GroupVersionKind::gvk("firn.dev", "v1alpha1", kind);
    let plural = format!("{}s", kind.to_lowercase());
    let resource = ApiResource::from_gvk_with_plural(&gvk, &plural);
    let api: Api<DynamicObject> =
        Api::namespaced_with(world.client.clone(), &world.namespace, &resource);
    let mut object = case.object.clone();
    object["metadata"]["namespace"] = json!(world.namespace);
    // The operator is to leave it alone.
    if kind == "NixImage" && case.update.is_some() {
        object["spec"]["suspend"] = json!(true);
    }
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let created = create(world, &plural, case.update.is_some(), &object).await?;
    let Some(update) = &case.update else {
        return Ok(created);
    };
    if let Err(refusal) = created {
        bail!(
            "{}: the object to be updated was refused: {refusal}",
            case.name
        );
    }
    let dry = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let updated = api.patch(&name, &dry, &Patch::Merge(update)).await;
    api.delete(&name, &kube::api::DeleteParams::default())
        .await?;
    Ok(updated.map(drop).map_err(|error| error.to_string()))
}

#[tokio::test]
async fn an_image_deleted_in_the_middle_of_its_build_leaves_nothing_and_no_tag_appears()
-> Result<()> {
    tell("deleted", async |world| {
        let source = world.publish_flake("public").await?;
        let wanted = Wanted::new(world, "web", &source.url).with("/spec/flake/attribute", "slow");
        world.apply(&wanted).await?;
        eventually("the build container runs", BUILD, || async {
            let pods = world.pods("web").await?;
            let statuses = pods.iter().filter_map(|pod| pod.status.as_ref());
            let mut containers =
                statuses.flat_map(|status| status.init_container_statuses.iter().flatten());
            let runs = containers.any(|status| {
                status.name == "build"
                    && status
                        .state
                        .as_ref()
                        .is_some_and(|state| state.running.is_some())
            });
            Ok(if runs {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{:?}", names(&pods)))
            })
        })
        .await?;
        world.delete("web").await?;
        let registry = Registry::new(world)?;
        eventually(
            "builds, Jobs and pods are gone",
            Duration::from_secs(90),
            || async {
                let tag = registry.digest(&world.repository("web"), "latest").await?;
                ensure!(
                    tag.is_none(),
                    "a tag appeared while the build was being taken away"
                );
                let left = format!(
                    "{:?} {:?} {} builds",
                    names(&world.jobs("web").await?),
                    names(&world.pods("web").await?),
                    world.builds("web").await?.len()
                );
                Ok(if left == "[] [] 0 builds" {
                    Seen::Done(())
                } else {
                    Seen::NotYet(left)
                })
            },
        )
        .await?;
        let tag = registry.digest(&world.repository("web"), "latest").await?;
        ensure!(tag.is_none(), "a tag appeared after the last pod was gone");
        Ok(())
    })
    .await
}
