//! What a NixImage asks for besides an image that somebody else made: how a container is started,
//! laid over the image's config, and files, as a layer on top. Pure.
//!
//! The other's config is made first and read again, so that the fields mean what they mean there.
//! What comes of it is Firn's way of writing the same: another config has another digest anyway.

use std::collections::BTreeSet;

use firn_crd::run::ImageSpec;
use firn_oci::{Digest, History, ImageConfig};
use jiff::Timestamp;

use super::description::{self, Container, Description, Environment, set_variable};
use super::foreign::{InputError, LAYERS_MAX};
use super::nix2container::Rewrite;
use super::{Config, Contents, Image};
use crate::store_path::StorePath;

/// A config, and what is laid over it.
#[derive(Debug, Clone, PartialEq)]
pub struct LaidOver {
    under: Config,
    over: Container,
    /// Layers on top of which the image's own config knows nothing.
    on_top: usize,
}

impl LaidOver {
    /// The config blob of an image with these layers.
    pub(super) fn to_bytes(&self, layers: &[(Digest, &[History])]) -> Vec<u8> {
        let own = layers.len().saturating_sub(self.on_top);
        let (own, on_top) = layers.split_at_checked(own).unwrap_or((layers, &[]));
        let under = self.under.to_bytes(own);
        let Ok(mut config) = ImageConfig::from_bytes(&under) else {
            // Cannot be: it was read when this was made, and only digests have changed.
            return under;
        };
        config.config = self.over.on(config.config);
        // An image whose maker told of no step is left so: the number of steps must be right.
        let steps = config.history.iter().filter(|step| !step.empty_layer);
        let is_told = steps.count() == own.len();
        for (diff_id, history) in on_top {
            "layers".clone_into(&mut config.rootfs.kind);
            config.rootfs.diff_ids.push(*diff_id);
            if is_told {
                config.history.extend_from_slice(history);
            }
        }
        config.to_bytes()
    }
}

impl Image {
    /// The image with the files of `asked` on top, and a config of the fields that are set in it:
    /// lists take the place of the image's own, variables, ports and volumes are added to them, and
    /// win.
    pub fn laid_over(mut self, asked: &ImageSpec) -> Result<Self, InputError> {
        if asked.config.is_empty() && asked.files.is_default() {
            return Ok(self);
        }
        if asked.files.copy_to_root {
            return Err(InputError::CopyToRoot);
        }
        let created = self.own_config()?.created;
        let created = created.or(Timestamp::from_second(1).ok());
        let mut over = Description::default().with(asked).config;
        let on_top = description::on_top(asked, &self.inside(), created.unwrap_or_default());
        let on_top = on_top.map_err(|error| InputError::Files(Box::new(error)))?;
        let count = self.layers.len();
        if let Some((layer, environment)) = on_top {
            if count >= LAYERS_MAX {
                return Err(InputError::TooMany {
                    what: "the image with a layer for `output.files`",
                    count: count + 1,
                    of: "layers",
                    limit: LAYERS_MAX,
                });
            }
            let mut variables = environment;
            for line in over.env.lines() {
                set_variable(&mut variables, line);
            }
            over.env = Environment::List(variables);
            self.layers.push(layer);
        }
        let on_top = self.layers.len() - count;
        Ok(Self {
            config: Config::LaidOver(Box::new(LaidOver {
                under: self.config,
                over,
                on_top,
            })),
            ..self
        })
    }

