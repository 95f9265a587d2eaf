//! What images, charts, documentation and the cluster itself promise. Run by `make test`, one test
//! at a time; needs the cluster's programs (Helm among them).

mod cargo_target;
mod charts;
#[cfg(test)] // it is always; says to clippy that helpers are test code too
mod cluster;
mod docs;
mod images;
mod packages;
#[cfg(test)]
mod registries;
#[cfg(test)]
mod ssh;
