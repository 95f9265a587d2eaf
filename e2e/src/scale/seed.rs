//! Copies of a built image, with its result and its build.

use anyhow::{Context as _, Result, ensure};
use firn_crd::hash::{build_hash, tags_hash};
use firn_crd::image::NixImageSpec;
use firn_crd::names::{ANNOTATION_BUILD_HASH, ANNOTATION_TAGS_HASH};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::story::World;

/// The name of the image that is really built. It occurs in nothing else.
pub(super) const ORIGIN: &str = "scale-origin";

/// The built image and its build, as the API server gave them.
pub(super) struct Origin {
    image: Value,
    build: Value,
    /// `registry/scale-0/scale-origin`
    repository: String,
}

impl Origin {
    pub(super) fn new(world: &World, image: Value, build: Value) -> Result<Self> {
        let name = build["metadata"]["name"].as_str().context("no name")?;
        ensure!(
            name == format!("{ORIGIN}-1"),
            "{name} is not its first build"
        );
        Ok(Self {
            image,
            build,
            repository: world.repository(ORIGIN),
        })
    }

    /// The name of a copy.
    pub(super) fn name(number: usize) -> String {
        format!("app-{number}")
    }

    /// Makes a copy: the image, its build, and the status of both.
    pub(super) async fn copy(&self, world: &World, number: usize) -> Result<()> {
        let name = Self::name(number);
        let repository = world.repository(&name);
        let image = self.renamed(&self.image, &repository, &name)?;
        let made = create(world, "NixImage", "niximages", &image, Value::Null).await?;
        let uid = made.metadata.uid.context("no UID")?;
        let spec: NixImageSpec = serde_json::from_value(image["spec"].clone())?;
        let hashes = (build_hash(&spec), tags_hash(&spec));

        let mut build = self.renamed(&self.build, &repository, &name)?;
        build["spec"]["image"]["uid"] = json!(uid);
        let annotations = &mut build["metadata"]["annotations"];
        annotations[ANNOTATION_BUILD_HASH] = json!(hashes.0);
        annotations[ANNOTATION_TAGS_HASH] = json!(hashes.1);
        let mut owners = build["metadata"]["ownerReferences"].take();
        owners[0]["uid"] = json!(uid);
        let copy = create(world, "NixImageBuild", "niximagebuilds", &build, owners).await?;

        let mut status = image["status"].clone();
        status["published"]["buildHash"] = json!(hashes.0);
        status["published"]["tagsHash"] = json!(hashes.1);
        status["latestBuildRef"]["uid"] = json!(copy.metadata.uid);
        finish(world, "NixImage", "niximages", made.metadata.name, &status).await?;
        finish(
            world,
            "NixImageBuild",
            "niximagebuilds",
            copy.metadata.name,
            &build["status"],
        )
        .await
    }

    /// The object with every mention of the origin's names replaced.
    fn renamed(&self, object: &Value, repository: &str, name: &str) -> Result<Value> {
        let text = object
            .to_string()
            .replace(&self.repository, repository)
            .replace(ORIGIN, name);
        Ok(serde_json::from_str(&text)?)
    }
}

async fn create(
    world: &World,
    kind: &str,
    plural: &str,
    object: &Value,
    owners: Value,
) -> Result<DynamicObject> {
    let metadata = &object["metadata"];
    let object = serde_json::from_value(json!({
        "apiVersion": "firn.dev/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": metadata["name"],
            "labels": metadata["labels"],
            "annotations": metadata["annotations"],
            "finalizers": metadata["finalizers"],
            "ownerReferences": owners,
        },
        "spec": object["spec"],
    }))?;
    let api = world.dynamic(kind, plural);
    Ok(api.create(&PostParams::default(), &object).await?)
}

async fn finish(
    world: &World,
    kind: &str,
    plural: &str,
    name: Option<String>,
    status: &Value,
) -> Result<()> {
    let name = name.context("no name")?;
    let patch = Patch::Merge(json!({ "status": status }));
    world
        .dynamic(kind, plural)
        .patch_status(&name, &PatchParams::default(), &patch)
        .await?;
    Ok(())
}
