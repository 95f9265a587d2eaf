//! What `make test` runs: tiers of checks and tests, counted, compared with the numbers that are
//! checked in, and summed up in one table. The tests themselves are elsewhere.

mod count;
mod expected;
mod failure;
mod programs;
mod run;
mod summary;

pub use count::Count;
pub use expected::{Expected, ParseExpectedError};
pub use failure::Failure;
pub use programs::{TestProgram, make};
pub use run::{Kind, Ran, Step, run_step};
pub use summary::Summary;

use std::fmt;

/// A group of tests with one line in the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Tier {
    /// Formatting, clippy, rustdoc, licences: one test each.
    Checks,
    /// Tests beside the code: tables and properties of pure functions.
    Unit,
    /// Tests of a whole package: golden files, generated files, protocols.
    Package,
    /// A search for inputs that break a parser of foreign input.
    Fuzz,
    /// What images, charts and the cluster itself promise.
    Parts,
    /// Stories of users on a real cluster.
    Stories,
}

impl Tier {
    /// Every tier, in the order in which they run.
    pub const ALL: [Self; 6] = [
        Self::Checks,
        Self::Unit,
        Self::Package,
        Self::Fuzz,
        Self::Parts,
        Self::Stories,
    ];

    /// Whether the tier needs the embedded cluster or a foreign one.
    pub const fn needs_cluster(self) -> bool {
        matches!(self, Self::Parts | Self::Stories)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Checks => "checks",
            Self::Unit => "unit",
            Self::Package => "package",
            Self::Fuzz => "fuzz",
            Self::Parts => "parts",
            Self::Stories => "stories",
        })
    }
}
