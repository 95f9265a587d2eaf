//! How a container fails: the failure that goes into its report. Pure.

use std::error::Error;
use std::fmt::Write as _;

use firn_crd::exit::Reason;
use firn_crd::report::Failed;

/// A subcommand's failure: an outcome, told to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub Box<Failed>);

/// What a subcommand ends with.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with a message for people: the thing, the value, the cause, the remedy.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self(Box::new(Failed {
            reason,
            message: message.into(),
            drv_path: None,
            log_tail: None,
            retry_after: None,
        }))
    }

    /// A fault of Firn's own, with the whole chain of causes.
    pub fn internal(error: &dyn Error) -> Self {
        Self::new(Reason::InternalError, chain(error))
    }

    /// With the derivation that failed.
    #[must_use]
    pub fn with_drv(mut self, drv_path: Option<String>) -> Self {
        self.0.drv_path = drv_path;
        self
    }

    /// With the last lines of a log; control characters are removed.
    #[must_use]
    pub fn with_log(mut self, log: &str) -> Self {
        let clean = plain(log);
        self.0.log_tail = (!clean.trim().is_empty()).then_some(clean);
        self
    }

    /// With what the registry asked for, in seconds.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: Option<u32>) -> Self {
        self.0.retry_after = seconds;
        self
    }

    /// Its reason.
    pub fn reason(&self) -> Reason {
        self.0.reason
    }
}

/// An error and its causes, joined by colons.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        // A transparent error repeats its cause.
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Text without escape sequences and control characters, but with line ends and tabs.
pub fn plain(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => {
                // ESC [ parameters letter. Others are two characters long.
                if characters.next() == Some('[') {
                    while characters.next().is_some_and(|c| !c.is_ascii_alphabetic()) {}
                }
            }
            '\n' | '\t' => clean.push(character),
            other if other.is_control() => {}
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_and_control_characters_are_removed() {
        assert_eq!(
            plain("\u{1b}[31;1merror:\u{1b}[0m a\tb\r\n\u{7}c"),
            "error: a\tb\nc"
        );
        assert_eq!(plain("\u{1b}["), "");
    }
}
