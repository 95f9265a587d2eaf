//! From a name to an image for a platform: through indexes, of either family, to manifest and
//! config.

use reqwest::Method;

use super::{Ask, Error, ManifestName, PULL, Registry};
use crate::{Descriptor, Digest, Document, Index, Manifest, Platform, Repository, media_type};

/// Indexes within indexes: the specification allows them, nobody needs more than one in another.
const DEPTH_MAX: usize = 3;
/// Documents read for one name: an index of indexes is searched in their order.
const DOCUMENTS_MAX: usize = 16;

/// An image as a base: what it is, before any of its layers is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// What the name pointed to: an index, or the manifest itself. To pin the base by.
    pub named: Digest,
    /// The manifest for the platform, as the registry has it.
    pub document: Document,
    /// The same, parsed.
    pub manifest: Manifest,
    /// The config's bytes. They are what the manifest says.
    pub config: Vec<u8>,
}

/// Of a config, what says where it runs.
#[derive(serde::Deserialize)]
struct Runs {
    #[serde(flatten)]
    platform: Platform,
}

impl Registry {
    /// The image of a name for a platform. `None`: there is nothing of that name, or it is not
    /// shown to us.
    ///
    /// # Errors
    /// The registry refuses or does not answer; there is no image for the platform
    /// ([`Error::NoSuchPlatform`]); what is there is no image, or not what its digest says.
    pub async fn resolve_image(
        &self,
        repository: &Repository,
        name: &ManifestName,
        platform: &Platform,
    ) -> Result<Option<ResolvedImage>, Error> {
        let Some(document) = self.get_manifest(repository, name).await? else {
            return Ok(None);
        };
        let named = document.descriptor.digest;
        let mut search = Search {
            registry: self,
            repository,
            wanted: platform,
            offered: Vec::new(),
            left: DOCUMENTS_MAX,
        };
        let found = search.run(document).await?;
        let Some((document, manifest, config)) = found else {
            return Err(search.nothing());
        };
        Ok(Some(ResolvedImage {
            named,
            document,
            manifest,
            config,
        }))
    }
}

struct Search<'a> {
    registry: &'a Registry,
    repository: &'a Repository,
    wanted: &'a Platform,
    /// What there was instead.
    offered: Vec<String>,
    left: usize,
}

type Found = (Document, Manifest, Vec<u8>);

impl Search<'_> {
    /// Depth first, in the order of the indexes; a list instead of recursion, with the depth of
    /// each entry.
    async fn run(&mut self, first: Document) -> Result<Option<Found>, Error> {
        let mut open = vec![(first, 0)];
        while let Some((document, depth)) = open.pop() {
            if !media_type::is_index(&kind(&document)) {
                if let Some(found) = self.manifest(document).await? {
                    return Ok(Some(found));
                }
                continue;
            }
            let index = Index::from_bytes(&document.bytes)
                .map_err(|_| self.malformed("what is there is no image index"))?;
            if depth >= DEPTH_MAX {
                return Err(self.malformed("its indexes lie within indexes more than three deep"));
            }
            let mut next = Vec::new();
            for entry in candidates(&index, self.wanted) {
                next.push((self.read(entry).await?, depth + 1));
            }
            if next.is_empty() {
                let real = index
                    .manifests
                    .iter()
                    .filter_map(|entry| entry.platform.as_ref());
                let real = real.filter(|platform| platform.os != "unknown");
                self.offered.extend(real.map(Platform::to_string));
            }
            open.extend(next.into_iter().rev());
        }
        Ok(None)
    }

    /// A manifest with its config, if it is for the platform.
    async fn manifest(&mut self, document: Document) -> Result<Option<Found>, Error> {
        let Ok(manifest) = Manifest::from_bytes(&document.bytes) else {
            return Err(self.malformed(
                "what is there is no image manifest that Firn reads (OCI, or Docker schema 2)",
            ));
        };
        let is_image = matches!(
            manifest.config.media_type.as_str(),
            media_type::CONFIG | media_type::DOCKER_CONFIG
        );
        if !is_image {
            return Err(self.malformed("what is there is an artifact and no image"));
        }
        let config = self
            .registry
            .read_blob(self.repository, &manifest.config)
            .await?;
        let Ok(Runs { platform }) = serde_json::from_slice(&config) else {
            return Err(self.malformed("its config names no platform"));
        };
        if platform.matches(self.wanted) {
            return Ok(Some((document, manifest, config)));
        }
        self.offered.push(platform.to_string());
        Ok(None)
    }

    async fn read(&mut self, entry: &Descriptor) -> Result<Document, Error> {
        if self.left == 0 {
            return Err(self.malformed("it leads to more than 16 other documents"));
        }
        self.left -= 1;
        let name = ManifestName::Digest(entry.digest);
        let found = self.registry.get_manifest(self.repository, &name).await?;
        found.ok_or_else(|| self.malformed("its index names a manifest that is not there"))
    }

    fn place(&self) -> Ask<'_> {
        Ask::of(
            self.registry,
            self.repository,
            "find an image",
            Method::GET,
            "",
            PULL,
        )
    }

    fn malformed(&self, what: &str) -> Error {
        Error::Malformed {
            place: Box::new(self.place().place()),
            what: what.to_owned(),
        }
    }

    fn nothing(&mut self) -> Error {
        let mut offered = std::mem::take(&mut self.offered);
        offered.sort();
        offered.dedup();
        Error::NoSuchPlatform {
            place: Box::new(self.place().place()),
            wanted: self.wanted.to_string(),
            offered,
        }
    }
}

/// The entry for the platform; if there is none, whatever does not say what it is for: further
/// indexes, and manifests without a platform, whose config tells. Attestations are neither.
fn candidates<'a>(index: &'a Index, wanted: &Platform) -> Vec<&'a Descriptor> {
    let direct = index.for_platform(wanted);
    if let Some(direct) = direct.filter(|entry| !media_type::is_index(&entry.media_type)) {
        return vec![direct];
    }
    let open = |entry: &&Descriptor| match &entry.platform {
        Some(platform) => media_type::is_index(&entry.media_type) && platform.matches(wanted),
        None => {
            media_type::is_index(&entry.media_type) || media_type::is_manifest(&entry.media_type)
        }
    };
    index.manifests.iter().filter(open).collect()
}

/// What a document is, by its own word rather than the header's: a registry serves old ones with
/// whatever type they were pushed by.
fn kind(document: &Document) -> String {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_slice::<Kind>(&document.bytes) {
        Ok(Kind {
            media_type: Some(own),
            ..
        }) => own,
        Ok(Kind {
            manifests: Some(_), ..
        }) => media_type::INDEX.to_owned(),
        _ => document.descriptor.media_type.clone(),
    }
}
