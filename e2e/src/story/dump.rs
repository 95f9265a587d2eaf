//! What a namespace holds, printed when its story ended badly.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{ListParams, LogParams};
use serde_json::Value;

use super::World;

/// Lines of each log that are shown.
const LOG_LINES: i64 = 60;

/// Prints images, builds, pods with their logs, events, and the operator's log.
#[expect(clippy::print_stderr, reason = "a test that failed shows why")]
pub(super) async fn print(world: &World) {
    let mut text = format!("\n=== namespace {}\n", world.namespace);
    if let Ok(images) = world.images().list(&ListParams::default()).await {
        for image in images {
            let name = image.metadata.name.clone().unwrap_or_default();
            show(
                &mut text,
                "NixImage",
                &serde_json::to_value(&image).unwrap_or_default(),
            );
            for build in world.builds(&name).await.unwrap_or_default() {
                show(&mut text, "NixImageBuild", &build);
            }
        }
    }
    if let Ok(events) = world.api::<Event>().list(&ListParams::default()).await {
        for event in events {
            let object = event.involved_object.name.unwrap_or_default();
            let reason = event.reason.unwrap_or_default();
            let _ = writeln!(
                text,
                "event {object}: {reason}: {}",
                event.message.unwrap_or_default()
            );
        }
    }
    let pods = world.api::<Pod>();
    if let Ok(list) = pods.list(&ListParams::default()).await {
        for pod in list {
            logs(&mut text, &pods, &pod).await;
        }
    }
    let system: Api<Pod> = Api::namespaced(world.client.clone(), "firn-system");
    if let Ok(list) = system.list(&ListParams::default()).await {
        for pod in list {
            logs(&mut text, &system, &pod).await;
        }
    }
    eprintln!("{text}");
}

fn show(text: &mut String, kind: &str, object: &Value) {
    let _ = writeln!(
        text,
        "{kind} {}: spec {} status {:#}",
        object["metadata"]["name"], object["spec"], object["status"]
    );
}

async fn logs(text: &mut String, pods: &Api<Pod>, pod: &Pod) {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let _ = writeln!(
        text,
        "Pod {name}: {:?} {:?} {:?}",
        status.phase, status.reason, status.message
    );
    let spec = pod.spec.clone().unwrap_or_default();
    for container in spec
        .init_containers
        .unwrap_or_default()
        .iter()
        .chain(&spec.containers)
    {
        let parameters = LogParams {
            container: Some(container.name.clone()),
            tail_lines: Some(LOG_LINES),
            ..LogParams::default()
        };
        if let Ok(log) = pods.logs(&name, &parameters).await {
            let _ = writeln!(text, "--- log of {name}/{}\n{log}", container.name);
        }
    }
}
