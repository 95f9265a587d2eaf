//! From a derivation to its output, with all that it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use firn_crd::exit::Reason;
use serde::Deserialize;

use super::Work;
use crate::closure::PathInfo;
use crate::entry_point::{self, EntryPoint};
use crate::failure::{Failure, Result, chain};
use crate::handoff::Image;
use crate::image_kind;
use crate::nix::log::Log;
use crate::nix::path_info;
use crate::nix::question::{self, Evaluated, Value};
use crate::nix::words::Doing;
use crate::store_path::StorePath;

#[derive(Deserialize)]
struct Realised {
    outputs: BTreeMap<String, Option<StorePath>>,
}

impl Work<'_> {
    pub(super) async fn realise(&self, evaluated: &Evaluated, log: &mut Log) -> Result<Image> {
        let (output, main_program) = match &evaluated.value {
            Value::Derivation {
                output,
                main_program,
            } => (output, main_program.as_deref()),
            Value::Description {
                document,
                outputs,
                sources,
            } => {
                return Ok(Image {
                    drv_path: evaluated.drv_path.clone(),
                    out_path: None,
                    entry_point: None,
                    has_bin: false,
                    description: Some(document.clone()),
                    note: None,
                    closure: self.described(outputs, sources, log).await?,
                });
            }
        };
        let installable = format!("{}^{output}", evaluated.drv_path);
        let built = self.build(&[installable.as_str()], log).await?;
        let found = built
            .into_iter()
            .find_map(|(name, path)| (name == *output).then_some(path));
        let out_path = found.ok_or_else(|| {
            Failure::new(
                Reason::InternalError,
                format!("nix build did not tell where {installable} is"),
            )
        })?;
        tracing::info!(out = %out_path, "built");
        let location = out_path.to_string();
        let directory = Path::new(&location);
        // An image is started by its own config. Push finds out again what it is, and believes
        // nothing of this.
        let entry_point = match image_kind::recognise(directory) {
            Some(kind) => {
                tracing::info!("the output is {kind}");
                EntryPoint::default()
            }
            None => entry_point::find(&out_path, directory, main_program),
        };
        Ok(Image {
            drv_path: evaluated.drv_path.clone(),
            closure: self.closure(&[&out_path], log).await?,
            out_path: Some(out_path),
            entry_point: entry_point.program,
            has_bin: entry_point.has_bin,
            description: None,
            note: entry_point.note,
        })
    }

    /// All that a description refers to.
    async fn described(
        &self,
        outputs: &BTreeMap<StorePath, BTreeSet<String>>,
        sources: &BTreeSet<StorePath>,
        log: &mut Log,
    ) -> Result<BTreeMap<StorePath, PathInfo>> {
        let installables = question::installables(outputs);
        let mut paths = sources.clone();
        if !installables.is_empty() {
            let installables: Vec<&str> = installables.iter().map(String::as_str).collect();
            let built = self.build(&installables, log).await?;
            paths.extend(built.into_iter().map(|(_, path)| path));
        }
        if paths.is_empty() {
            return Ok(BTreeMap::new());
        }
        let paths: Vec<&StorePath> = paths.iter().collect();
        self.closure(&paths, log).await
    }

    /// By derivation and output: nothing is evaluated a second time. What was built, by output.
    async fn build(
        &self,
        installables: &[&str],
        log: &mut Log,
    ) -> Result<Vec<(String, StorePath)>> {
        let mut arguments = vec!["build", "--json", "--no-link"];
        arguments.extend(installables);
        let finished = self.nix.run(&arguments, log).await;
        let finished = finished.map_err(|error| self.not_run(&error, Doing::Building, log))?;
        if !finished.status.success() {
            return Err(self.failure(Doing::Building, finished.status.code(), log));
        }
        let realised: Vec<Realised> =
            serde_json::from_slice(&finished.stdout).map_err(|error| {
                Failure::new(
                    Reason::InternalError,
                    format!("nix build gave an answer that is not understood: {error}"),
                )
            })?;
        let outputs = realised.into_iter().flat_map(|realised| realised.outputs);
        Ok(outputs
            .filter_map(|(name, path)| Some((name, path?)))
            .collect())
    }

    async fn closure(
        &self,
        paths: &[&StorePath],
        log: &mut Log,
    ) -> Result<BTreeMap<StorePath, PathInfo>> {
        let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
        let mut base = vec!["path-info", "--json", "--recursive"];
        base.extend(paths.iter().map(String::as_str));
        // Since 2.33 the plain form warns and will be refused; before, the option is not known.
        for format in [&["--json-format", "1"][..], &[]] {
            let arguments: Vec<&str> = base.iter().chain(format).copied().collect();
            // Not in the user's log: the first form may fail.
            let mut quiet = Log::new(std::io::sink());
            let finished = self.nix.run(&arguments, &mut quiet).await;
            let finished = finished.map_err(|error| self.not_run(&error, Doing::Building, log))?;
            if finished.status.success() {
                return path_info::parse(&finished.stdout)
                    .map_err(|error| Failure::new(Reason::InternalError, chain(&error)));
            }
            if format.is_empty() {
                return Err(Failure::new(
                    Reason::InternalError,
                    format!("nix path-info failed: {}", quiet.errors()),
                ));
            }
        }
        Err(Failure::new(Reason::InternalError, "nix path-info failed"))
    }
}
