//! Recipe keys: what a layer is made of, so that it is known without being read. Pure.
//!
//! The key and the diffID of a layer stand as annotations on its descriptor in the manifest. Both
//! are functions of the inputs, so digests stay what they are. The next push reads the published
//! manifest, by the digest that the operator has in its status and never by a tag: nobody who can
//! write to the registry can plant anything.
//!
//! Hashes of the closure are claims of the build. For asking they are good enough: a false one asks
//! for a layer with those contents and gets it. Before a key is *recorded*, the pass that makes the
//! layer has compared them with the contents.

use std::collections::{BTreeMap, BTreeSet};

use firn_oci::{Compression, Descriptor, Digest, Layer, Manifest, Repository};
use sha2::{Digest as _, Sha256};

use crate::closure::Closure;
use crate::input::Contents;
use crate::input::blob::Form;
use crate::input::nix2container::{Options, Rewrite};
use crate::nix_database;
use crate::store_path::StorePath;

/// Annotation of a layer: its key.
pub const ANNOTATION_KEY: &str = "dev.firn.layer.recipe";
/// Annotation of a layer: the digest of its uncompressed archive.
pub const ANNOTATION_DIFF_ID: &str = "dev.firn.layer.diff-id";

/// What a layer is made of: tar profile, encoder with its version, and paths with their contents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// The key of a layer. Paths that are not in the closure have no key that another push could
    /// find; there are none, since front ends check.
    pub fn of(contents: &Contents, closure: &Closure, compression: Compression) -> Self {
        let mut fields = Fields(Sha256::new());
        match contents {
            Contents::Paths(layer) => {
                fields.add("firn/layer/1");
                fields.add(layer.profile.name());
                fields.add(&compression.identity());
                layer
                    .paths
                    .iter()
                    .for_each(|path| fields.path(path, closure));
            }
            Contents::Nix2container(layer) => {
                fields.add("firn/nix2container/1");
                fields.add(&compression.identity());
                for entry in &layer.entries {
                    fields.path(&entry.path, closure);
                    fields.options(entry.options.as_ref());
                }
            }
            Contents::DockerTools(layer) => {
                let owner = &layer.owner;
                fields.add("firn/docker-tools/1");
                fields.add(&compression.identity());
                fields.add(&format!("{}:{};{}", owner.uid, owner.gid, owner.mtime));
                fields.add(&owner.user);
                fields.add(&owner.group);
                layer
                    .paths
                    .iter()
                    .for_each(|path| fields.path(path, closure));
            }
            // What was declared is compared when it is made: where it is makes no difference.
            Contents::Blob(blob) => {
                fields.add("firn/blob/1");
                match &blob.form {
                    Form::Tar => fields.add(&compression.identity()),
                    Form::Verbatim { encoding, digest } => {
                        fields.add(&format!("verbatim {encoding:?}"));
                        if let Some(digest) = digest {
                            fields.add(&digest.to_string());
                        } else {
                            // Other bytes have the same contents: these are meant.
                            fields.path(&blob.place.path, closure);
                            fields.add(&blob.place.inside);
                            fields.add(&format!("{:?}", blob.member));
                        }
                    }
                }
                fields.add(&blob.diff_id.to_string());
            }
            Contents::Files(tree) => {
                fields.add("firn/files/1");
                fields.add(&compression.identity());
                // Maps and lists of texts and numbers, in one order: it cannot fail.
                fields.add(&serde_json::to_string(tree).unwrap_or_default());
                for path in tree.sources(closure) {
                    fields.add(path.base_name());
                    if let Some(info) = closure.paths().get(path) {
                        fields.add(&info.nar_hash.to_string());
                    }
                }
            }
            Contents::NixDatabase(database) => {
                fields.add(nix_database::VERSION);
                fields.add(&compression.identity());
                fields.add(&format!("{}:{}", database.uid, database.gid));
                fields.add(&format!("over a base: {}", database.has_base));
                for (path, info) in database.infos(closure) {
                    fields.path(path, closure);
                    let references: BTreeSet<&StorePath> = info.references.iter().collect();
                    fields.add(&format!("{} {}", info.nar_size, references.len()));
                    for other in references {
                        fields.add(other.base_name());
                    }
                }
            }
            Contents::Remote(remote) => {
                fields.add("firn/remote/1");
                fields.add(&remote.descriptor.digest.to_string());
            }
        }
        fields.finish()
    }
}

