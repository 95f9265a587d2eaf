//! `make bench`: what Firn takes to push an image, beside what others take, in one run.
//!
//! ```text
//! store ──► closures of real contents (base, one path changed, libraries changed)
//! peers ──► Firn, skopeo with gzip and zstd, nix2container, the floor
//! arena ──► a network namespace with a registry that starts from the same state for each
//! measure ► wall, CPU, memory of a process tree; requests and bytes from the registry
//! rows ───► medians of interleaved runs; verdict: what issue and docs promise; report: the page
//! ```

pub mod archive;
pub mod arena;
pub mod cases;
pub mod closure;
pub mod delay;
pub mod floor;
pub mod graph;
pub mod limit;
pub mod measure;
pub mod node;
pub mod peers;
pub mod plan;
pub mod registry;
pub mod report;
pub mod run;
pub mod sizes;
pub mod store;
pub mod synthetic;
mod tree;
pub mod verdict;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;

/// Cores that this process may use.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// `work` on each item, on as many threads as there are cores; results in the order of the items.
///
/// Errors: the first that is met; the others' results are lost.
pub fn on_all_cores<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<(usize, R)>> {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            match items.get(index) {
                Some(item) => done.push((index, work(item)?)),
                None => return Ok(done),
            }
        }
    };
    let mut all = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores()).map(|_| scope.spawn(worker)).collect();
        let mut all = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(done) => all.extend(done?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        anyhow::Ok(all)
    })?;
    all.sort_by_key(|(index, _)| *index);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..100).collect();
        let doubled = on_all_cores(&items, |n| Ok(n * 2)).unwrap();
        assert!(doubled.iter().zip(&items).all(|(d, n)| *d == n * 2));
        let failed = on_all_cores(&items, |n| {
            anyhow::ensure!(*n != 50, "fifty");
            Ok(())
        });
        assert_eq!(failed.unwrap_err().to_string(), "fifty");
    }
}
