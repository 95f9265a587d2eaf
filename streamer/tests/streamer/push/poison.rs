//! Plants what could make one image get another's bytes, or none: a false mapping from a recipe to
//! a layer, an altered store path, a false claim, a blob that is gone. docs/trust-in-the-registry.md
//! has a row for each of them.

use firn_oci::testing::{Habits, Uploads};
use firn_oci::{Descriptor, Digest, Manifest, media_type};
use firn_streamer::recipe::{ANNOTATION_DIFF_ID, ANNOTATION_KEY};

use super::*;

const OTHER: &str = "mallory/app";
/// A registry that takes any manifest.
const UNCHECKED: Habits = Habits {
    uploads: Uploads::Any,
    mounts: true,
    referrers: false,
    ranges: true,
    immutable_tags: false,
    zstd: true,
    checks: false,
    deletions: firn_oci::testing::Deletions::Tag,
};

impl Pod {
    /// The manifest that was published.
    pub(super) fn manifest(&self, digest: &str) -> Manifest {
        let bytes = self.registry.manifest(REPOSITORY, digest).unwrap();
        Manifest::from_bytes(&bytes).unwrap()
    }

    /// Stores `manifest` under the tags that people use, as someone may who can push.
    fn plant(&self, manifest: &Manifest) -> String {
        let bytes = manifest.to_bytes();
        for tag in ["latest", "v1", "buildcache"] {
            self.registry
                .put_manifest(REPOSITORY, tag, media_type::MANIFEST, &bytes);
        }
        Digest::of(&bytes).to_string()
    }

    /// A manifest that claims every recipe of `published` for one blob of its own.
    fn forged(&self, published: &Manifest) -> (Manifest, Digest) {
        let evil = self.registry.put_blob(REPOSITORY, noise(666, 1000));
        let mut forged = published.clone();
        for layer in &mut forged.layers {
            layer.digest = evil;
            layer.size = 1000;
            let claim = layer.annotations.get_mut(ANNOTATION_DIFF_ID).unwrap();
            *claim = Digest::of(b"another archive").to_string();
        }
        (forged, evil)
    }

    /// Digest of the manifest of these very contents, from a registry that has nothing.
    async fn honest(&self) -> String {
        let clean = FakeRegistry::start().await.unwrap();
        let mut settings = self.settings();
        settings.run.output.repository = format!("{}/{REPOSITORY}", clean.host());
        let (_never, stop) = Stop::never();
        let build = run::Build {
            published: None,
            layers_from: Vec::new(),
            ..self.build()
        };
        let pushed = push::push(&settings, &build, &mut Stages::default(), &stop).await;
        match pushed.unwrap() {
            Outcome::Pushed(pushed) => pushed.digest,
            other => panic!("{other:?}"),
        }
    }

    /// Whether all layers of a manifest are in the repository.
    fn has_layers_of(&self, digest: &str) -> bool {
        layers(&self.manifest(digest)).all(|layer| self.registry.blob(REPOSITORY, &layer).is_some())
    }

    /// Pushes with the layers of this image, whose manifest is in another repository.
    async fn push_with_layers_of(&self, other: &str) -> Pushed {
        let build = run::Build {
            published: None,
            layers_from: vec![format!("{}/{OTHER}@{other}", self.registry.host())],
            ..self.build()
        };
        let (_never, stop) = Stop::never();
        let pushed = push::push(&self.settings(), &build, &mut Stages::default(), &stop).await;
        match pushed.unwrap() {
            Outcome::Pushed(pushed) => *pushed,
            other => panic!("{other:?}"),
        }
    }

    /// What build hands off, changed by build.
    fn lie(&self, change: impl FnOnce(&mut Image)) {
        let Built::Image(mut image) = handoff::read(&self.paths().built()).unwrap() else {
            panic!("nothing was handed off");
        };
        change(&mut image);
        self.hand_off_built(&Built::Image(image));
    }

    /// Other bytes for a path, in its place.
    fn alter(&self, index: usize) -> Package {
        let mut altered = self.packages[index].clone();
        altered.contents[0] ^= 1;
        self.write(&altered);
        altered
    }
}

/// Who may write to the repository, or move its tags.
mod registry_writer {
    use super::*;

