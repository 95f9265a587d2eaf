//! What the streamer promises, on real files and against a registry that remembers everything. One
//! program, so that it is linked once.
#![expect(
    clippy::unwrap_used,
    reason = "a fixture that cannot be made fails the test"
)]

mod local;
mod made;
mod made_by_others;
mod process;
mod push;
mod same_digest;
mod small_change;
mod surroundings;
