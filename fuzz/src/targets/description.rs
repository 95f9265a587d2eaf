//! Firn's own image description, which build code writes.

use firn_oci::{Compression, Digest};
use firn_streamer::input::description::{self, Created, Description, Parts};
use firn_streamer::recipe::Key;

use super::foreign_image::closure;

/// Most layers, as a cluster's user says.
const LAYERS: u32 = 8;

pub(crate) fn run(data: &[u8]) {
    let _ = description::is_description(data);
    let Ok(described) = Description::parse(data) else {
        return;
    };
    let closure = closure();
    let Ok(mentioned) = description::mentions(data, &closure) else {
        return;
    };
    assert!(mentioned.iter().all(|path| closure.contains(path)));
    let Ok(platform) = "linux/amd64".parse() else {
        return;
    };
    let image = description::image(
        &described,
        &mentioned,
        &Parts {
            platform,
            closure: &closure,
            max_layers: LAYERS,
            created: Created::Epoch,
            commit_time: jiff::Timestamp::default(),
            base: None,
        },
    );
    let Ok(image) = image else {
        return;
    };
    // A thin layer is none that is stored.
    assert!(described.thin.is_some() || image.layers.len() <= LAYERS as usize);
    let mut layers = Vec::new();
    for layer in &image.layers {
        let key = Key::of(&layer.contents, &closure, Compression::ZSTD);
        assert_eq!(key, Key::of(&layer.contents, &closure, Compression::ZSTD));
        assert!(
            !layer
                .contents
                .names()
                .iter()
                .any(|name| name.contains('\0'))
        );
        layers.push((Digest::of(b""), layer.history.as_slice()));
    }
    let bytes = image.config.to_bytes(&layers);
    assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
}
