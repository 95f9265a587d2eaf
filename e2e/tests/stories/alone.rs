//! Stories that want the cluster for themselves: they stop the operator that the others rely on.

mod binary_cache;
mod helm;
mod operator_killed;
mod platforms;
mod proxy;
