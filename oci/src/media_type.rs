//! Media types of the OCI image specification and their Docker counterparts.
//! <https://github.com/opencontainers/image-spec/blob/main/media-types.md>
//!
//! Firn writes OCI's; Docker's are read. The two families are never mixed in one manifest.

/// A manifest: one config and its layers.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An index: manifests by platform.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An image's config.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A layer, not compressed.
pub const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// A layer, gzip.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A layer, zstd. containerd 1.5 or CRI-O and newer; Docker 23 and newer.
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The config `{}` of an artifact that is no image.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Docker's manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's image config.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's layer, not compressed.
pub const DOCKER_LAYER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker's layer, gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Whether a document of this type is an index (of either family).
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_INDEX)
}

/// Whether a document of this type is a manifest (of either family).
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MANIFEST | DOCKER_MANIFEST)
}
