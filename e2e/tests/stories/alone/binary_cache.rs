//! A binary cache that a spec names: only with the operator's leave, and only what is signed by a key
//! that is trusted. The path cannot be built, so an image of it came from the cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Result, ensure};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use firn_e2e::cluster::network::CONTROL;
use firn_e2e::fixture::binary_cache::{BinaryCache, DERIVATION};
use firn_e2e::story::{Wanted, World, condition, tell};
use serde_json::json;
use tokio::net::TcpListener;

use super::helm::{and_back, put};

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_cache_is_asked_if_allowed_and_believed_if_signed() -> Result<()> {
    tell("binary-cache", async |world| and_back(world, story).await).await
}

async fn story(world: &World, values: &str) -> Result<()> {
    let cache = BinaryCache::create("taken from the cache")?;
    let other = BinaryCache::create("another")?.public_key;
    let url = serve(cache.files).await?;

    let mut source = world.publish_flake("public").await?;
    let flake = std::fs::read_to_string(source.flake.repository.path().join("flake.nix"))?;
    let with_cached = flake.replace(
        "broken = throw",
        &format!("cached = {DERIVATION};\n        broken = throw"),
    );
    let ca = &world.ca_file();
    source.flake.change(ca, "flake.nix", &with_cached).await?;
    let wanted = Wanted::new(world, "web", &source.url)
        .with("/spec/flake/attribute", "cached")
        .with("/spec/build/substituters", json!([url]));
    let with_key = |key: &str| {
        wanted
            .clone()
            .with("/spec/build/trustedPublicKeys", json!([key]))
    };

    // Not without leave.
    world.apply(&with_key(&cache.public_key)).await?;
    let refused = world.not_ready("web", "TrustNotAllowed").await?;
    let message = condition(&refused, "Ready")["message"].to_string();
    ensure!(message.contains(&url), "{message}");
    ensure!(world.builds("web").await?.is_empty());

    // With leave, but signed by somebody else: Nix passes it over, and the builder fails.
    let leave = format!("allowed.substituters={{{url}}}");
    let keys = "allowed.trustedPublicKeys={*}";
    put(
        world,
        &["upgrade"],
        values,
        &["--set", &leave, "--set", keys],
    )?;
    world.apply(&with_key(&other)).await?;
    let image = world.not_ready("web", "BuildFailed").await?;
    ensure!(
        image["status"]["failure"]["drvPath"]
            .as_str()
            .is_some_and(|path| path.ends_with("-cached-1.0.drv")),
        "{:#}",
        image["status"]["failure"]
    );

    world.apply(&with_key(&cache.public_key)).await?;
    let image = world.ready("web").await?;
    ensure!(
        image["status"]["published"]["platforms"][0]["outPath"] == cache.store_path,
        "{:#}",
        image["status"]["published"]
    );
    Ok(())
}

/// Serves `files` where pods reach it, beside the API server, and gives the URL.
async fn serve(files: BTreeMap<String, Vec<u8>>) -> Result<String> {
    let listener = TcpListener::bind((CONTROL, 0)).await?;
    let url = format!("http://{CONTROL}:{}", listener.local_addr()?.port());
    let routes = Router::new()
        .route("/{*path}", axum::routing::get(file))
        .with_state(Arc::new(files));
    // It ends with the test's runtime.
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(url)
}

async fn file(
    State(files): State<Arc<BTreeMap<String, Vec<u8>>>>,
    Path(path): Path<String>,
) -> Result<Vec<u8>, StatusCode> {
    files.get(&path).cloned().ok_or(StatusCode::NOT_FOUND)
}
