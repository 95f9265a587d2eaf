//! The program of a build pod: `check`, `fetch`, `build`, `push` and `publish`, around a pure
//! planning core. It knows Nix, git and registries, and nothing of Kubernetes.

pub mod closure;
pub mod layer;
pub mod layering;
pub mod nar;
pub mod nar_hash;
pub mod store_path;
#[cfg(test)]
mod testing;
