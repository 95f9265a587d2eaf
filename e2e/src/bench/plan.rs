//! Firn's layers of a closure, asked of the program itself: `firn-streamer plan`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::closure::Closure;
use super::measure::quantile;
use super::sizes::{Sizes, sum};

/// The sorted base names of each layer's paths, the lowest layer first.
pub type Layers = Vec<Vec<String>>;

#[derive(Deserialize)]
struct Answer {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    paths: Vec<String>,
}

/// What Firn makes of the closure in `file`, by one of its strategies, or by its default.
///
/// Errors: it refuses; with what it said.
pub fn layers(firn: &Path, file: &Path, strategy: Option<&str>) -> Result<Layers> {
    let mut command = Command::new(firn);
    command.args(["plan", "--json", "--closure"]).arg(file);
    if let Some(strategy) = strategy {
        command.args(["--strategy", strategy]);
    }
    let output = command.output().context("failed to start firn-streamer")?;
    ensure!(
        output.status.success(),
        "firn-streamer plan: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    parse(&output.stdout)
}

fn parse(json: &[u8]) -> Result<Layers> {
    let answer: Answer = serde_json::from_slice(json).context("failed to read a plan")?;
    let base = |path: String| match path.rsplit_once('/') {
        Some((_, base)) => base.to_owned(),
        None => path,
    };
    let sorted = |layer: Layer| {
        let mut paths: Vec<String> = layer.paths.into_iter().map(base).collect();
        paths.sort();
        paths
    };
    Ok(answer.layers.into_iter().map(sorted).collect())
}

/// What is sent when each path of a closure changes in turn, by one strategy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EachInTurn {
    /// The strategy; `None` is Firn's default.
    pub strategy: Option<String>,
    /// Layers of the whole closure.
    pub layers: usize,
    /// Bytes sent: median and 95th percentile.
    pub sent: (u64, u64),
    /// The same for what changed, compressed by itself: the least there is to send.
    pub least: (u64, u64),
    /// Bytes sent for each 100 bytes of the least: median and 95th percentile.
    pub percent: (u64, u64),
}

/// Plans the closure once more for each of its paths, as if that and all above it had changed.
/// `scratch` is a file to write closures to.
pub fn each_in_turn(
    firn: &Path,
    closure: &Closure,
    sizes: &Sizes,
    strategy: Option<&str>,
    scratch: &Path,
) -> Result<EachInTurn> {
    let plan = |closure: &Closure| {
        std::fs::write(scratch, closure.to_json()).context("failed to write a closure")?;
        layers(firn, scratch, strategy)
    };
    let before: BTreeSet<Vec<String>> = plan(closure)?.into_iter().collect();
    let mut results = Vec::new();
    for path in closure.paths.keys() {
        let (changed, old_names) = closure.with_change(path);
        let old = |base: &String| old_names.get(base).unwrap_or(base).clone();
        let new: Vec<String> = plan(&changed)?
            .into_iter()
            .filter(|layer| !before.contains(layer))
            .flatten()
            .map(|base| old(&base))
            .collect();
        results.push((sum(sizes, &new), sum(sizes, old_names.values())));
    }
    let both = |values: Vec<u64>| (quantile(values.clone(), 50), quantile(values, 95));
    Ok(EachInTurn {
        strategy: strategy.map(str::to_owned),
        layers: before.len(),
        sent: both(results.iter().map(|(sent, _)| *sent).collect()),
        least: both(results.iter().map(|(_, least)| *least).collect()),
        percent: both(
            results
                .iter()
                .map(|(sent, least)| sent * 100 / least.max(&1))
                .collect(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_with_whole_paths_and_more_than_is_needed() {
        let json = br#"{"layers": [{"paths": ["/nix/store/b-x", "/nix/store/a-y"], "why": "group"}], "version": 1}"#;
        assert_eq!(parse(json).unwrap(), [["a-y", "b-x"]]);
    }
}