/// A hash over texts, each with its length, so that no two lists are alike.
struct Fields(Sha256);

impl Fields {
    fn add(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    fn path(&mut self, path: &StorePath, closure: &Closure) {
        self.add(path.base_name());
        if let Some(info) = closure.paths().get(path) {
            self.add(&info.nar_hash.to_string());
        }
    }

    fn options(&mut self, options: Option<&Options>) {
        let Some(options) = options else {
            return self.add("plain");
        };
        match &options.rewrite {
            Rewrite::None => self.add("stays"),
            Rewrite::Prefix { replacement, .. } => {
                self.add("moves");
                self.add(replacement);
            }
            Rewrite::Regex { regex, replacement } => {
                self.add("is rewritten");
                self.add(regex);
                self.add(replacement);
            }
        }
        self.add(&options.perms.len().to_string());
        for perm in &options.perms {
            self.add(&perm.regex);
            self.add(&format!("{:?};{}:{}", perm.mode, perm.uid, perm.gid));
            self.add(&perm.user);
            self.add(&perm.group);
        }
    }

    fn finish(self) -> Key {
        Key(Digest::of(&self.0.finalize()).hex())
    }
}

/// The layers of published images by their keys.
#[derive(Debug, Clone, Default)]
pub struct Known {
    layers: BTreeMap<Key, KnownLayer>,
    /// Where each config is.
    configs: BTreeMap<Digest, Repository>,
}

/// A layer that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownLayer {
    /// The layer. Its uncompressed size is not known, and nobody needs it for one that is not made.
    pub layer: Layer,
    /// Where it is.
    pub repository: Repository,
}

impl Known {
    /// Adds what a manifest in `repository` tells. Layers without annotations, or with broken ones,
    /// are left out; what was added before stays.
    pub fn add(&mut self, manifest: &Manifest, repository: &Repository) {
        for descriptor in &manifest.layers {
            let Some((key, layer)) = annotated(descriptor) else {
                continue;
            };
            self.layers.entry(key).or_insert_with(|| KnownLayer {
                layer,
                repository: repository.clone(),
            });
        }
        let config = self.configs.entry(manifest.config.digest);
        config.or_insert_with(|| repository.clone());
    }

    /// The layer with this key.
    pub fn get(&self, key: &Key) -> Option<&KnownLayer> {
        self.layers.get(key)
    }

    /// The repository that has a config.
    pub fn config(&self, digest: &Digest) -> Option<&Repository> {
        self.configs.get(digest)
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
}

fn annotated(descriptor: &Descriptor) -> Option<(Key, Layer)> {
    let key = Key(descriptor.annotations.get(ANNOTATION_KEY)?.clone());
    let diff_id = descriptor.annotations.get(ANNOTATION_DIFF_ID)?;
    let layer = Layer {
        diff_id: diff_id.parse().ok()?,
        uncompressed_size: 0,
        descriptor: descriptor.clone(),
    };
    Some((key, layer))
}

/// The descriptor with its key and diffID written on it, beside `annotations`.
pub fn annotate(
    descriptor: Descriptor,
    key: &Key,
    diff_id: &Digest,
    annotations: &BTreeMap<String, String>,
) -> Descriptor {
    let mut annotations = annotations.clone();
    annotations.insert(ANNOTATION_KEY.into(), key.0.clone());
    annotations.insert(ANNOTATION_DIFF_ID.into(), diff_id.to_string());
    Descriptor {
        annotations,
        ..descriptor
    }
}

#[cfg(test)]
mod tests {
    use firn_oci::decompress::Encoding;
    use proptest::prelude::*;

    use super::*;
    use crate::input::blob::Blob;
    use crate::input::docker_tools::{Owner, StoreLayer};
    use crate::input::nix2container::{PathEntry, PathsLayer, Perm};
    use crate::input::{Paths, Profile};
    use crate::nar_hash::NarHash;
    use crate::nix_database::NixDatabase;
    use crate::store::Place;
    use crate::store_path::StorePath;
    use crate::testing::{info, path};

