//! How many tests each tier must have: a file in the repository, so that a test that stopped
//! running is a failure and not a shorter list. Pure.

use std::collections::BTreeMap;

use clap::ValueEnum as _;

use super::Tier;

/// The least number of tests per tier.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected(BTreeMap<Tier, u32>);

/// The file of expected numbers has a line that is none.
#[derive(Debug, PartialEq, Eq)]
pub struct ParseExpectedError {
    /// The line, without its end.
    pub line: String,
}

impl std::fmt::Display for ParseExpectedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} is not a tier and a number, as in \"unit 120\"",
            self.line
        )
    }
}

impl std::error::Error for ParseExpectedError {}

impl Expected {
    /// Reads lines of a tier and a number; `#` begins a comment.
    pub fn parse(text: &str) -> Result<Self, ParseExpectedError> {
        let mut expected = BTreeMap::new();
        for line in text.lines() {
            let content = line.split('#').next().unwrap_or_default().trim();
            if content.is_empty() {
                continue;
            }
            let wrong = || ParseExpectedError {
                line: line.to_owned(),
            };
            let (tier, number) = content.split_once(char::is_whitespace).ok_or_else(wrong)?;
            let tier = Tier::from_str(tier, false).map_err(|_| wrong())?;
            expected.insert(tier, number.trim().parse().map_err(|_| wrong())?);
        }
        Ok(Self(expected))
    }

    /// The least number of tests of `tier`.
    pub fn of(&self, tier: Tier) -> u32 {
        self.0.get(&tier).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_anything_else_is_refused() {
        let expected = Expected::parse("# comment\nunit 12\nstories  3 # all\n").unwrap();
        assert_eq!(expected.of(Tier::Unit), 12);
        assert_eq!(expected.of(Tier::Stories), 3);
        assert_eq!(expected.of(Tier::Checks), 0);
        assert_eq!(
            Expected::parse("unit many").unwrap_err(),
            ParseExpectedError {
                line: "unit many".into()
            }
        );
        assert!(Expected::parse("nonsense 1").is_err());
    }
}
