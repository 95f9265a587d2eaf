//! What a NixImage says of how a container is started, laid over the config of an image that somebody
//! else made. Pure.
//!
//! The other's bytes are made first and read again, so that the fields mean what they mean there.
//! What comes of it is Firn's way of writing the same: another config has another digest anyway.

use firn_crd::container as asked;
use firn_crd::run::ImageSpec;
use firn_oci::{Digest, History, ImageConfig};

use super::description::{Container, Description};
use super::foreign::InputError;
use super::{Config, Image};

/// A config, and what is laid over it.
#[derive(Debug, Clone, PartialEq)]
pub struct LaidOver {
    under: Config,
    over: Container,
}

impl LaidOver {
    /// The config blob of an image with these layers.
    pub(super) fn to_bytes(&self, layers: &[(Digest, &[History])]) -> Vec<u8> {
        let under = self.under.to_bytes(layers);
        match ImageConfig::from_bytes(&under) {
            Ok(config) => ImageConfig {
                config: self.over.on(config.config),
                ..config
            }
            .to_bytes(),
            // Cannot be: it was read when this was made, and only digests have changed.
            Err(_) => under,
        }
    }
}

impl Image {
    /// The image with a config of the fields that are set in `asked`: lists take the place of the
    /// image's own, variables, ports and volumes are added to them, and win.
    pub fn laid_over(self, asked: &asked::Container) -> Result<Self, InputError> {
        if asked.is_empty() {
            return Ok(self);
        }
        self.own_config()?;
        let spec = ImageSpec {
            config: asked.clone(),
            ..ImageSpec::default()
        };
        Ok(Self {
            config: Config::LaidOver(Box::new(LaidOver {
                under: self.config,
                over: Description::default().with(&spec).config,
            })),
            ..self
        })
    }

    /// The config as its maker wrote it, but for the layers' digests.
    pub fn own_config(&self) -> Result<ImageConfig, InputError> {
        let unknown = Digest::of(b"");
        let layers = self.layers.iter();
        let layers: Vec<(Digest, &[History])> = layers
            .map(|layer| (unknown, layer.history.as_slice()))
            .collect();
        ImageConfig::from_bytes(&self.config.to_bytes(&layers)).map_err(InputError::Config)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use firn_crd::container::Variable;
    use serde_json::{Value, json};

    use super::super::foreign::Wanted;
    use super::super::verbatim::Verbatim;
    use super::*;

    const OWN: &str = r#"{"architecture":"amd64","os":"linux","strange":{"x":1},"config":{"Cmd":["a"],
        "Entrypoint":["/own"],"Env":["PATH=/bin","A=own"],"User":"7","Healthcheck":{"Test":["NONE"]},
        "Strange":true},"rootfs":{"type":"layers","diff_ids":[]},"history":[{"comment":"x","empty_layer":true}]}"#;

    fn image(bytes: &str) -> Image {
        let wanted = Wanted {
            platform: "linux/amd64".parse().unwrap(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            created: None,
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        let config = ImageConfig::from_bytes(OWN.as_bytes()).unwrap();
        Image {
            platform: wanted.platform.clone(),
            layers: Vec::new(),
            config: Config::Verbatim(Verbatim::new(bytes.into(), config, &wanted)),
            annotations: BTreeMap::new(),
        }
    }

    fn config(image: &Image) -> Value {
        serde_json::from_slice(&image.config.to_bytes(&[])).unwrap()
    }

    #[test]
    fn nothing_asked_for_changes_no_byte() {
        let own = image(OWN).laid_over(&asked::Container::default()).unwrap();
        assert_eq!(own.config.to_bytes(&[]), OWN.as_bytes());
    }

    #[test]
    fn each_field_that_is_set_takes_the_place_of_the_image_s_and_the_rest_stays() {
        let asked = asked::Container {
            entrypoint: Some(vec!["/asked".into()]),
            env: vec![Variable {
                name: "A".into(),
                value: "asked".into(),
            }],
            working_dir: Some("/srv".into()),
            ..asked::Container::default()
        };
        let told = config(&image(OWN).laid_over(&asked).unwrap());
        assert_eq!(
            told,
            json!({
                "architecture": "amd64", "os": "linux", "strange": {"x": 1},
                "config": {
                    // Another program does not get this one's arguments.
                    "Entrypoint": ["/asked"], "Env": ["PATH=/bin", "A=asked"], "User": "7",
                    "WorkingDir": "/srv", "Healthcheck": {"Test": ["NONE"]}, "Strange": true,
                },
                "rootfs": {"type": "layers", "diff_ids": []},
                "history": [{"comment": "x", "empty_layer": true}],
            })
        );
    }

    #[test]
    fn a_config_that_cannot_be_read_is_an_error_and_not_left_as_it_is() {
        let asked = asked::Container {
            user: Some("1".into()),
            ..asked::Container::default()
        };
        let failed = image("[]").laid_over(&asked);
        assert!(matches!(failed, Err(InputError::Config(_))), "{failed:?}");
    }
}