    #[tokio::test]
    async fn a_manifest_behind_a_tag_is_never_believed() {
        let mut pod = Pod::new().await;
        let first = pod.push().await;
        let (forged, evil) = pod.forged(&pod.manifest(&first.digest));
        pod.plant(&forged);
        pod.publish(&first);
        pod.change();
        let second = pod.push().await;
        let digests: Vec<Digest> = layers(&pod.manifest(&second.digest)).collect();
        assert!(!digests.contains(&evil));
        assert_eq!(second.digest, pod.honest().await);
    }

    #[tokio::test]
    async fn nothing_published_means_that_nothing_is_believed() {
        let pod = Pod::new().await;
        let honest = pod.honest().await;
        let first = pod.push().await;
        let (forged, _) = pod.forged(&pod.manifest(&first.digest));
        pod.plant(&forged);
        assert_eq!(pod.push().await.digest, honest);
        assert_eq!(pod.registry.count("GET", "/manifests/"), 0);
    }

    #[tokio::test]
    async fn a_manifest_that_is_not_what_its_digest_says_is_refused() {
        let mut pod = Pod::new().await;
        let first = pod.push().await;
        let (forged, _) = pod.forged(&pod.manifest(&first.digest));
        pod.publish(&first);
        pod.change();
        // The registry itself lies: under the digest in status it has other bytes.
        let lie = String::from_utf8(forged.to_bytes()).unwrap();
        pod.registry.fault(
            "GET",
            "/manifests/sha256",
            Answer::Status(200, Vec::new(), lie.leak()),
        );
        let failure = pod.try_push().await.unwrap_err();
        assert_eq!(failure.reason(), Reason::RegistryUnavailable);
        assert!(
            failure.0.message.contains("was changed"),
            "{}",
            failure.0.message
        );
        assert_eq!(pod.tagged("latest"), Some(first.digest));
    }

    #[tokio::test]
    async fn annotations_that_are_none_of_firns_are_as_good_as_none() {
        let mut pod = Pod::new().await;
        let first = pod.push().await;
        let published = pod.manifest(&first.digest);
        let breaks: [fn(&mut Descriptor); 4] = [
            |layer| layer.annotations.clear(),
            |layer| drop(layer.annotations.remove(ANNOTATION_DIFF_ID)),
            |layer| {
                drop(
                    layer
                        .annotations
                        .insert(ANNOTATION_DIFF_ID.into(), "md5:x".into()),
                );
            },
            |layer| {
                drop(
                    layer
                        .annotations
                        .insert(ANNOTATION_KEY.into(), "../..".into()),
                );
            },
        ];
        for spoil in breaks {
            let mut spoiled = published.clone();
            spoiled.layers.iter_mut().for_each(spoil);
            // Another tool rewrote the image, and somebody made it the published one.
            let digest = pod.plant(&spoiled);
            pod.published = Some(Published {
                digest,
                drv_path: first.drv_path.clone(),
                index: None,
            });
            let again = pod.push().await;
            assert_eq!((&again.digest, again.bytes_pushed), (&first.digest, 0));
        }
    }
}

/// Build code, which writes to the store and to `build.json` as it likes.
mod build_code {
    use super::*;

    #[tokio::test]
    async fn an_altered_path_of_a_known_layer_changes_nothing() {
        let mut pod = Pod::new().await;
        let first = pod.push().await;
        pod.publish(&first);
        pod.alter(3);
        // What Nix recorded is what is asked for, and that is what the registry has.
        let second = pod.push().await;
        assert_eq!((second.digest, second.bytes_pushed), (first.digest, 0));
    }

    #[tokio::test]
    async fn an_altered_path_of_a_new_layer_is_found() {
        let mut pod = Pod::new().await;
        let first = pod.push().await;
        pod.publish(&first);
        pod.change();
        pod.alter(11);
        let failure = pod.try_push().await.unwrap_err();
        assert_eq!(failure.reason(), Reason::StorePathInvalid);
        assert_eq!(pod.tagged("latest"), Some(first.digest));
    }

    #[tokio::test]
    async fn a_false_hash_gets_what_it_asks_for_and_records_nothing() {
        let mut pod = Pod::new().await;
        let first = pod.push().await;
        pod.publish(&first);
        let (path, other) = (pod.packages[3].path.clone(), pod.packages[4].info());
        pod.lie(|image| {
            image.closure.get_mut(&path).unwrap().nar_hash = other.nar_hash;
        });
        let failure = pod.try_push().await.unwrap_err();
        assert_eq!(failure.reason(), Reason::StorePathInvalid);
        assert_eq!(pod.tagged("latest"), Some(first.digest));
    }

