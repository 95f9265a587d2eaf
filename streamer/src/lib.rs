//! The program of a build pod: `check`, `fetch`, `build`, `push` and `publish`, around a pure
//! planning core; and the same core in a person's hands, without a cluster ([`local`]). It knows
//! Nix, git and registries, and nothing of Kubernetes.

pub mod build;
pub mod ca;
pub mod check;
pub mod closure;
pub mod compression;
pub mod confine;
pub mod describe;
pub mod entry_point;
pub mod failure;
pub mod fetch;
pub mod git;
pub mod handoff;
pub mod image_kind;
pub mod input;
pub mod layer;
pub mod layering;
pub mod local;
pub mod maker;
pub mod nar;
pub mod nar_hash;
pub mod nix;
pub mod nix_database;
pub mod paths;
pub mod program;
pub mod publish;
pub mod push;
pub mod recipe;
pub mod report;
pub mod resources;
pub mod run;
pub mod settings;
pub mod sqlite;
pub mod stages;
pub mod stop;
pub mod store;
pub mod store_path;
pub mod tag_policy;
pub mod target;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod watch;
