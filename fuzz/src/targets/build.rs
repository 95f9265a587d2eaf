//! What the pod's containers leave for each other and for the operator.

use firn_crd::report::{REPORT_MAX, Report};
use firn_crd::run::ImageSpec;
use firn_oci::Compression;
use firn_streamer::closure::Closure;
use firn_streamer::handoff::{self, Built};
use firn_streamer::input::package::{self, Package};
use firn_streamer::push::verify;
use firn_streamer::recipe::Key;
use firn_streamer::store_path::StorePath;

/// `build.json`, written where anything may have run.
pub(crate) fn handoff(data: &[u8]) {
    let Ok(built) = serde_json::from_slice::<Built>(data) else {
        return;
    };
    let written = serde_json::to_vec(&built).unwrap_or_default();
    assert_eq!(serde_json::from_slice(&written).ok(), Some(built.clone()));
    let Built::Image(left) = built else {
        return;
    };
    if let Some(note) = &left.note {
        let note = verify::note(note);
        assert!(
            note.len() <= 256 && !note.contains(char::is_control),
            "{note:?}"
        );
    }
    if let Ok(closure) = verify::closure(&left) {
        image(&left, &closure);
    }
}

/// What passed names nothing outside the closure.
fn image(left: &handoff::Image, closure: &Closure) {
    if let Some(program) = &left.entry_point {
        let inside = StorePath::containing(program);
        assert!(inside.is_ok_and(|(path, inside)| {
            closure.contains(&path)
                && inside
                    .split('/')
                    .all(|part| !matches!(part, "." | ".." | ""))
        }));
    }
    let (Some(out_path), Ok(platform)) = (&left.out_path, "linux/amd64".parse()) else {
        return;
    };
    let asked = ImageSpec {
        max_layers: 4,
        ..ImageSpec::default()
    };
    let image = package::image(&Package {
        platform,
        out_path,
        closure,
        entry_point: left.entry_point.as_deref(),
        has_bin: left.has_bin,
        asked: &asked,
        commit_time: jiff::Timestamp::default(),
    });
    let Ok(image) = image else {
        return;
    };
    assert!(image.layers.len() <= 4);
    for layer in &image.layers {
        let key = Key::of(&layer.contents, closure, Compression::ZSTD);
        assert_eq!(key, Key::of(&layer.contents, closure, Compression::ZSTD));
    }
}

/// A termination message, which build code can write as well.
pub(crate) fn report(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Some(report) = Report::parse(text) {
        let written = report.to_message();
        assert!(written.len() <= REPORT_MAX, "{} bytes", written.len());
        assert!(Report::parse(&written).is_some(), "{written}");
    }
}
