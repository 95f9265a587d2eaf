//! Stories that want the cluster for themselves: they stop the operator that the others rely on.

mod binary_cache;
mod control_plane;
mod helm;
mod killed_at_random;
mod operator_killed;
mod platforms;
mod pods_taken;
mod proxy;
mod registry_faults;
