//! What Nix says: about paths, and in its log. Build code writes a good part of both.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use firn_streamer::closure::{Closure, PathInfo};
use firn_streamer::layering::{self, Strategy};
use firn_streamer::nix::log::Log;
use firn_streamer::nix::path_info as answer;
use firn_streamer::nix::words::{self, Doing, Failing};
use firn_streamer::store_path::StorePath;

/// `nix path-info --json`, in whatever shape.
pub(crate) fn path_info(data: &[u8]) {
    let Ok(paths) = answer::parse(data) else {
        return;
    };
    let written = serde_json::to_vec(&paths).unwrap_or_default();
    assert_eq!(answer::parse(&written).ok().as_ref(), Some(&paths));
    plan(paths);
}

/// A closure that passes is planned: all of it, once, within the budget, always the same.
pub(crate) fn plan(paths: BTreeMap<StorePath, PathInfo>) {
    let Ok(closure) = Closure::new(paths) else {
        return;
    };
    let strategies = [Strategy::Stable, Strategy::Popularity, Strategy::BySize];
    for (strategy, budget) in strategies.into_iter().flat_map(|s| [(s, 1), (s, 5)]) {
        let layers = layering::plan(&closure, budget, strategy);
        assert!(layers.len() <= budget as usize, "{strategy}");
        let mut planned: Vec<&StorePath> = layers.iter().flat_map(|layer| &layer.paths).collect();
        planned.sort_unstable();
        assert!(
            planned.iter().copied().eq(closure.paths().keys()),
            "{strategy}"
        );
        assert_eq!(layers, layering::plan(&closure, budget, strategy));
    }
}

/// Lines of Nix's log, and what is made of the errors in it.
pub(crate) fn log(data: &[u8]) {
    let shown = Shown::default();
    let mut log = Log::new(shown.clone());
    for line in data.split(|byte| *byte == b'\n') {
        log.line(line);
    }
    let shown = shown.0.lock().unwrap_or_else(PoisonError::into_inner);
    // Each line is cut at 4096 bytes; lines may have line feeds in them, written as two bytes.
    assert!(
        shown.len() <= (data.len() / 2 + 1) * 4200,
        "{}",
        shown.len()
    );
    assert!(!shown.contains(&0) && !shown.contains(&b'\r'));
    let errors = log.errors();
    assert!(errors.len() <= 64 * 1024);
    if let Some((drv, tail)) = log.running() {
        assert!(drv.len() <= 255 && tail.len() <= 8192);
        assert!(log.tail(drv).is_some_and(|tail| tail.len() <= 8192));
    }
    for doing in [Doing::Evaluating, Doing::Building] {
        let _ = words::reason(&Failing {
            doing,
            code: Some(1),
            errors,
            out_of_memory: false,
            disk_full: false,
            no_lock: false,
        });
    }
    let _ = words::is_locking(errors);
    let culprit = words::failed_derivation(errors);
    assert!(culprit.is_none_or(|drv| errors.contains(drv)));
    assert!(words::build_cause(errors).is_none_or(|cause| errors.contains(cause)));
    let _ = words::essence(errors);
}

#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<u8>>>);

impl Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