    /// It may: what is in its own image is its own affair. Nobody else's image can get it.
    #[tokio::test]
    async fn a_consistent_lie_reaches_no_image_but_its_own() {
        let mut pod = Pod::new().await;
        let first = pod.push().await;
        pod.publish(&first);
        let altered = pod.alter(3);
        pod.lie(|image| {
            *image.closure.get_mut(&altered.path).unwrap() = altered.info();
        });
        let lied = pod.push().await;
        assert_ne!(lied.digest, first.digest);
        let lying = layers(&pod.manifest(&lied.digest))
            .find(|layer| layers(&pod.manifest(&first.digest)).all(|honest| honest != *layer));
        // An honest build comes next, and is told of the lying image's layers.
        pod.write(&pod.packages[3].clone());
        pod.publish(&lied);
        let honest = pod.push().await;
        assert_eq!(honest.digest, first.digest);
        assert!(layers(&pod.manifest(&honest.digest)).all(|layer| Some(layer) != lying));
    }

    #[tokio::test]
    async fn a_closure_that_names_what_is_not_in_the_store_is_refused() {
        let mut pod = Pod::new().await;
        let first = pod.push().await;
        pod.publish(&first);
        pod.lie(|image| {
            let missing = store_path(77, 0);
            let info = image.closure.values().next().unwrap().clone();
            // What nothing refers to is left out.
            let out_path = image.out_path.clone().unwrap();
            let output = image.closure.get_mut(&out_path).unwrap();
            output.references.push(missing.clone());
            image.closure.insert(missing, info);
        });
        let failure = pod.try_push().await.unwrap_err();
        assert_eq!(failure.reason(), Reason::StorePathInvalid);
        assert_eq!(pod.tagged("latest"), Some(first.digest));
    }
}

/// What is named as published, and what the registry has lost since.
mod lost {
    use super::*;

    #[tokio::test]
    async fn a_published_digest_that_is_gone_costs_work_only() {
        let mut pod = Pod::new().await;
        let first = pod.push().await;
        pod.published = Some(Published {
            digest: format!("sha256:{}", "0".repeat(64)),
            drv_path: first.drv_path.clone(),
            index: None,
        });
        let second = pod.push().await;
        assert_eq!((second.digest, second.bytes_pushed), (first.digest, 0));
    }

    #[tokio::test]
    async fn a_published_digest_of_something_else_tells_nothing() {
        let mut pod = Pod::new().await;
        let first = pod.push().await;
        for document in [&b"{\"schemaVersion\":2}"[..], b"[]", b"\xff"] {
            pod.registry
                .put_manifest(REPOSITORY, "x", media_type::INDEX, document);
            pod.published = Some(Published {
                digest: Digest::of(document).to_string(),
                drv_path: first.drv_path.clone(),
                index: None,
            });
            assert_eq!(pod.push().await.digest, first.digest);
        }
    }

    #[tokio::test]
    async fn a_collected_layer_under_a_manifest_that_stayed_is_made_again() {
        let mut pod = Pod::new().await;
        let first = pod.push().await;
        pod.publish(&first);
        for layer in layers(&pod.manifest(&first.digest)).take(2) {
            pod.registry.remove_blob(REPOSITORY, &layer);
        }
        assert!(!pod.registry.is_whole());
        let second = pod.push().await;
        assert_eq!((&second.digest, second.layers_pushed), (&first.digest, 2));
        assert!(pod.registry.is_whole());
        assert!(pod.registry.dangling().is_empty() || pod.tagged("latest") == Some(first.digest));
    }

    #[tokio::test]
    async fn a_collected_layer_of_another_repository_is_made_again() {
        let mut pod = Pod::new().await;
        let first = pod.push().await;
        let digest = first.digest.clone();
        pod.publish(&first);
        let manifest = pod.manifest(&digest);
        let bytes = manifest.to_bytes();
        pod.registry
            .put_manifest(OTHER, "x", media_type::MANIFEST, &bytes);
        let gone: Vec<Digest> = layers(&manifest).take(2).collect();
        for layer in layers(&manifest) {
            let blob = pod.registry.blob(REPOSITORY, &layer).unwrap();
            pod.registry.remove_blob(REPOSITORY, &layer);
            if !gone.contains(&layer) {
                pod.registry.put_blob(OTHER, blob);
            }
        }
        let pushed = pod.push_with_layers_of(&digest).await;
        assert_eq!((&pushed.digest, pushed.layers_pushed), (&digest, 2));
        assert!(pod.has_layers_of(&digest));
    }

