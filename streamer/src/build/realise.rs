//! From a derivation to its output, with all that it needs.

use std::collections::BTreeMap;
use std::path::Path;

use firn_crd::exit::Reason;
use serde::Deserialize;

use super::Work;
use super::evaluate::Evaluated;
use crate::closure::PathInfo;
use crate::entry_point::{self, EntryPoint};
use crate::failure::{Failure, Result, chain};
use crate::handoff::Image;
use crate::image_kind;
use crate::nix::log::Log;
use crate::nix::path_info;
use crate::nix::words::Doing;
use crate::store_path::StorePath;

#[derive(Deserialize)]
struct Realised {
    outputs: BTreeMap<String, Option<StorePath>>,
}

impl Work<'_> {
    pub(super) async fn realise(&self, evaluated: &Evaluated, log: &mut Log) -> Result<Image> {
        let out_path = self.build(evaluated, log).await?;
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
            None => entry_point::find(&out_path, directory, evaluated.main_program.as_deref()),
        };
        Ok(Image {
            drv_path: evaluated.drv_path.clone(),
            closure: self.closure(&out_path, log).await?,
            out_path,
            entry_point: entry_point.program,
            has_bin: entry_point.has_bin,
            note: entry_point.note,
        })
    }

    /// By derivation and output: nothing is evaluated a second time.
    async fn build(&self, evaluated: &Evaluated, log: &mut Log) -> Result<StorePath> {
        let installable = format!("{}^{}", evaluated.drv_path, evaluated.output);
        let arguments = ["build", "--json", "--no-link", &installable];
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
        let outputs = realised
            .into_iter()
            .next()
            .map(|r| r.outputs)
            .unwrap_or_default();
        let found = outputs.get(&evaluated.output).cloned().flatten();
        found.ok_or_else(|| {
            Failure::new(
                Reason::InternalError,
                format!("nix build did not tell where {installable} is"),
            )
        })
    }

    async fn closure(
        &self,
        out_path: &StorePath,
        log: &mut Log,
    ) -> Result<BTreeMap<StorePath, PathInfo>> {
        let out_path = out_path.to_string();
        let base = ["path-info", "--json", "--recursive", &out_path];
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
