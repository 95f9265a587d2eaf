//! The embedded cluster, fixtures, and the end-to-end tests of Firn.

pub mod bench;
pub mod charts;
pub mod clone;
pub mod cluster;
pub mod debian;
pub mod demo;
pub mod fixture;
pub mod fuzz;
pub mod image;
pub mod install;
pub mod programs;
pub mod promtool;
pub mod registry;
pub mod scale;
pub mod story;
pub mod suite;
pub mod wait;