    fn closure(hash: u8) -> Closure {
        let mut app = info(1, &[]);
        app.nar_hash = NarHash([hash; 32]);
        Closure::new([(path("app"), app), (path("lib"), info(1, &[]))].into()).unwrap()
    }

    fn key(hash: u8, paths: &[StorePath], compression: Compression) -> Key {
        let contents = Contents::Paths(Paths {
            profile: Profile::Nar1,
            paths: paths.to_vec(),
        });
        Key::of(&contents, &closure(hash), compression)
    }

    #[test]
    fn the_key_follows_everything_the_bytes_depend_on() {
        let (app, both) = ([path("app")], [path("app"), path("lib")]);
        let first = key(1, &app, Compression::ZSTD);
        assert_eq!(first, key(1, &app, Compression::ZSTD));
        assert_ne!(first, key(2, &app, Compression::ZSTD));
        assert_ne!(first, key(1, &app, Compression::GZIP));
        assert_ne!(first, key(1, &both, Compression::ZSTD));
    }

    #[test]
    fn each_tar_format_has_its_own_key() {
        let key = |profile| {
            let paths = vec![path("app")];
            let contents = Contents::Paths(Paths { profile, paths });
            Key::of(&contents, &closure(1), Compression::ZSTD)
        };
        let all = [Profile::Nar1, Profile::Nix2container, Profile::DockerTools];
        let keys: BTreeSet<Key> = all.map(key).into();
        assert_eq!(keys.len(), 3);
    }

    /// Up to four of six paths, each with one of three contents.
    fn recipe() -> impl Strategy<Value = Vec<(usize, u8)>> {
        prop::collection::btree_map(0..6_usize, 1..4_u8, 1..5)
            .prop_map(|map| map.into_iter().collect())
    }

    fn key_of(recipe: &[(usize, u8)]) -> Key {
        let paths: Vec<StorePath> = recipe.iter().map(|(i, _)| path(&format!("p{i}"))).collect();
        let infos = recipe.iter().map(|(_, hash)| {
            let mut info = info(1, &[]);
            info.nar_hash = NarHash([*hash; 32]);
            info
        });
        let closure = Closure::new(paths.iter().cloned().zip(infos).collect()).unwrap();
        let contents = Contents::Paths(Paths {
            profile: Profile::Nar1,
            paths,
        });
        Key::of(&contents, &closure, Compression::ZSTD)
    }

    proptest! {
        #[test]
        fn layers_have_one_key_only_if_they_are_the_same(a in recipe(), b in recipe()) {
            prop_assert_eq!(key_of(&a) == key_of(&b), a == b);
        }

        #[test]
        fn no_annotation_is_taken_for_another_layers(
            key in "[0-9a-f]{64}|\\PC{0,70}", diff_id in "sha256:[0-9a-f]{64}|\\PC{0,80}",
        ) {
            let mut layer = Descriptor::of("application/vnd.oci.image.layer.v1.tar+zstd", b"blob");
            layer.annotations.insert(ANNOTATION_KEY.into(), key.clone());
            layer.annotations.insert(ANNOTATION_DIFF_ID.into(), diff_id.clone());
            let config = Descriptor::of("application/vnd.oci.image.config.v1+json", b"{}");
            let mut known = Known::default();
            known.add(&Manifest::new(config, vec![layer]), &"team/app".parse().unwrap());
            prop_assert!(known.get(&key_of(&[(0, 1)])).is_none());
            prop_assert_eq!(known.is_empty(), diff_id.parse::<Digest>().is_err());
        }
    }

