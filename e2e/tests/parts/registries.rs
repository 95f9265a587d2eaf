//! `firn-oci` with registries that others made: distribution 3, distribution 2.8 and
//! go-containerregistry's, with TLS and a login, and each behind a proxy that caps requests. What
//! was pushed is read back by crane and skopeo.

mod front;
mod load;
mod server;
mod tokens;

use std::io;
use std::num::NonZeroUsize;

use anyhow::{Result, ensure};
use firn_e2e::bench::node::Containerd;
use firn_e2e::cluster::services::{REGISTRY_PASSWORD, REGISTRY_USER};
use firn_oci::registry::{Copied, ManifestName, PushError, Registry};
use firn_oci::{
    BuiltImage, Compression, Compressors, Descriptor, Document, History, ImageBuilder, Index,
    Layer, LayerWriter, Metadata, Platform, Repository, layer, media_type,
};
use serde_json::json;
use server::{CAP, Make, Server};

fn repository(name: &str) -> Repository {
    name.parse().unwrap()
}

fn tag(name: &str) -> ManifestName {
    ManifestName::Tag(name.parse().unwrap())
}

/// A layer with one file of noise, which no compressor makes smaller.
fn write_layer(
    size: usize,
    compression: Compression,
    sink: impl io::Write,
) -> Result<Layer, firn_oci::tar::TarError> {
    let pool = Compressors::new(NonZeroUsize::MIN).map_err(firn_oci::tar::TarError::Write)?;
    let mut tar = LayerWriter::new(compression, &pool, sink).into_tar();
    tar.file(
        b"noise",
        Metadata::root(0o644),
        size as u64,
        noise(size).as_slice(),
    )?;
    layer::finish(tar).map(|(layer, _)| layer)
}

fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64 ^ size as u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Pushes an image of layers of these sizes under a tag.
async fn push(
    registry: &Registry,
    repository: &Repository,
    name: &str,
    compression: Compression,
    sizes: &[usize],
) -> Result<BuiltImage> {
    let mut builder = ImageBuilder::new(Platform::linux("amd64"));
    for &size in sizes {
        let pushed = registry
            .push_stream(repository, move |sink| {
                let layer = write_layer(size, compression, sink)?;
                Ok((layer.descriptor.clone(), layer))
            })
            .await;
        let layer = match pushed {
            Ok(layer) => layer,
            Err(PushError::<firn_oci::tar::TarError>::Produce(error)) => return Err(error.into()),
            Err(PushError::Registry(error)) => return Err(error.into()),
        };
        builder = builder.layer(layer, History::default());
    }
    let built = builder.build();
    registry.push_blob(repository, &built.config).await?;
    let digest = ManifestName::Digest(built.manifest.descriptor.digest);
    for name in [digest, tag(name)] {
        registry
            .put_manifest(repository, &name, &built.manifest)
            .await?;
    }
    Ok(built)
}

/// Everything that Firn asks of a registry, of this one.
async fn works_with(make: Make) -> Result<()> {
    let server = Server::start(make).await?;
    everything_works(&server).await
}

async fn everything_works(server: &Server) -> Result<()> {
    let make = server.make;
    let registry = server.client(&server.address, Some(REGISTRY_PASSWORD))?;
    let (app, other) = (repository("team/app"), repository("team/other"));

    let wrong = server.client(&server.address, Some("wrong"))?;
    let error = wrong.can_push(&app).await.unwrap_err();
    ensure!(
        error.is_auth() && !error.to_string().contains("wrong"),
        "{error}"
    );
    registry.can_push(&app).await?;

    let gzip = push(&registry, &app, "gzip", Compression::GZIP, &[1000, 300_000]).await?;
    server.crane_validates("team/app:gzip")?;
    server.skopeo_pulls("team/app:gzip")?;
    let zstd = push(&registry, &app, "zstd", Compression::ZSTD, &[1000, 300_000]).await?;
    server.skopeo_pulls("team/app:zstd")?;
    // Again, although all of it is there.
    push(&registry, &app, "zstd", Compression::ZSTD, &[1000, 300_000]).await?;

    // As many as a manifest may have by request, and one.
    if make == Make::Distribution3 {
        let sizes: Vec<usize> = (1..=400).collect();
        push(&registry, &app, "many", Compression::ZSTD, &sizes).await?;
        server.skopeo_pulls("team/app:many")?;
        push(&registry, &app, "one", Compression::ZSTD, &[1000]).await?;
        server.skopeo_pulls("team/app:one")?;
    }

    reads_back(&registry, &app, &zstd).await?;
    for base in [&gzip, &zstd] {
        load::Upon::new(server, &app, base)?.loads(base)?;
    }
    copies(make, &registry, &app, &other, &gzip).await?;
    server.crane_validates("team/other:copy")?;
    publishes_an_index(&registry, &app, &zstd).await?;
    attaches(&registry, &app, &zstd.manifest.descriptor).await?;
    sends_chunks(server).await
}

