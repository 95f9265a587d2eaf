//! Lengths of time as users write them: whole hours, minutes and seconds, `90s` or `1h30m`.
//! Narrower than Go's format on purpose: `1 day`, `1.5h` and `1h-2m` are refused. Pure.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration as StdDuration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Longest text of a duration, in characters. Enough for any bound that a field sets.
const TEXT_MAX: usize = 32;

/// A length of time that keeps the text it was written with, so that reading and writing an
/// object changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration {
    text: String,
    value: StdDuration,
}

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration: write whole hours, minutes and seconds, as in \"1h30m\"")]
pub struct ParseDurationError {
    text: String,
}

impl Duration {
    /// The length itself.
    pub const fn as_std(&self) -> StdDuration {
        self.value
    }

    /// Whole seconds.
    pub const fn as_secs(&self) -> u64 {
        self.value.as_secs()
    }

    /// As people write it, largest unit first: `1h30m`, `45s`. Fractions of a second are dropped.
    pub fn of(value: StdDuration) -> Self {
        let seconds = value.as_secs();
        Self {
            text: text(seconds),
            value: StdDuration::from_secs(seconds),
        }
    }
}

fn text(seconds: u64) -> String {
    let parts = [
        (seconds / 3600, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ];
    let written: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if written.is_empty() {
        "0s".into()
    } else {
        written.concat()
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match seconds(text) {
            Some(seconds) if text.len() <= TEXT_MAX => Ok(Self {
                text: text.to_owned(),
                value: StdDuration::from_secs(seconds),
            }),
            _ => Err(ParseDurationError {
                text: text.chars().take(TEXT_MAX).collect(),
            }),
        }
    }
}

/// The sum of all parts. `None`: not a duration, or more seconds than fit.
fn seconds(text: &str) -> Option<u64> {
    let mut total = 0_u64;
    let mut number: Option<u64> = None;
    for character in text.chars() {
        let unit = match character {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => {
                let digit = u64::from(character.to_digit(10)?);
                number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
                continue;
            }
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    (number.is_none() && !text.is_empty()).then_some(total)
}

impl TryFrom<String> for Duration {
    type Error = ParseDurationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.text
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The format makes the value a duration in CEL rules; the pattern keeps out what Go takes
        // besides.
        json_schema!({
            "type": "string",
            "format": "duration",
            "maxLength": TEXT_MAX,
            "pattern": "^([0-9]+[hms])+$",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hours_minutes_and_seconds_add_up() {
        for (text, seconds) in [
            ("90s", 90),
            ("1h30m", 5400),
            ("1h1m1s", 3661),
            ("0s", 0),
            ("8760h", 31_536_000),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration.as_secs(), seconds, "{text}");
            assert_eq!(duration.to_string(), text);
        }
    }

    #[test]
    fn what_the_schema_refuses_is_refused_here_too() {
        for text in [
            "",
            "5",
            "m",
            "1 day",
            "1.5h",
            "1h-2m",
            "-1s",
            "1d",
            "1ms",
            "99999999999999999999h",
            "1h\n",
        ] {
            assert!(text.parse::<Duration>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_length_survives_being_written_and_read(seconds in 0_u64..100_000_000) {
            let written = Duration::of(StdDuration::from_secs(seconds));
            let read: Duration = written.to_string().parse().unwrap();
            prop_assert_eq!(read, written);
        }
    }
}
