//! What images, charts, documentation and the cluster itself promise. Run by `make test`, one test
//! at a time; needs the cluster's programs (Helm among them).

mod cargo_target;
mod charts;
#[cfg(test)] // it is always; says to clippy that helpers are test code too
mod cluster;
mod docs;
mod images;
#[cfg(test)]
mod monitoring;
#[cfg(test)]
mod nix_database;
mod packages;
#[cfg(test)]
mod registries;
#[cfg(test)]
mod ssh;

/// A program of another package, which `cargo test --workspace` makes beside this package's.
fn program(name: &str) -> std::path::PathBuf {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_firn-images")).with_file_name(name);
    assert!(
        program.exists(),
        "{} is not there: make it by cargo test --workspace --no-run",
        program.display()
    );
    program
}