async fn reads_back(registry: &Registry, app: &Repository, image: &BuiltImage) -> Result<()> {
    let platform = Platform::linux("amd64");
    let found = registry.resolve_image(app, &tag("zstd"), &platform).await?;
    ensure!(found.is_some_and(|found| found.document.bytes == image.manifest.bytes));
    for layer in &image.layers {
        ensure!(registry.head_blob(app, &layer.digest).await?);
        ensure!(registry.probe_blob(app, &layer.digest).await?);
        // It verifies by itself, and says so at the end.
        let mut reader = registry.open_blob(app, layer).await?;
        while reader.next().await?.is_some() {}
    }
    let missing = Descriptor::of(media_type::LAYER_TAR, b"missing");
    ensure!(!registry.probe_blob(app, &missing.digest).await?);
    ensure!(registry.get_manifest(app, &tag("none")).await?.is_none());
    Ok(())
}

async fn copies(
    make: Make,
    registry: &Registry,
    app: &Repository,
    other: &Repository,
    image: &BuiltImage,
) -> Result<()> {
    for blob in image.layers.iter().chain([&image.config.descriptor]) {
        let copied = registry.copy_blob(other, registry, app, blob).await?;
        // crane's keeps all blobs in one place: they are there before they are copied.
        let expected = match make {
            Make::Crane => Copied::Present,
            Make::Distribution2 | Make::Distribution3 | Make::Distribution3WithTokens => {
                Copied::Mounted
            }
        };
        ensure!(copied == expected, "{copied:?}");
    }
    registry
        .put_manifest(other, &tag("copy"), &image.manifest)
        .await?;
    Ok(())
}

async fn publishes_an_index(
    registry: &Registry,
    app: &Repository,
    image: &BuiltImage,
) -> Result<()> {
    let index = Index::of_platforms(vec![image.manifest.descriptor.clone()])?;
    let tags = ["all".parse()?, "latest".parse()?];
    let pushed = registry.push_index(app, &index, &tags).await?;
    let platform = Platform::linux("amd64");
    let found = registry
        .resolve_image(app, &tag("latest"), &platform)
        .await?;
    ensure!(found.is_some_and(|found| {
        found.named == pushed.descriptor.digest && found.document.bytes == image.manifest.bytes
    }));
    Ok(())
}

async fn attaches(registry: &Registry, app: &Repository, subject: &Descriptor) -> Result<()> {
    let empty = Document::new(media_type::EMPTY, b"{}".to_vec());
    registry.push_blob(app, &empty).await?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::MANIFEST,
        "artifactType": "application/spdx+json",
        "config": empty.descriptor,
        "layers": [empty.descriptor],
        "subject": Descriptor::new(&subject.media_type, subject.digest, subject.size),
    });
    let document = Document::new(media_type::MANIFEST, manifest.to_string().into_bytes());
    registry.attach(app, &document).await?;
    let kind = Some("application/spdx+json");
    let listed = registry.referrers(app, &subject.digest, kind).await?;
    let digests: Vec<_> = listed.iter().map(|entry| entry.digest).collect();
    ensure!(digests == [document.descriptor.digest], "{listed:?}");
    Ok(())
}

