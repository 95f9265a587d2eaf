//! The user's own Nix, in the user's environment: what an attribute is, built, with all it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::process::Stdio;

use firn_crd::exit::Reason;
use serde::Deserialize;

use super::{Result, usage};
use crate::failure::Failure;
use crate::nix::question::{self, Answer, Evaluated, QUESTION, Value};
use crate::store_path::StorePath;

/// What there is now.
#[derive(Debug)]
pub(super) enum Made {
    /// A store path, and its `meta.mainProgram` where Nix told it.
    Path(StorePath, Option<String>),
    /// An image description, and the store paths that it mentions.
    Described(String, BTreeSet<StorePath>),
}

/// Makes what `installable` names. A value of the flake may be an image description; everything that
/// cannot be evaluated is left to `nix build`, which also says what is wrong with it.
pub(super) async fn make(installable: &str) -> Result<Made> {
    let question = ["eval", "--json", "--apply", QUESTION, "--", installable];
    let answer = match nix(question, false).await {
        Ok(told) => question::answer(&told).ok(),
        Err(_) => None,
    };
    match answer {
        Some(Answer::Evaluated(Evaluated {
            drv_path,
            value:
                Value::Derivation {
                    output,
                    main_program,
                },
        })) => {
            let built = build(&[format!("{drv_path}^{output}")]).await?;
            let path = built
                .into_iter()
                .find_map(|(name, path)| (name == output).then_some(path));
            let path = path.ok_or_else(|| usage(format!("{installable} has no output")))?;
            Ok(Made::Path(path, main_program))
        }
        Some(Answer::Evaluated(Evaluated {
            value:
                Value::Description {
                    document,
                    outputs,
                    sources,
                },
            ..
        })) => {
            let mut paths = sources;
            if !outputs.is_empty() {
                let built = build(&question::installables(&outputs)).await?;
                paths.extend(built.into_iter().map(|(_, path)| path));
            }
            Ok(Made::Described(document, paths))
        }
        Some(Answer::Other { kind }) => Err(usage(format!(
            "{installable} is a {kind}, neither a package nor an image description"
        ))),
        None => {
            let mut built = build(&[installable.to_owned()]).await?;
            built.sort_by_key(|(name, _)| name != "out");
            let first = built.into_iter().next();
            let (_, path) = first.ok_or_else(|| usage(format!("{installable} has no output")))?;
            Ok(Made::Path(path, None))
        }
    }
}

#[derive(Deserialize)]
struct Built {
    outputs: BTreeMap<String, Option<StorePath>>,
}

/// What was built, by output.
async fn build(installables: &[String]) -> Result<Vec<(String, StorePath)>> {
    let arguments = ["build", "--json", "--no-link", "--"];
    let installables = installables.iter().map(String::as_str);
    let told = nix(arguments.into_iter().chain(installables), true).await?;
    let built: Vec<Built> = serde_json::from_slice(&told).map_err(|error| {
        Failure::new(
            Reason::InternalError,
            format!("nix build gave an answer that is not understood: {error}"),
        )
    })?;
    let outputs = built.into_iter().flat_map(|built| built.outputs);
    Ok(outputs
        .filter_map(|(name, path)| Some((name, path?)))
        .collect())
}

/// What Nix knows of these paths and all they need.
pub(super) async fn path_info(paths: &BTreeSet<&StorePath>) -> Result<Vec<u8>> {
    let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
    let paths = || paths.iter().map(String::as_str);
    let base = ["path-info", "--json", "--recursive"];
    // Since 2.33 the plain form warns and will be refused; before, the option is not known.
    let new = base
        .into_iter()
        .chain(["--json-format", "1"])
        .chain(paths());
    if let Ok(told) = nix(new, false).await {
        return Ok(told);
    }
    nix(base.into_iter().chain(paths()), true).await
}

/// Runs it. `loud`: what it says is shown.
async fn nix<A: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = A>,
    loud: bool,
) -> Result<Vec<u8>> {
    let shown = if loud {
        Stdio::inherit()
    } else {
        Stdio::null()
    };
    let mut command = tokio::process::Command::new("nix");
    command
        .args(["--extra-experimental-features", "nix-command flakes"])
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(shown)
        .kill_on_drop(true);
    let output = command.output().await.map_err(|error| {
        usage(format!(
            "nix cannot be started: {error}: install Nix, or name a store path and give its closure with --closure"
        ))
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Failure::new(
        Reason::BuildFailed,
        format!("nix ended with {}; see above", output.status),
    )
    .into())
}
