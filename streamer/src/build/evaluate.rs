//! From the attribute to a derivation.

use firn_crd::exit::Reason;

use super::Work;
use crate::failure::{Failure, Result};
use crate::nix::attribute::{self, Attribute};
use crate::nix::log::Log;
use crate::nix::question::{self, Answer, Evaluated, QUESTION};
use crate::nix::words::Doing;

impl Work<'_> {
    pub(super) async fn evaluate(&self, log: &mut Log) -> Result<Evaluated> {
        let installable = self.installable()?;
        tracing::info!(%installable, "evaluating");
        let arguments = [
            "eval",
            "--json",
            "--no-update-lock-file",
            "--no-write-lock-file",
            "--apply",
            QUESTION,
            &installable,
        ];
        let finished = self.nix.run(&arguments, log).await;
        let finished = finished.map_err(|error| self.not_run(&error, Doing::Evaluating, log))?;
        if !finished.status.success() {
            return Err(self.failure(Doing::Evaluating, finished.status.code(), log));
        }
        let answer = question::answer(&finished.stdout).map_err(|error| {
            Failure::new(
                Reason::InternalError,
                format!("nix eval gave an answer that is not understood: {error}"),
            )
        })?;
        match answer {
            Answer::Evaluated(evaluated) => Ok(evaluated),
            Answer::Other { kind } => Err(Failure::new(
                Reason::NotAnImage,
                format!(
                    "attribute {} is a {kind}, neither a package nor an image description: name an attribute that is a derivation",
                    self.build.attribute
                ),
            )),
        }
    }

    /// Flake and attribute. The dot makes Nix take the path as it is.
    fn installable(&self) -> Result<String> {
        let attribute: Attribute =
            self.build
                .attribute
                .parse()
                .map_err(|error: attribute::InvalidAttribute| {
                    Failure::new(Reason::AttributeNotFound, error.to_string())
                })?;
        let system = attribute::system(&self.build.platform).ok_or_else(|| {
            Failure::new(
                Reason::InternalError,
                format!("platform {:?} has no name in Nix", self.build.platform),
            )
        })?;
        Ok(format!("{}#.{}", self.flake, attribute.resolved(system)))
    }
}
