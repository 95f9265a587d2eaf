//! What build says, checked. Pure.

use firn_crd::exit::Reason;
use firn_crd::report::first_bytes;
use firn_crd::run::Build;

use crate::closure::Closure;
use crate::failure::{Failure, Result, plain};
use crate::handoff::{Checked, Image};
use crate::store_path::StorePath;

/// Longest note, in bytes: the report has no room for more.
const NOTE_MAX: usize = 256;
/// Longest path of an entry point: what Linux takes.
const PROGRAM_MAX: usize = 4096;

fn invalid(what: impl std::fmt::Display) -> Failure {
    Failure::new(
        Reason::StorePathInvalid,
        format!("what build left cannot be used: {what}"),
    )
}

/// The closure of an image, closed and with the output and the entry point in it.
pub fn closure(image: &Image) -> Result<Closure> {
    let closure = Closure::new(image.closure.clone()).map_err(invalid)?;
    match (&image.out_path, &image.description) {
        (Some(out_path), None) if closure.contains(out_path) => {}
        (Some(out_path), None) => {
            return Err(invalid(format_args!("{out_path} is not in its closure")));
        }
        (None, Some(_)) => {}
        _ => {
            return Err(invalid(
                "it is neither an output nor an image description alone",
            ));
        }
    }
    if let Some(program) = &image.entry_point {
        let (path, inside) = StorePath::containing(program).map_err(invalid)?;
        let plain = program.len() <= PROGRAM_MAX
            && !program.contains(char::is_control)
            && inside
                .split('/')
                .all(|part| !matches!(part, "" | "." | ".."));
        if !plain || !closure.contains(&path) {
            return Err(invalid(format_args!(
                "entry point {program:?} is not in the closure"
            )));
        }
    }
    Ok(closure)
}

/// The digest that is published, if "not changed" is true as far as the operator and check know.
pub fn published<'a>(build: &'a Build, checked: &Checked, drv_path: &StorePath) -> Result<&'a str> {
    let published = build.published.as_ref();
    let published = published.filter(|p| {
        p.drv_path == drv_path.to_string() && checked.published.as_deref() == Some(&p.digest)
    });
    published.map(|p| p.digest.as_str()).ok_or_else(|| {
        invalid(format_args!(
            "{drv_path} is not the derivation that is published"
        ))
    })
}

/// A note for the report: short, in one line.
pub fn note(note: &str) -> String {
    first_bytes(&plain(note).replace(['\n', '\t'], " "), NOTE_MAX).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{info, path};

    fn image() -> Image {
        Image {
            drv_path: path("app.drv"),
            out_path: Some(path("app")),
            entry_point: Some(format!("{}/bin/app", path("app"))),
            has_bin: true,
            description: None,
            note: None,
            closure: [
                (path("app"), info(1, &["lib"])),
                (path("lib"), info(1, &[])),
            ]
            .into(),
        }
    }

    #[test]
    fn an_honest_image_passes() {
        assert_eq!(closure(&image()).unwrap().paths().len(), 2);
        assert!(
            closure(&Image {
                entry_point: None,
                ..image()
            })
            .is_ok()
        );
    }

    #[test]
    fn a_dishonest_image_is_refused() {
        let entry = |program: &str| Image {
            entry_point: Some(program.into()),
            ..image()
        };
        let lib = path("lib");
        for bad in [
            Image {
                out_path: Some(path("other")),
                ..image()
            },
            Image {
                out_path: None,
                ..image()
            },
            Image {
                description: Some("{}".into()),
                ..image()
            },
            Image {
                closure: [(path("app"), info(1, &["lib"]))].into(),
                ..image()
            },
            entry("/bin/sh"),
            entry(&format!("{}/bin/x", path("other"))),
            entry(&format!("{lib}/../../../etc/passwd")),
            entry(&format!("{lib}/bin/a\nb")),
            entry(&format!("{lib}/")),
        ] {
            assert_eq!(
                closure(&bad).unwrap_err().reason(),
                Reason::StorePathInvalid,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_note_is_one_short_line() {
        assert_eq!(note("a\nb\u{1b}[1mc"), "a bc");
        assert_eq!(note(&"x".repeat(1000)).len(), NOTE_MAX);
    }
}
