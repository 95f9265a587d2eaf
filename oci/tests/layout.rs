//! An image written as a layout can be read back and archived, always with the same bytes.
#![expect(
    clippy::unwrap_used,
    reason = "helpers; clippy allows it in test functions only"
)]

use std::path::Path;

use firn_oci::layout::{LayoutError, named};
use firn_oci::{
    BuiltImage, Compression, Compressors, ContainerConfig, History, ImageBuilder, ImageConfig,
    Index, Layout, Manifest, Metadata, Platform,
};

fn write_image(root: &Path) -> (Layout, BuiltImage) {
    let layout = Layout::create(root).unwrap();
    let mut tar = layout
        .begin_layer(Compression::ZSTD, &Compressors::on_all_cores().unwrap())
        .unwrap();
    tar.directory(b"etc", Metadata::root(0o755)).unwrap();
    tar.file(b"etc/motd", Metadata::root(0o644), 3, &b"hi\n"[..])
        .unwrap();
    let layer = layout.finish_layer(tar).unwrap();
    let image = ImageBuilder::new(Platform::linux("amd64"))
        .created("1970-01-01T00:00:01Z".parse().unwrap())
        .config(ContainerConfig {
            entrypoint: vec!["/bin/motd".to_owned()],
            env: vec!["A=<1>".to_owned()],
            ..ContainerConfig::default()
        })
        .layer(
            layer,
            History {
                created_by: "test".to_owned(),
                ..History::default()
            },
        )
        .annotation("org.opencontainers.image.revision", "abc")
        .build();
    layout.put(&image.config).unwrap();
    layout.put(&image.manifest).unwrap();
    let name = "localhost:5000/team/motd:v1".parse().unwrap();
    layout
        .set_index(vec![named(image.manifest.descriptor.clone(), &name)])
        .unwrap();
    (layout, image)
}

#[test]
fn the_documents_are_these_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (_, image) = write_image(dir.path());
    expect_test::expect![[r#"{"created":"1970-01-01T00:00:01Z","architecture":"amd64","os":"linux","config":{"Env":["A=<1>"],"Entrypoint":["/bin/motd"]},"rootfs":{"type":"layers","diff_ids":["sha256:56ac9578292970370ec131b2bdc7b50b84841062346ebdedbfce904e51b2f8a5"]},"history":[{"created_by":"test"}]}"#]].assert_eq(&String::from_utf8(image.config.bytes).unwrap());
    expect_test::expect![[r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:0ad0aeee97370a9416464c9998216609ad522168579e5db8347a72fc93d19bb5","size":272},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+zstd","digest":"sha256:ed9c85941c475a1b33c395205630a81b42747a86766080ce540d849286096918","size":129}],"annotations":{"org.opencontainers.image.revision":"abc"}}"#]].assert_eq(&String::from_utf8(image.manifest.bytes).unwrap());
    expect_test::expect![[r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:04be01a5404d300f3fc86344ac8df461ae231cccb08991b940708f986793fb11","size":459,"platform":{"architecture":"amd64","os":"linux"},"annotations":{"io.containerd.image.name":"localhost:5000/team/motd:v1","org.opencontainers.image.ref.name":"v1"}}]}"#]]
        .assert_eq(&std::fs::read_to_string(dir.path().join("index.json")).unwrap());
}

#[test]
fn what_was_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let (_, image) = write_image(dir.path());
    let layout = Layout::open(dir.path()).unwrap();
    let index = layout.index().unwrap();
    let entry = index.for_platform(&Platform::linux("amd64")).unwrap();
    let manifest = Manifest::from_bytes(&layout.read(entry).unwrap()).unwrap();
    assert_eq!(manifest.layers, image.layers);
    let config = ImageConfig::from_bytes(&layout.read(&manifest.config).unwrap()).unwrap();
    assert_eq!(config.platform, Platform::linux("amd64"));
    assert_eq!(config.rootfs.diff_ids.len(), 1);
    assert!(layout.open_blob(&manifest.layers[0]).is_ok());
}

#[test]
fn two_folders_make_one_archive() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, _) = write_image(one.path());
    let (second, _) = write_image(two.path());
    // A blob that nothing points to is no part of the image.
    let stray = ImageBuilder::new(Platform::linux("arm64")).build().config;
    second.put(&stray).unwrap();
    let archive = first.write_archive(Vec::new()).unwrap();
    assert_eq!(archive, second.write_archive(Vec::new()).unwrap());

    let mut reader = tar::Archive::new(archive.as_slice());
    let names: Vec<String> = reader
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names.first().map(String::as_str), Some("blobs/"));
    assert_eq!(names.last().map(String::as_str), Some("oci-layout"));
    assert_eq!(names.len(), 2 + 3 + 2);
}

#[test]
fn an_index_holds_platforms_in_one_order() {
    let entry = |architecture: &str| {
        ImageBuilder::new(Platform::linux(architecture))
            .build()
            .manifest
            .descriptor
    };
    let (amd64, arm64) = (entry("amd64"), entry("arm64"));
    let index = Index::new(vec![arm64.clone(), amd64.clone()]);
    assert_eq!(index, Index::new(vec![amd64, arm64.clone()]));
    assert_eq!(
        index.for_platform(&"linux/arm64/v8".parse().unwrap()),
        Some(&arm64)
    );
    assert_eq!(Index::from_bytes(&index.to_bytes()).unwrap(), index);
}

#[test]
fn an_archive_of_a_nested_index_holds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, image) = write_image(dir.path());
    let index = firn_oci::Document::new(
        firn_oci::media_type::INDEX,
        Index::new(vec![image.manifest.descriptor]).to_bytes(),
    );
    layout.put(&index).unwrap();
    layout.set_index(vec![index.descriptor]).unwrap();
    let archive = layout.write_archive(Vec::new()).unwrap();
    let entries = tar::Archive::new(archive.as_slice())
        .entries()
        .unwrap()
        .count();
    assert_eq!(entries, 2 + 4 + 2);
}

#[test]
fn a_damaged_blob_is_named_with_both_digests() {
    let dir = tempfile::tempdir().unwrap();
    let (layout, image) = write_image(dir.path());
    let descriptor = image.config.descriptor;
    std::fs::write(layout.blob_path(&descriptor.digest), "{}").unwrap();
    let error = layout.read(&descriptor).unwrap_err();
    assert!(matches!(error, LayoutError::Damaged { actual_size: 2, .. }));
    assert!(error.to_string().contains(&descriptor.digest.to_string()));
}

#[test]
fn a_directory_that_is_no_layout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        Layout::open(dir.path()),
        Err(LayoutError::File { .. })
    ));
    std::fs::write(
        dir.path().join("oci-layout"),
        r#"{"imageLayoutVersion":"2"}"#,
    )
    .unwrap();
    assert!(matches!(
        Layout::open(dir.path()),
        Err(LayoutError::Version { .. })
    ));
}

#[test]
fn an_unfinished_layer_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::create(dir.path()).unwrap();
    let mut tar = layout
        .begin_layer(Compression::GZIP, &Compressors::on_all_cores().unwrap())
        .unwrap();
    tar.directory(b"etc", Metadata::root(0o755)).unwrap();
    drop(tar);
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "blobs" && name != "oci-layout")
        .collect();
    assert!(names.is_empty(), "{names:?}");
}
