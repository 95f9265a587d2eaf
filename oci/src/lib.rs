//! Container images as bytes and as a protocol: OCI manifests and configs, layers, layouts, and a
//! registry client. Nothing here knows Nix or Kubernetes.
//!
//! * What an image *is*: [`Digest`], [`Reference`], [`Descriptor`], [`Manifest`], [`Index`],
//!   [`ImageConfig`]; [`ImageBuilder`] assembles one.
//! * Its bytes: [`TarWriter`] into a [`LayerWriter`], which makes a [`Layer`].
//! * Where it goes: a [`Layout`] on disk, or a [`registry::Registry`].
//!
//! Foreign documents are parsed, not validated: what cannot be represented does not parse, and
//! what is not known is kept in `extra`. Everything written is deterministic: maps are sorted,
//! JSON is compact, and bytes are a function of the input alone.

pub mod compress;
mod config;
pub mod decompress;
mod descriptor;
mod digest;
mod image;
mod index;
mod json;
pub mod layer;
pub mod layout;
mod manifest;
pub mod media_type;
mod platform;
mod provider;
pub mod reference;
pub mod registry;
pub mod tar;
#[cfg(feature = "testing")]
pub mod testing;

pub use compress::{Compression, Compressors};
pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Digest, DigestError, Digesting};
pub use image::{BuiltImage, Document, ImageBuilder};
pub use index::{Index, IndexError};
pub use json::ParseError;
pub use layer::{Layer, LayerWriter};
pub use layout::Layout;
pub use manifest::Manifest;
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, RegistryHost, Repository, Tag};
pub use tar::{Metadata, TarWriter, Xattr};
