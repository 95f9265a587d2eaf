//! The test programs that cargo makes: all of the workspace in one call, so that nothing is
//! compiled twice for another choice of packages, and so that tiers need no cargo, which would
//! let one of them wait for another.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Tier;

/// One test program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestProgram {
    /// Package and target, for people: `firn-oci layer_bytes`.
    pub name: String,
    /// The tier its tests belong to.
    pub tier: Tier,
    /// The program.
    pub executable: PathBuf,
    /// The package's folder, in which cargo runs its tests.
    pub folder: PathBuf,
}

/// Makes all test programs, and all other programs with them; sorted by name. What is compiled is
/// shown on standard error.
///
/// # Errors
/// Something does not compile.
pub fn make(workspace: &Path) -> Result<Vec<TestProgram>> {
    let output = Command::new("cargo")
        .args(["test", "--workspace", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("failed to run cargo")?;
    ensure!(output.status.success(), "the tests do not compile");
    let mut programs: Vec<TestProgram> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(test_program)
        .collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

/// The test program that a message of cargo tells of; `None`: it tells of something else.
fn test_program(message: &str) -> Option<TestProgram> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let executable = PathBuf::from(message["executable"].as_str()?);
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?;
    // The name of a package is that of its folder, see ARCHITECTURE.md.
    let package = folder.file_name()?.to_str()?;
    let target = message["target"]["name"].as_str()?;
    let beside = message["target"]["kind"][0] != "test";
    Some(TestProgram {
        name: format!("firn-{package} {target}"),
        tier: tier(package, target, beside),
        executable,
        folder: folder.to_owned(),
    })
}

/// `beside`: the tests stand beside the code, not in `tests/`.
fn tier(package: &str, target: &str, beside: bool) -> Tier {
    match (package, target) {
        _ if beside => Tier::Unit,
        ("e2e", "stories") => Tier::Stories,
        ("e2e", _) => Tier::Parts,
        _ => Tier::Package,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(package: &str, kind: &str, name: &str) -> Value {
        json!({
            "reason": "compiler-artifact",
            "manifest_path": format!("/firn/{package}/Cargo.toml"),
            "target": { "kind": [kind], "name": name },
            "profile": { "test": true },
            "executable": format!("/target/{name}-1"),
        })
    }

    #[test]
    fn every_test_program_has_its_tier() {
        for (package, kind, name, tier) in [
            ("oci", "lib", "firn_oci", Tier::Unit),
            ("e2e", "bin", "firn-demo", Tier::Unit),
            ("oci", "test", "layer_bytes", Tier::Package),
            ("e2e", "test", "parts", Tier::Parts),
            ("e2e", "test", "stories", Tier::Stories),
        ] {
            let found = test_program(&message(package, kind, name).to_string()).unwrap();
            assert_eq!(found.tier, tier, "{name}");
            assert_eq!(found.name, format!("firn-{package} {name}"));
            assert_eq!(found.folder, Path::new("/firn").join(package));
        }
    }

    #[test]
    fn what_is_no_test_program_is_passed_over() {
        let mut program = message("e2e", "bin", "firn-demo");
        program["profile"]["test"] = json!(false);
        assert_eq!(test_program(&program.to_string()), None);
        assert_eq!(test_program(r#"{"reason":"build-finished"}"#), None);
        assert_eq!(test_program("   Compiling firn-oci"), None);
    }
}
