//! Where things are inside a build pod. One volume per producer, read-only elsewhere: what check
//! and fetch found cannot be rewritten by build code.
//!
//! ```text
//! volume    mounted at     check  fetch  build  push
//! nix       /nix             -     rw     rw     ro
//! source    /firn/source     -     rw     ro     ro
//! check     /firn/check      rw    -      ro     ro
//! handoff   /firn/handoff    -     -      rw     ro
//! tmp-*     /tmp             rw    rw     rw     rw    each its own
//! ```

/// Environment variable: the [`crate::run::Run`] as JSON.
pub const ENV_RUN: &str = "FIRN_RUN";
/// Environment variable: extra trusted CA certificates of the cluster, a PEM file.
pub const ENV_CLUSTER_CA: &str = "FIRN_CLUSTER_CA";
/// Environment variable: the container's memory limit in bytes, for error messages.
pub const ENV_MEMORY_LIMIT: &str = "FIRN_MEMORY_LIMIT";

/// The Nix store and its database, shared by fetch, build and push.
pub const NIX: &str = "/nix";
/// Written by fetch: `checkout/` and `fetch.json`.
pub const SOURCE: &str = "/firn/source";
/// Written by check: `check.json`.
pub const CHECK: &str = "/firn/check";
/// Written by build: `build.json`. Hostile to whoever reads it.
pub const HANDOFF: &str = "/firn/handoff";
/// The source's Secret, one file per key (`username`, `password`, `bearerToken`). Fetch only.
pub const SOURCE_SECRET: &str = "/firn/secrets/source";
/// The push Secret: `config.json` in Docker's format. Check and push only.
pub const PUSH_SECRET: &str = "/firn/secrets/push";
/// The Secret for base images: `config.json` in Docker's format. Push only.
pub const BASE_SECRET: &str = "/firn/secrets/base";
/// CA certificates for the git server: `ca.crt`. Fetch only.
pub const SOURCE_CA: &str = "/firn/ca/source";
/// CA certificates for the registry: `ca.crt`. Check and push only.
pub const PUSH_CA: &str = "/firn/ca/push";
/// CA certificates for the registries of base images: `ca.crt`. Push only.
pub const BASE_CA: &str = "/firn/ca/base";
/// CA certificates for substituters: `ca.crt`. Fetch and build only.
pub const SUBSTITUTER_CA: &str = "/firn/ca/substituters";
/// CA certificates that the whole cluster trusts: `ca.crt`. Every container.
///
/// The operator writes the bundle it was given itself into the pod's annotation
/// [`crate::names::ANNOTATION_CLUSTER_CA`], and a `downwardAPI` volume makes this file of it: no
/// `ConfigMap` in every namespace, and no right to write one (docs/decisions/0001-cluster-ca.md).
pub const CLUSTER_CA: &str = "/firn/ca/cluster";

/// Fetch and build share a user: Nix's database and store belong to whoever writes first.
pub const UID_BUILD: i64 = 65_100;
/// Check and push hold the registry's credentials and share a user that owns nothing in the store.
pub const UID_PUSH: i64 = 65_101;
/// The group that joins them: `fsGroup` of the pod.
pub const GID: i64 = 65_100;
/// Longest bundle of cluster CA certificates, in bytes: all annotations of a pod together may have
/// 256 KiB.
pub const CLUSTER_CA_MAX: usize = 64 * 1024;
