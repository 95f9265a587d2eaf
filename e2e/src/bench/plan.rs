//! Firn's layers of a closure, asked of the program itself: `firn-streamer plan`.

use std::collections::{BTreeMap, BTreeSet};
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
    contents: Vec<String>,
}

/// What Firn makes of the closure in `file`, by one of its strategies, or by its default.
///
/// Errors: it refuses; with what it said.
pub fn layers(
    firn: &Path,
    closure: &Closure,
    app: &str,
    file: &Path,
    strategy: Option<&str>,
) -> Result<Layers> {
    let app = format!("/nix/store/{app}");
    let mut command = Command::new(firn);
    command
        .args(["plan", &app, "--json", "--closure"])
        .arg(file);
    command.args(["--entry-point", &format!("{app}/bin/app")]);
    if let Some(strategy) = strategy {
        command.args(["--strategy", strategy]);
    }
    let output = command.output().context("failed to start firn-streamer")?;
    ensure!(
        output.status.success(),
        "firn-streamer plan: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    parse(&output.stdout, closure)
}

/// A plan tells paths by their names without the hash; no two here have the same.
fn parse(json: &[u8], closure: &Closure) -> Result<Layers> {
    let answer: Answer = serde_json::from_slice(json).context("failed to read a plan")?;
    let by_name: BTreeMap<&str, &String> = closure
        .paths
        .keys()
        .filter_map(|base| Some((base.split_once('-')?.1, base)))
        .collect();
    ensure!(
        by_name.len() == closure.paths.len(),
        "two store paths have one name"
    );
    let mut layers = Layers::new();
    for layer in answer.layers {
        let paths = layer.contents.iter().map(|name| {
            let base = by_name.get(name.as_str());
            base.map(|base| (*base).clone())
                .with_context(|| format!("{name} is not in the closure"))
        });
        let mut paths = paths.collect::<Result<Vec<String>>>()?;
        paths.sort();
        layers.push(paths);
    }
    Ok(layers)
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
/// `app` is the path at the top, `scratch` a file to write closures to.
pub fn each_in_turn(
    firn: &Path,
    closure: &Closure,
    app: &str,
    sizes: &Sizes,
    strategy: Option<&str>,
    scratch: &Path,
) -> Result<EachInTurn> {
    let plan = |closure: &Closure, app: &str| {
        std::fs::write(scratch, closure.to_json()).context("failed to write a closure")?;
        layers(firn, closure, app, scratch, strategy)
    };
    let before: BTreeSet<Vec<String>> = plan(closure, app)?.into_iter().collect();
    let mut results = Vec::new();
    for path in closure.paths.keys() {
        let (changed, old_names) = closure.with_change(path);
        let old = |base: &String| old_names.get(base).unwrap_or(base).clone();
        // The one at the top is above every other.
        let new_app = old_names.iter().find(|(_, old)| *old == app);
        let new_app = new_app.map_or(app, |(new, _)| new);
        let new: Vec<String> = plan(&changed, new_app)?
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
    use crate::bench::closure::PathInfo;

    #[test]
    fn a_plan_is_read_by_the_names_of_paths() {
        let paths = ["a-zlib-1", "b-app"].map(|base| (base.to_owned(), PathInfo::default()));
        let closure = Closure {
            paths: paths.into(),
        };
        let json = br#"{"layers": [{"contents": ["zlib-1", "app"], "why": "group"}]}"#;
        assert_eq!(parse(json, &closure).unwrap(), [["a-zlib-1", "b-app"]]);
        assert!(parse(br#"{"layers": [{"contents": ["x"]}]}"#, &closure).is_err());
    }
}