    /// The store paths that are in it, at their places, as far as it says so: what is in ready
    /// archives is not known.
    fn inside(&self) -> BTreeSet<StorePath> {
        let mut inside = BTreeSet::new();
        for layer in &self.layers {
            match &layer.contents {
                Contents::Nix2container(layer) => {
                    let stays = layer.entries.iter().filter(|entry| {
                        let options = entry.options.as_ref();
                        options.is_none_or(|options| options.rewrite == Rewrite::None)
                    });
                    inside.extend(stays.map(|entry| entry.path.clone()));
                }
                Contents::DockerTools(layer) => inside.extend(layer.paths.iter().cloned()),
                Contents::Paths(layer) => inside.extend(layer.paths.iter().cloned()),
                Contents::Blob(_)
                | Contents::Files(_)
                | Contents::NixDatabase(_)
                | Contents::Remote(_) => {}
            }
        }
        inside
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

    use firn_crd::container::{self as asked, Variable};
    use firn_crd::files::Files;
    use serde_json::{Value, json};

    use super::super::Layer;
    use super::super::foreign::Wanted;
    use super::super::nix2container::{Options, PathEntry, PathsLayer};
    use super::super::tree::Node;
    use super::super::verbatim::Verbatim;
    use super::*;
    use crate::testing::path;

    const OWN: &str = r#"{"architecture":"amd64","os":"linux","strange":{"x":1},"config":{"Cmd":["a"],
        "Entrypoint":["/own"],"Env":["PATH=/bin","A=own"],"User":"7","Healthcheck":{"Test":["NONE"]},
        "Strange":true},"rootfs":{"type":"layers","diff_ids":[]},"history":[{"comment":"x","empty_layer":true}]}"#;

    fn image(bytes: &str) -> Image {
        let wanted = Wanted {
            platform: "linux/amd64".parse().unwrap(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            created: None,
            now: Timestamp::UNIX_EPOCH,
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

    fn laid_over(image: Image, config: asked::Container) -> Result<Image, InputError> {
        let asked = ImageSpec {
            config,
            ..ImageSpec::default()
        };
        image.laid_over(&asked)
    }

    #[test]
    fn nothing_asked_for_changes_no_byte() {
        let own = image(OWN).laid_over(&ImageSpec::default()).unwrap();
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
        let told = config(&laid_over(image(OWN), asked).unwrap());
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

    fn of_nix2container(rewrite: Rewrite) -> Image {
        let entry = PathEntry {
            path: path("bash-5.2"),
            options: Some(Options {
                rewrite,
                perms: Vec::new(),
            }),
        };
        let layer = PathsLayer {
            entries: vec![entry],
            declared: Digest::of(b""),
        };
        let mut image = image(OWN);
        image.layers.push(Layer {
            contents: Contents::Nix2container(Box::new(layer)),
            annotations: BTreeMap::new(),
            history: Vec::new(),
            why: String::new(),
        });
        image
    }

    fn with_shell() -> ImageSpec {
        ImageSpec {
            files: Files {
                bin_sh: true,
                ..Files::default()
            },
            ..ImageSpec::default()
        }
    }

    #[test]
    fn a_shell_is_found_among_the_paths_that_are_at_their_places() {
        let stays = of_nix2container(Rewrite::None).laid_over(&with_shell());
        let layers = stays.unwrap().layers;
        let Contents::Files(tree) = &layers[1].contents else {
            panic!("no files");
        };
        let link = &tree.entries[&"/bin/sh".parse().unwrap()];
        let bash = format!("{}/bin/sh", path("bash-5.2"));
        assert_eq!(link.node, Node::Symlink(bash));
        let gone = Rewrite::Prefix {
            prefix: path("bash-5.2").to_string(),
            replacement: String::new(),
        };
        let refused = of_nix2container(gone).laid_over(&with_shell());
        assert!(matches!(refused, Err(InputError::Files(_))), "{refused:?}");
    }

    /// The number of steps that made a layer is the number of layers, or none is told.
    #[test]
    fn an_image_without_history_is_left_without() {
        let image = of_nix2container(Rewrite::None).laid_over(&with_shell());
        let image = image.unwrap();
        let layers: Vec<(Digest, &[History])> = image
            .layers
            .iter()
            .map(|layer| (Digest::of(b""), layer.history.as_slice()))
            .collect();
        let told: Value = serde_json::from_slice(&image.config.to_bytes(&layers)).unwrap();
        assert_eq!(
            told["history"],
            json!([{"comment": "x", "empty_layer": true}])
        );
        assert_eq!(told["rootfs"]["diff_ids"], json!([Digest::of(b"")]));
    }

    #[test]
    fn one_layer_too_many_is_refused() {
        let mut image = of_nix2container(Rewrite::None);
        image.layers = vec![image.layers[0].clone(); LAYERS_MAX];
        let refused = image.laid_over(&with_shell());
        assert!(
            matches!(refused, Err(InputError::TooMany { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn a_config_that_cannot_be_read_is_an_error_and_not_left_as_it_is() {
        let asked = asked::Container {
            user: Some("1".into()),
            ..asked::Container::default()
        };
        let failed = laid_over(image("[]"), asked);
        assert!(matches!(failed, Err(InputError::Config(_))), "{failed:?}");
    }
}
