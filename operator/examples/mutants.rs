//! Shows that the tests catch each mistake in `tests/model/mutants/list.rs`: makes a copy of the
//! sources in which every mistake is there, each behind a question to the environment, compiles it
//! once, and runs unit tests and model with one mistake after the other. Nothing of it is in the
//! program that ships.
//!
//! `cargo run -p firn-operator --example mutants [-- NUMBER…]`

#![expect(clippy::print_stdout, reason = "a program for people")]
#![expect(unreachable_pub, reason = "the list is a file of the model tests too")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};

#[path = "../tests/model/mutants/list.rs"]
mod list;

use list::MUTANTS;

/// Asks which mistake is made.
const QUESTION: &str = r#"
pub fn is(number: u32) -> bool {
    static MADE: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let made = || std::env::var("FIRN_MUTANT").ok()?.parse().ok();
    *MADE.get_or_init(|| made().unwrap_or(0)) == number
}
"#;

/// What catches mistakes, as cargo is asked for it.
const UNITS: &[&str] = &["--lib"];
const MODEL: &[&str] = &["--test", "model", "whatever"];

fn main() -> Result<ExitCode> {
    let wanted: Vec<usize> = env::args()
        .skip(1)
        .map(|n| n.parse())
        .collect::<Result<_, _>>()?;
    let package = env::var_os("CARGO_MANIFEST_DIR").context("not started by cargo run")?;
    let clone = Path::new(&package).join("..").canonicalize()?;
    let folder = tempfile::tempdir()?;
    let copy = folder.path();
    copy_sources(&clone, copy)?;
    for (index, mutant) in MUTANTS.iter().enumerate() {
        let file = copy.join("operator/src").join(mutant.file);
        let source = fs::read_to_string(&file)?;
        let (before, expression, after) = mutant.parts();
        let to = mutant.to;
        let number = index + 1;
        let made = format!(
            "{before}(if crate::mutants::is({number}) {{ {to} }} else {{ {expression} }}){after}"
        );
        ensure!(
            source.matches(&mutant.text()).count() == 1,
            "{}: {:?}",
            mutant.file,
            mutant.from
        );
        fs::write(&file, source.replacen(&mutant.text(), &made, 1))?;
    }
    let target = target(&clone).join("mutants");
    println!("compiling {} in {}", copy.display(), target.display());
    let compiled = cargo(copy, &target, 0, &["--lib", "--test", "model", "--no-run"])
        .stderr(Stdio::inherit())
        .status()?;
    ensure!(compiled.success(), "the copy does not compile");
    // Tests that fail anyway catch nothing.
    for tests in [UNITS, MODEL] {
        ensure!(
            passes(copy, &target, 0, tests)?,
            "{tests:?} fail without any mistake"
        );
    }
    let mut missed = 0;
    println!("{:>2}  {:<8} {:<8} mistake", "", "units", "model");
    for (index, mutant) in MUTANTS.iter().enumerate() {
        let number = index + 1;
        if !wanted.is_empty() && !wanted.contains(&number) {
            continue;
        }
        let units = !passes(copy, &target, number, UNITS)?;
        let model = !passes(copy, &target, number, MODEL)?;
        let word = |caught| if caught { "caught" } else { "-" };
        println!(
            "{number:>2}  {:<8} {:<8} {}: {}",
            word(units),
            word(model),
            mutant.file,
            mutant.what
        );
        if !units && !model {
            missed += 1;
        }
    }
    println!("{missed} not caught");
    Ok(if missed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The packages that the operator is made of, and a workspace of them alone.
fn copy_sources(clone: &Path, copy: &Path) -> Result<()> {
    for package in ["crd", "oci", "operator"] {
        copy_folder(&clone.join(package), &copy.join(package))?;
    }
    fs::copy(clone.join("Cargo.lock"), copy.join("Cargo.lock"))?;
    let manifest = fs::read_to_string(clone.join("Cargo.toml"))?;
    let manifest: Vec<&str> = manifest
        .lines()
        .map(|line| match line.split_once(" = ") {
            Some(("members" | "default-members", _)) if line.starts_with('m') => {
                "members = [\"crd\", \"oci\", \"operator\"]"
            }
            Some(("default-members", _)) => "",
            _ => line,
        })
        .collect();
    fs::write(copy.join("Cargo.toml"), manifest.join("\n"))?;
    let library = copy.join("operator/src/lib.rs");
    let source = fs::read_to_string(&library)?;
    fs::write(&library, format!("{source}\nmod mutants;\n"))?;
    fs::write(copy.join("operator/src/mutants.rs"), QUESTION)?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "cargo's own variable")]
fn target(clone: &Path) -> PathBuf {
    env::var("CARGO_TARGET_DIR").map_or_else(|_| clone.join("target"), PathBuf::from)
}

fn cargo(copy: &Path, target: &Path, mutant: usize, arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command
        .args(["test", "--offline", "-p", "firn-operator"])
        .args(arguments)
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", target)
        .env("FIRN_MUTANT", mutant.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn passes(copy: &Path, target: &Path, mutant: usize, arguments: &[&str]) -> Result<bool> {
    Ok(cargo(copy, target, mutant, arguments).status()?.success())
}
