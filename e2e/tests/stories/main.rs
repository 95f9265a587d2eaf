//! Stories of users on a real cluster, one promise each. `make test` runs them inside the embedded
//! cluster's network; those in `alone` want the cluster for themselves.

mod alone;
mod described;
mod failures;
mod first_image;
mod kubernetes;
mod made_by_others;
mod secrets;
mod serial;
mod submodules;
mod tags;
mod triggers;