    /// No tag may ever point to a missing blob, and such a registry does not help with that.
    #[tokio::test]
    async fn a_collected_layer_is_noticed_where_manifests_are_taken_unchecked() {
        let mut pod = Pod::new().await;
        pod.registry.set_habits(UNCHECKED);
        let first = pod.push().await;
        pod.publish(&first);
        pod.change();
        let gone: Vec<Digest> = layers(&pod.manifest(&first.digest)).take(2).collect();
        for layer in &gone {
            pod.registry.remove_blob(REPOSITORY, layer);
        }
        let second = pod.push().await;
        assert_eq!(
            second.layers_pushed, 3,
            "two that were gone, and the new one"
        );
        assert!(pod.has_layers_of(&second.digest));
        assert_eq!(pod.tagged("latest"), Some(second.digest.clone()));
        assert!(pod.registry.dangling().is_empty());
        assert_eq!(second.digest, pod.honest().await);
    }

    /// The image did not change, but a tag is to move to it.
    #[tokio::test]
    async fn no_tag_moves_to_an_unchanged_image_that_lost_a_layer() {
        let mut pod = Pod::new().await;
        pod.registry.set_habits(UNCHECKED);
        let first = pod.push().await;
        pod.publish(&first);
        let gone = layers(&pod.manifest(&first.digest)).next().unwrap();
        pod.registry.remove_blob(REPOSITORY, &gone);
        pod.tags.push("v2".into());
        let second = pod.push().await;
        assert_eq!((&second.digest, second.layers_pushed), (&first.digest, 1));
        assert!(pod.registry.is_whole());
        assert!(pod.registry.dangling().is_empty());
    }

    #[tokio::test]
    async fn publish_moves_no_tag_to_what_lost_a_part() {
        let mut pod = Pod::new().await;
        pod.registry.set_habits(UNCHECKED);
        let first = pod.push().await;
        pod.publish(&first);
        let (_never, stop) = Stop::never();
        let mut stages = Stages::default();
        let config = pod.manifest(&first.digest).config.digest;
        let layer = layers(&pod.manifest(&first.digest)).last().unwrap();
        for (tag, part) in [("a", layer), ("b", config)] {
            let bytes = pod.registry.blob(REPOSITORY, &part).unwrap();
            pod.registry.remove_blob(REPOSITORY, &part);
            pod.tags = vec![tag.into()];
            let settings = pod.settings();
            let published = publish::publish(&settings, &first.digest, &mut stages, &stop);
            let failure = published.await.unwrap_err();
            assert_eq!(failure.reason(), Reason::ManifestRejected);
            assert!(failure.0.message.contains(&part.to_string()));
            assert_eq!(pod.tagged(tag), None);
            pod.registry.put_blob(REPOSITORY, bytes);
        }
        let settings = pod.settings();
        let published = publish::publish(&settings, &first.digest, &mut stages, &stop);
        published.await.unwrap();
        assert_eq!(pod.tagged("b"), Some(first.digest));
    }

    /// A mount that was none, where the manifest does not tell.
    #[tokio::test]
    async fn a_mount_that_was_none_is_noticed_by_its_first_byte() {
        let pod = Pod::new().await;
        pod.registry.set_habits(UNCHECKED);
        let digest = pod.push().await.digest;
        let manifest = pod.manifest(&digest);
        pod.registry
            .put_manifest(OTHER, "x", media_type::MANIFEST, &manifest.to_bytes());
        for layer in layers(&manifest) {
            let blob = pod.registry.blob(REPOSITORY, &layer).unwrap();
            pod.registry.remove_blob(REPOSITORY, &layer);
            pod.registry.put_blob(OTHER, blob);
        }
        pod.registry
            .fault("POST", "mount=", Answer::Status(201, Vec::new(), ""));
        let pushed = pod.push_with_layers_of(&digest).await;
        assert_eq!((&pushed.digest, pushed.layers_pushed), (&digest, 1));
        assert_eq!(pushed.layers_mounted, pushed.layers_total - 1);
        assert_eq!(pod.registry.faults_left(), 0);
        assert!(pod.has_layers_of(&digest));
    }

