//! Progress bars for a terminal; nothing elsewhere.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::push::{Placed, Placement};
use crate::watch::Watch;

/// One bar for the bytes of all layers, with the layers that are done beside it.
#[derive(Debug)]
pub(super) struct Bars {
    bar: ProgressBar,
    sizes: Vec<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of each layer that was begun.
    made: BTreeMap<usize, u64>,
    done: usize,
    sent: u64,
}

impl Bars {
    /// `sizes` are what the layers will have to read, about.
    pub(super) fn new(sizes: Vec<u64>, visible: bool) -> Self {
        let total = sizes
            .iter()
            .fold(0_u64, |sum, size| sum.saturating_add(*size));
        let target = if visible {
            ProgressDrawTarget::stderr_with_hz(5)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let style = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self {
            bar,
            sizes,
            state: Mutex::default(),
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let made = state
            .made
            .values()
            .fold(0_u64, |sum, made| sum.saturating_add(*made));
        self.bar.set_position(made);
        let sent = indicatif::HumanBytes(state.sent);
        self.bar.set_message(format!(
            "{}/{} layers, {sent} sent",
            state.done,
            self.sizes.len()
        ));
    }

    fn size(&self, layer: usize) -> u64 {
        self.sizes.get(layer).copied().unwrap_or_default()
    }
}

impl Watch for Bars {
    fn made(&self, layer: usize, bytes: u64) {
        let size = self.size(layer);
        self.update(|state| {
            let made = state.made.entry(layer).or_default();
            // A tar is a little larger than what is in it.
            *made = made.saturating_add(bytes).min(size);
        });
    }

    fn placed(&self, layer: usize, placed: &Placed) {
        let size = self.size(layer);
        self.update(|state| {
            state.made.insert(layer, size);
            state.done += 1;
            if placed.placement == Placement::Sent {
                state.sent = state.sent.saturating_add(placed.layer.descriptor.size);
            }
        });
    }
}
