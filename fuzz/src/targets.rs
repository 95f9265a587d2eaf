//! The targets: one module for each source of foreign input.

use crate::Target;

mod build;
mod description;
mod foreign_image;
mod git;
mod image_documents;
mod names;
mod nix;
mod planted;
mod registry;
mod submodules;
mod tar_read;
mod tar_write;

/// Every target by its name, which is also its folder in `corpus/`.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("built-file", foreign_image::file),
    ("built-layout", foreign_image::layout),
    ("description", description::run),
    ("docker-config", registry::docker_config),
    ("git-answers", git::answers),
    ("handoff", build::handoff),
    ("image-documents", image_documents::run),
    ("names", names::run),
    ("nix-log", nix::log),
    ("path-info", nix::path_info),
    ("planted", planted::run),
    ("pod-report", build::report),
    ("registry-answers", registry::answers),
    ("registry-headers", registry::headers),
    ("submodules", submodules::run),
    ("tar-read", tar_read::run),
    ("tar-write", tar_write::run),
];
