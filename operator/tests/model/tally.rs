//! How often each thing happened: a model that never gets somewhere shows nothing about it.

use std::collections::BTreeMap;

/// Counts by what is counted.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub counts: BTreeMap<&'static str, BTreeMap<String, u64>>,
}

impl Tally {
    pub fn count(&mut self, what: &'static str, which: &str) {
        let counts = self.counts.entry(what).or_default();
        match counts.get_mut(which) {
            Some(count) => *count += 1,
            None => {
                counts.insert(which.to_owned(), 1);
            }
        }
    }

    pub fn action(&mut self, which: &str) {
        self.count("action", which);
    }

    pub fn event(&mut self, which: &str) {
        self.count("event", which);
    }

    pub fn add(&mut self, other: &Self) {
        for (what, counts) in &other.counts {
            for (which, count) in counts {
                *self
                    .counts
                    .entry(what)
                    .or_default()
                    .entry(which.clone())
                    .or_default() += count;
            }
        }
    }

    pub fn of(&self, what: &str, which: &str) -> u64 {
        let counts = self.counts.get(what);
        counts.and_then(|c| c.get(which)).copied().unwrap_or(0)
    }

    pub fn print(&self) {
        for (what, counts) in &self.counts {
            println!("{what}:");
            for (which, count) in counts {
                println!("  {count:>9}  {which}");
            }
        }
    }
}
