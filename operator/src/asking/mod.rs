//! Servers that are asked in the background, again and again, so that no reconcile waits for one:
//! what `source` and `registry` have in common. One task per image sleeps until it is due, waits for
//! a place at the gate, asks, and leaves what it heard in the image's entry. Knows neither what is
//! asked nor how.

pub(crate) mod entries;
pub(crate) mod gate;
pub(crate) mod schedule;