    /// What it costs: one request for each layer that is taken over, and none if nothing changed.
    #[tokio::test]
    async fn a_layer_that_is_taken_over_costs_one_request() {
        let mut pod = Pod::new().await;
        let first = pod.push().await;
        pod.publish(&first);
        pod.change();
        pod.registry.forget();
        let second = pod.push().await;
        let reused = usize::try_from(second.layers_reused).unwrap();
        // Besides, the new layer and the config are looked for.
        assert_eq!(pod.registry.count("GET", "/blobs/sha256"), reused + 2);
        assert_eq!(pod.registry.count("POST", ""), 2);
    }

    /// A registry that keeps descriptors in memory says so for a blob that is gone.
    #[tokio::test]
    async fn a_head_that_lies_is_not_asked() {
        let pod = Pod::new().await;
        pod.registry
            .fault("HEAD", "/blobs/", Answer::Status(200, Vec::new(), ""));
        let pushed = pod.push().await;
        assert_eq!(pushed.layers_pushed, pushed.layers_total);
        // Still there: nobody asked.
        assert_eq!(pod.registry.faults_left(), 1);
        assert!(pod.registry.count("GET", "/blobs/sha256") > 0);
    }

    /// It answers the head of the read from memory, too, and has no first byte to send.
    #[tokio::test]
    async fn a_blob_without_its_first_byte_is_not_there() {
        let pod = Pod::new().await;
        for _ in 0..3 {
            pod.registry
                .fault("GET", "/blobs/sha256", Answer::Status(206, Vec::new(), ""));
        }
        let pushed = pod.push().await;
        assert_eq!(pushed.layers_pushed, pushed.layers_total);
        assert_eq!(pod.registry.faults_left(), 0);
        assert!(pod.registry.is_whole());
    }

    /// Two images are named; the one that would be the same again is gone, and so is its config.
    #[tokio::test]
    async fn a_manifest_that_is_gone_vouches_for_no_config() {
        let mut pod = Pod::new().await;
        let first = pod.push().await;
        let digest = first.digest.clone();
        pod.publish(&first);
        let manifest = pod.manifest(&digest);
        pod.change();
        let second = pod.push().await;
        pod.packages.last_mut().unwrap().contents.reverse();
        pod.packages.last_mut().unwrap().path = store_path(11, 0);
        pod.hand_off();
        pod.registry.remove_manifest(REPOSITORY, &digest);
        pod.registry
            .remove_blob(REPOSITORY, &manifest.config.digest);
        let named = [&digest, &second.digest];
        let build = run::Build {
            layers_from: named
                .map(|named| format!("{}/{REPOSITORY}@{named}", pod.registry.host()))
                .to_vec(),
            ..pod.build()
        };
        pod.registry.forget();
        let (_never, stop) = Stop::never();
        let done = push::push(&pod.settings(), &build, &mut Stages::default(), &stop).await;
        assert!(matches!(done.unwrap(), Outcome::Pushed(pushed) if pushed.digest == digest));
        // Not refused and begun again: it was known from the beginning that the config is missing.
        assert_eq!(pod.registry.count("PUT", "/manifests/sha256"), 1);
    }

    #[tokio::test]
    async fn a_mount_that_was_none_is_noticed_at_the_manifest() {
        let mut pod = Pod::new().await;
        let first = pod.push().await;
        let digest = first.digest.clone();
        pod.publish(&first);
        let bytes = pod.manifest(&digest).to_bytes();
        pod.registry
            .put_manifest(OTHER, "x", media_type::MANIFEST, &bytes);
        let gone = layers(&pod.manifest(&digest)).next().unwrap();
        pod.registry.remove_blob(REPOSITORY, &gone);
        pod.registry
            .fault("POST", "mount=", Answer::Status(201, Vec::new(), ""));
        let pushed = pod.push_with_layers_of(&digest).await;
        assert_eq!(pushed.digest, digest);
        assert_eq!(pod.registry.faults_left(), 0);
        assert!(pod.has_layers_of(&digest));
    }
}

fn layers(manifest: &Manifest) -> impl Iterator<Item = Digest> + '_ {
    manifest.layers.iter().map(|layer| layer.digest)
}