/// Through the proxy that lets no whole layer pass.
async fn sends_chunks(server: &Server) -> Result<()> {
    let capped = server.client(&server.capped, Some(REGISTRY_PASSWORD))?;
    let app = repository("team/chunks");
    let sizes = &[2 * CAP, 1000];
    let built = push(&capped, &app, "chunks", Compression::GZIP, sizes).await?;
    server.crane_validates("team/chunks:chunks")?;
    let direct = server.client(&server.address, Some(REGISTRY_PASSWORD))?;
    let mut reader = direct.open_blob(&app, &built.layers[0]).await?;
    let mut size = 0;
    while let Some(piece) = reader.next().await? {
        size += piece.len();
    }
    ensure!(size > 2 * CAP, "{size}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn distribution_3_takes_all_that_firn_asks_of_a_registry() -> Result<()> {
    works_with(Make::Distribution3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn distribution_3_takes_tokens_for_a_password() -> Result<()> {
    let server = Server::start(Make::Distribution3WithTokens).await?;
    everything_works(&server).await?;
    let asked = server.tokens.as_ref().map(tokens::Tokens::asked);
    // A mount needs the right to both repositories at once.
    let both = [
        "repository:team/app:pull",
        "repository:team/other:pull,push",
    ];
    let both = both.map(str::to_owned).into();
    ensure!(
        asked.as_ref().is_some_and(|asked| asked.contains(&both)),
        "{asked:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn distribution_2_8_takes_all_that_firn_asks_of_a_registry() -> Result<()> {
    works_with(Make::Distribution2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn crane_s_registry_takes_all_that_firn_asks_of_a_registry() -> Result<()> {
    works_with(Make::Crane).await
}

/// One layer in both ways of compressing, and about as many as a manifest may have by request; each
/// of them by itself and below another image. No two have a layer in common: all are unpacked.
#[tokio::test(flavor = "multi_thread")]
async fn containerd_takes_what_was_pushed_and_what_is_loaded() -> Result<()> {
    let server = Server::start(Make::Distribution3).await?;
    let registry = server.client(&server.address, Some(REGISTRY_PASSWORD))?;
    let app = repository("team/app");
    let folder = tempfile::tempdir()?;
    let node = Containerd::start(server.programs(), folder.path())?;
    let (login, ca) = (
        format!("{REGISTRY_USER}:{REGISTRY_PASSWORD}"),
        server.ca().display().to_string(),
    );
    let pull = |image: &str| {
        // The daemon itself takes no certificate.
        let options = ["--local", "--user", &login, "--tlscacert", &ca];
        node.pull_with(&options, &format!("{}/{image}", server.address))
    };
    let mut unpacked = 0;
    for (name, compression, sizes) in [
        ("gzip-one", Compression::GZIP, 3001..=3001),
        ("zstd-one", Compression::ZSTD, 3002..=3002),
        ("many", Compression::ZSTD, 2001..=2400),
    ] {
        let sizes: Vec<usize> = sizes.collect();
        let base = push(&registry, &app, name, compression, &sizes).await?;
        pull(&format!("team/app:{name}"))?;
        unpacked += sizes.len() as u64;
        ensure!(node.unpacked()? == unpacked, "{name}");

        let upon = load::Upon::new(&server, &app, &base)?;
        let image = format!("team/upon:{name}");
        upon.is_pushed_to(&image)?;
        server.skopeo_pulls(&image)?;
        pull(&image)?;
        // `/tmp` lies on top.
        unpacked += 1;
        let now = node.unpacked()?;
        ensure!(now == unpacked, "{image}: {now} of {unpacked}");
        // The layers are the same ones.
        let loaded = format!("docker.io/library/{name}:v1");
        upon.loads_into(&node, &loaded)?;
        ensure!(node.images()?.lines().any(|image| image == loaded));
        ensure!(node.unpacked()? == unpacked, "{loaded}");
    }
    Ok(())
}
