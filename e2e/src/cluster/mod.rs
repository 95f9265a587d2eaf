//! The embedded cluster: a real Kubernetes from pinned sources, in namespaces of its own, and the
//! Git server and registries that tests use. Tests start at [`Cluster::from_env`]; the program
//! `firn-cluster` is the other user.
//!
//! ```text
//! machine ── unshare ── control (10.89.0.1: etcd, API server, controllers, scheduler; bridge firn0)
//!                          ├── unshare ── node-0 (10.89.0.10: containerd, kubelet, kube-proxy)
//!                          └── unshare ── node-1 (10.89.0.11: ...;  pods 10.244.1.0/24)
//! 127.0.0.1:PORT ── relay ──> 10.89.0.1:6443
//! ```
//!
//! Each machine is one `unshare --mount --net --pid --kill-child`: when its first process ends, the
//! kernel ends everything in it, and mounts, interfaces and packet filter rules go with their
//! namespaces. What does not go by itself are control groups and files; they have one place each
//! ([`cgroup`], [`layout`]), and everything that runs is found by its control group, so that even
//! an `up` that was killed half-way leaves nothing that `down` cannot see.

mod archive;
pub mod build;
pub mod cgroup;
mod command;
pub mod component;
mod control_plane;
mod files;
pub mod images;
mod kubeconfig;
pub mod layout;
pub mod lifecycle;
mod lock;
pub mod machine;
pub mod network;
mod node;
pub mod pins;
mod pki;
mod process;
pub mod progress;
pub mod relay;
mod requirements;
pub mod services;
pub mod target;

pub use layout::Layout;
pub use machine::Machine;
pub use services::Services;
pub use target::{Cluster, Embedded, Foreign, is_foreign};