    /// Each change of what a layer of others is made of, and the key that it has then.
    #[test]
    fn keys_follow_everything_that_others_describe() {
        let declared = Digest::of(b"declared");
        let entry = |options| PathEntry {
            path: path("app"),
            options,
        };
        let moved = |rewrite, perms| entry(Some(Options { rewrite, perms }));
        let perm = |mode, uid| Perm {
            regex: "x".to_owned(),
            mode,
            uid,
            gid: 0,
            user: String::new(),
            group: String::new(),
        };
        let to = |replacement: &str| Rewrite::Prefix {
            prefix: path("app").to_string(),
            replacement: replacement.to_owned(),
        };
        let nix2container =
            |entries| Contents::Nix2container(Box::new(PathsLayer { entries, declared }));
        let docker_tools = |uid, mtime| {
            Contents::DockerTools(Box::new(StoreLayer {
                paths: vec![path("app")],
                owner: Owner {
                    uid,
                    gid: 0,
                    user: "root".to_owned(),
                    group: "root".to_owned(),
                    mtime,
                },
            }))
        };
        let blob = |form, diff_id: &[u8]| {
            Contents::Blob(Blob {
                place: Place::of(&path("app")),
                member: None,
                form,
                diff_id: Digest::of(diff_id),
            })
        };
        let gzip = |digest: Option<&[u8]>| Form::Verbatim {
            encoding: Encoding::Gzip,
            digest: digest.map(Digest::of),
        };
        let contents = [
            nix2container(vec![entry(None)]),
            nix2container(vec![moved(Rewrite::None, vec![])]),
            nix2container(vec![moved(to(""), vec![])]),
            nix2container(vec![moved(to("/opt"), vec![])]),
            nix2container(vec![moved(to(""), vec![perm(None, 0)])]),
            nix2container(vec![moved(to(""), vec![perm(Some(0o755), 0)])]),
            nix2container(vec![moved(to(""), vec![perm(None, 7)])]),
            docker_tools(0, 1),
            docker_tools(1000, 1),
            docker_tools(0, 2),
            blob(Form::Tar, b"1"),
            blob(Form::Tar, b"2"),
            blob(gzip(Some(b"1")), b"1"),
            blob(gzip(Some(b"2")), b"1"),
            blob(gzip(None), b"1"),
        ];
        let keys = |compression| -> BTreeSet<Key> {
            let closure = closure(1);
            let keys = contents.iter();
            keys.map(|contents| Key::of(contents, &closure, compression))
                .collect()
        };
        let zstd = keys(Compression::ZSTD);
        assert_eq!(zstd.len(), contents.len());
        // What is copied as it is does not depend on how Firn compresses.
        let gzip = keys(Compression::GZIP);
        assert_eq!(zstd.intersection(&gzip).count(), 3);
    }

    #[test]
    fn a_database_s_key_follows_everything_that_nix_is_told() {
        let closure = |size, references: &[&str]| {
            let lib = info(1, &[]);
            Closure::new([(path("app"), info(size, references)), (path("lib"), lib)].into())
        };
        let key = |uid, has_base, closure: &Closure| {
            let contents = Contents::NixDatabase(Box::new(NixDatabase {
                paths: closure.paths().keys().cloned().collect(),
                uid,
                gid: 0,
                has_base,
            }));
            Key::of(&contents, closure, Compression::ZSTD)
        };
        let plain = closure(1, &["lib"]).unwrap();
        let keys: BTreeSet<Key> = [
            key(0, false, &plain),
            key(1, false, &plain),
            key(0, true, &plain),
            key(0, false, &closure(2, &["lib"]).unwrap()),
            key(0, false, &closure(1, &[]).unwrap()),
        ]
        .into();
        assert_eq!(keys.len(), 5);
        let twice = closure(1, &["lib", "lib"]).unwrap();
        assert_eq!(key(0, false, &plain), key(0, false, &twice));
    }

    #[test]
    fn a_manifest_tells_its_layers_and_the_first_one_that_does_is_believed() {
        let key = key(1, &[path("app")], Compression::ZSTD);
        let diff_id = Digest::of(b"tar");
        let plain = Descriptor::of("application/vnd.oci.image.layer.v1.tar+zstd", b"blob");
        let annotated = annotate(plain.clone(), &key, &diff_id, &BTreeMap::new());
        let config = Descriptor::of("application/vnd.oci.image.config.v1+json", b"{}");
        let manifest = Manifest::new(config, vec![plain, annotated.clone()]);
        let (here, there): (Repository, Repository) =
            ("team/app".parse().unwrap(), "team/old".parse().unwrap());
        let mut known = Known::default();
        assert!(known.is_empty());
        known.add(&manifest, &here);
        known.add(&manifest, &there);
        let found = known.get(&key).unwrap();
        assert_eq!(
            (
                found.layer.diff_id,
                &found.layer.descriptor,
                &found.repository
            ),
            (diff_id, &annotated, &here)
        );
    }
}
