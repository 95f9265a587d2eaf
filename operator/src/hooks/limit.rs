//! How often one object may be asked about. Pure: the clock is given.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::source::ImageKey;

/// Requests that may come at once: a push of many branches makes one each.
const BURST: u32 = 10;
/// Then one in this time. Each costs the API server one Secret.
const REFILL: Duration = Duration::from_secs(3);
/// Objects that are remembered; names are free to invent, so that all are forgotten then.
const OBJECTS_MAX: usize = 10_000;

/// A bucket of permits for each object, whether there is such an object or not.
#[derive(Debug, Default)]
pub(super) struct Limit {
    buckets: HashMap<ImageKey, (u32, Instant)>,
}

impl Limit {
    /// Whether one more request is let through.
    pub(super) fn permits(&mut self, key: &ImageKey, now: Instant) -> bool {
        if self.buckets.len() >= OBJECTS_MAX && !self.buckets.contains_key(key) {
            self.buckets.clear();
        }
        let (permits, since) = self.buckets.entry(key.clone()).or_insert((BURST, now));
        let passed = now.saturating_duration_since(*since).as_secs() / REFILL.as_secs();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        if passed > 0 {
            *permits = permits.saturating_add(passed).min(BURST);
            *since = now;
        }
        let permitted = *permits > 0;
        *permits = permits.saturating_sub(1);
        permitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ImageKey {
        ImageKey {
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    #[test]
    fn a_flood_is_stopped_and_others_are_not() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        let passed = (0..100)
            .filter(|_| limit.permits(&key("web"), start))
            .count();
        assert_eq!(passed, 10);
        assert!(limit.permits(&key("db"), start));
        let later = start + REFILL;
        assert!(limit.permits(&key("web"), later));
        assert!(!limit.permits(&key("web"), later));
        let much_later = later + Duration::from_secs(3600);
        let passed = (0..100)
            .filter(|_| limit.permits(&key("web"), much_later))
            .count();
        assert_eq!(passed, 10);
    }

    #[test]
    fn invented_names_take_no_more_memory_than_so_much() {
        let (mut limit, now) = (Limit::default(), Instant::now());
        for name in 0..OBJECTS_MAX + 10 {
            limit.permits(&key(&name.to_string()), now);
        }
        assert!(limit.buckets.len() <= OBJECTS_MAX);
    }
}
