//! All fuzz targets in one program: `FIRN_FUZZ_TARGET` says which one runs, or `list` for their
//! names; the arguments are libFuzzer's. Run by the tier `fuzz` of `make test`; see README.md.

#![no_main]

mod entries;
mod targets;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

/// What a target does with one input; it panics when a promise is broken.
pub(crate) type Target = fn(&[u8]);

#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::exit,
    reason = "the edge: libFuzzer has `main`, and takes the arguments"
)]
fn chosen() -> Target {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("FIRN_FUZZ_TARGET").unwrap_or_else(|_| "list".to_owned());
        if name == "list" {
            for (name, _) in targets::TARGETS {
                println!("{name}");
            }
            std::process::exit(0);
        }
        let found = targets::TARGETS.iter().find(|(target, _)| *target == name);
        let Some((_, target)) = found else {
            panic!("there is no target {name:?}; FIRN_FUZZ_TARGET=list prints them");
        };
        *target
    })
}

fuzz_target!(
    init: {
        chosen();
    },
    |data: &[u8]| chosen()(data)
);
