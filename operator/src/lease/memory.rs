//! What a candidate remembers of the lease, and what it does next. Pure.

use std::time::Duration;

use super::PATIENCE;

/// A time, as the process's own clock counts it since it began.
pub type Moment = Duration;

/// Longest that a lease's own words can make others wait.
const DURATION_MAX: Duration = Duration::from_secs(60);

/// A lease as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Another one after each write.
    pub version: String,
    /// Who holds it; `None`: released.
    pub holder: Option<String>,
    /// How long without renewal it lasts.
    pub duration: Duration,
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is none: make one.
    Create,
    /// Nobody holds it any more: take it.
    Take,
    /// It is ours: say so again.
    Renew,
    /// Somebody else holds it: look again.
    Wait,
    /// It was ours.
    Lost,
}

/// What a candidate remembers.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Another's lease, and when it was first seen so.
    seen: Option<(String, Moment)>,
    /// Until when it leads, unless it renews.
    until: Option<Moment>,
}

impl Memory {
    /// What to do about the lease as it was read; `None`: there is none.
    pub fn decide(&mut self, me: &str, lease: Option<&Seen>, now: Moment) -> Step {
        if self.until.is_some_and(|until| now >= until) {
            return Step::Lost;
        }
        let Some(lease) = lease else {
            return Step::Create;
        };
        match (lease.holder.as_deref(), self.leads()) {
            (Some(holder), true) if holder == me => Step::Renew,
            (_, true) => Step::Lost,
            (None, false) => Step::Take,
            // An earlier life of this pod, which is over.
            (Some(holder), false) if holder == me => Step::Take,
            (Some(_), false) => self.patience(lease, now),
        }
    }

    fn patience(&mut self, lease: &Seen, now: Moment) -> Step {
        match &self.seen {
            Some((version, since)) if *version == lease.version => {
                let over = now.saturating_sub(*since) >= lease.duration.min(DURATION_MAX);
                if over { Step::Take } else { Step::Wait }
            }
            _ => {
                self.seen = Some((lease.version.clone(), now));
                Step::Wait
            }
        }
    }

    /// A write that began then was taken.
    pub fn won(&mut self, began: Moment) {
        self.until = Some(began + PATIENCE);
        self.seen = None;
    }

    /// Whether it leads, or did until it could not renew.
    pub const fn leads(&self) -> bool {
        self.until.is_some()
    }

    /// How long it still leads.
    pub fn left(&self, now: Moment) -> Duration {
        self.until.unwrap_or_default().saturating_sub(now)
    }
}
