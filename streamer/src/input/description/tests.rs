use firn_oci::Digest;

use super::*;
use crate::closure::PathInfo;
use crate::input::tree::{Node, Strength};
use crate::nar_hash::NarHash;
use crate::testing::{info, path};

fn closure() -> Closure {
    let paths: [(&str, &[&str]); 6] = [
        ("image.json", &["app", "conf", "base"]),
        ("app", &["lib", "nss-cacert-3.1"]),
        ("conf", &[]),
        ("lib", &["lib"]),
        ("nss-cacert-3.1", &[]),
        ("base", &[]),
    ];
    let infos = paths.map(|(name, references)| (path(name), info(1000, references)));
    Closure::new(infos.into()).unwrap()
}

fn parts(closure: &Closure) -> Parts<'_> {
    Parts {
        platform: "linux/amd64".parse().unwrap(),
        closure,
        max_layers: 100,
        created: Created::Epoch,
        commit_time: Timestamp::from_second(1000).unwrap(),
        base: None,
    }
}

/// `{app}` stands for a store path.
fn document(json: &str) -> String {
    closure()
        .paths()
        .keys()
        .fold(json.to_owned(), |json, path| {
            json.replace(&format!("{{{}}}", path.name()), &path.to_string())
        })
}

fn make(json: &str, parts: &Parts<'_>) -> Result<Image, DescriptionError> {
    let json = document(json);
    let description = Description::parse(json.as_bytes())?;
    let mentioned = mentions(json.as_bytes(), parts.closure)?;
    image(&description, &mentioned, parts)
}

fn described(json: &str) -> Result<Image, DescriptionError> {
    make(json, &parts(&closure()))
}

fn refusal(json: &str) -> String {
    crate::failure::chain(&described(json).unwrap_err())
}

/// The names of each layer's store paths.
fn store_layers(image: &Image) -> Vec<Vec<&str>> {
    let layers = image
        .layers
        .iter()
        .filter_map(|layer| match &layer.contents {
            Contents::Paths(paths) => Some(paths.paths.iter().map(StorePath::name).collect()),
            _ => None,
        });
    layers.collect()
}

fn tree(image: &Image) -> &Tree {
    let mut trees = image
        .layers
        .iter()
        .filter_map(|layer| match &layer.contents {
            Contents::Files(tree) => Some(tree.as_ref()),
            _ => None,
        });
    trees.next_back().unwrap()
}

fn config(image: &Image) -> &ImageConfig {
    match &image.config {
        Config::Firn(fields) => fields,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_document_is_recognised_by_its_marker() {
    assert!(is_description(b" {\"firnImage\":1}"));
    assert!(!is_description(b"[\"firnImage\"]"));
    assert!(!is_description(b"{\"layers\":[]}"));
    let later = Description::parse(br#"{"firnImage":2}"#).unwrap_err();
    assert!(later.to_string().contains("version 2"), "{later}");
    assert!(Description::parse(br#"{"firnImage":1,"entrypoint":[]}"#).is_err());
    assert!(Description::parse(b"{}").is_err());
}

#[test]
fn what_is_mentioned_anywhere_is_in_the_image_and_the_document_is_not() {
    let image = described(r#"{"firnImage":1,"config":{"entrypoint":["{app}/bin/app"]}}"#).unwrap();
    let mut names = store_layers(&image).concat();
    names.sort_unstable();
    assert_eq!(names, ["app", "lib", "nss-cacert-3.1"]);
    let json =
        document(r#"{"firnImage":1,"config":{"env":{"X":"a:{conf}"}},"base":{"path":"{base}"}}"#);
    let mentioned = mentions(json.as_bytes(), &closure()).unwrap();
    assert_eq!(mentioned, [path("conf")].into());
    let refused = refusal(&json);
    assert!(
        refused.starts_with("`base` must have exactly one"),
        "{refused}"
    );
}

#[test]
fn declared_layers_come_first_with_what_they_need() {
    let image = described(
        r#"{"firnImage":1,"contents":["{app}"],
            "layers":[{"paths":["{lib}"],"comment":"low"},{"paths":["{conf}","{lib}"]}]}"#,
    )
    .unwrap();
    let layers = store_layers(&image);
    assert_eq!(layers[..2], [vec!["lib"], vec!["conf"]]);
    assert_eq!(image.layers[0].history[0].comment, "low");
    let mut rest = layers[2..].concat();
    rest.sort_unstable();
    assert_eq!(rest, ["app", "nss-cacert-3.1"]);
}

#[test]
fn too_many_layers_are_refused_with_the_numbers() {
    let refused = refusal(
        r#"{"firnImage":1,"contents":["{app}"],"maxLayers":5,"headRoom":3,
            "layers":[{"paths":["{lib}"]}]}"#,
    );
    assert!(
        refused.contains("may have 5: 1 declared, 1 of a base image or its own files, 3 kept free"),
        "{refused}"
    );
    // No room for what nobody asked for.
    let image = described(r#"{"firnImage":1,"contents":["{app}"],"maxLayers":1}"#).unwrap();
    assert_eq!(image.layers.len(), 1);
    assert!(described(r#"{"firnImage":1,"contents":["{app}"],"maxLayers":1,"tmp":true}"#).is_err());
}

#[test]
fn usual_files_are_there_unless_they_are_not_wanted() {
    let usual = described(r#"{"firnImage":1,"contents":["{app}"]}"#).unwrap();
    let names: Vec<String> = tree(&usual)
        .entries
        .keys()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        names,
        [
            "/etc/group",
            "/etc/nsswitch.conf",
            "/etc/passwd",
            "/etc/pki/tls/certs/ca-bundle.crt",
            "/etc/ssl/certs/ca-bundle.crt",
            "/etc/ssl/certs/ca-certificates.crt",
            "/tmp",
            "/var/empty",
        ]
    );
    let all = tree(&usual).entries.values();
    assert!(all.clone().all(|entry| entry.strength == Strength::Default));
    assert_eq!(
        config(&usual).config.env,
        ["SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt"]
    );
    let own = described(
        r#"{"firnImage":1,"contents":["{conf}"],"tmp":false,"caCertificates":"/x.crt",
            "users":[{"name":"app","uid":1000}],"config":{"env":{"SSL_CERT_FILE":"/own"}}}"#,
    )
    .unwrap();
    let bundle = &tree(&own).entries[&"/etc/ssl/certs/ca-bundle.crt".parse().unwrap()];
    assert_eq!(bundle.node, Node::Symlink("/x.crt".into()));
    assert_eq!(config(&own).config.env, ["SSL_CERT_FILE=/own"]);
    assert!(!tree(&own).entries.contains_key(&"/tmp".parse().unwrap()));
}

#[test]
fn mistakes_are_named_with_their_field() {
    for (json, words) in [
        (
            r#"{"firnImage":1,"contents":["/etc"],"layers":[{"paths":["/etc"]}]}"#,
            "layers.paths: \"/etc\" is not a store path",
        ),
        (
            r#"{"firnImage":1,"copyToRoot":["/nix/store/00000000000000000000000000000000-x"]}"#,
            "copyToRoot names /nix/store/0000",
        ),
        (
            r#"{"firnImage":1,"permissions":[{"path":"bin","uid":1}]}"#,
            "permissions.path",
        ),
        (
            r#"{"firnImage":1,"permissions":[{"path":"/bin"}]}"#,
            "says nothing",
        ),
        (
            r#"{"firnImage":1,"permissions":[{"path":"/bin","mode":"0x1"}]}"#,
            "\"0x1\" is no mode",
        ),
        (
            r#"{"firnImage":1,"permissions":[{"path":"/bin","mode":"77777"}]}"#,
            "\"77777\" is no mode",
        ),
        (
            r#"{"firnImage":1,"permissions":[{"path":"/bin","capabilities":"cap_fly=ep"}]}"#,
            "cap_fly",
        ),
        (
            r#"{"firnImage":1,"remove":["/usr/*/x"]}"#,
            "`remove` has \"/usr/*/x\"",
        ),
        (
            r#"{"firnImage":1,"files":{"/x":{"text":"a","directory":true}}}"#,
            "\"/x\" must be exactly one",
        ),
        (
            r#"{"firnImage":1,"binSh":true}"#,
            "no package of the image has bin/sh",
        ),
        (
            r#"{"firnImage":1,"config":{"env":["NOVALUE"]}}"#,
            "\"NOVALUE\"",
        ),
        (r#"{"firnImage":1,"created":"yesterday"}"#, "\"yesterday\""),
    ] {
        let refused = refusal(json);
        assert!(refused.contains(words), "{json}: {refused}");
    }
}

#[test]
fn permissions_become_rules_and_files_become_entries() {
    let image = described(
        r#"{"firnImage":1,"contents":["{app}"],
            "permissions":[{"path":"/nix/store/*-app/bin/x","mode":"4755","capabilities":"cap_net_raw=ep"}],
            "files":{"/etc/motd":{"text":"hi","mode":"0600","uid":7}},
            "copyToRoot":["{conf}",{"path":"{lib}","at":"/opt/lib","how":"Copy"}]}"#,
    )
    .unwrap();
    let tree = tree(&image);
    let rule = &tree.rules[0];
    assert_eq!(rule.mode, Some(0o4755));
    assert_eq!(rule.xattrs["security.capability"].len(), 20);
    let motd = &tree.entries[&"/etc/motd".parse().unwrap()];
    assert_eq!((motd.attributes.mode, motd.attributes.uid), (0o600, 7));
    assert_eq!(motd.strength, Strength::Declared);
    assert_eq!(tree.copies[1].at.to_string(), "/opt/lib");
    let closure = closure();
    let sources: Vec<&str> = tree
        .sources(&closure)
        .into_iter()
        .map(StorePath::name)
        .collect();
    assert_eq!(sources.len(), 3, "{sources:?}");
}

fn base() -> BaseImage {
    let mut config = Config::firn("linux/amd64".parse().unwrap());
    config.config.env = vec!["PATH=/usr/bin".into()];
    config.config.cmd = vec!["sh".into()];
    let history = |comment: &str, empty_layer| History {
        comment: comment.into(),
        empty_layer,
        ..History::default()
    };
    BaseImage {
        config,
        layers: vec![Layer {
            contents: Contents::Files(Box::default()),
            annotations: BTreeMap::new(),
            history: vec![history("ADD", false), history("ENV", true)],
            why: "base".into(),
        }],
    }
}

#[test]
fn a_base_image_lies_below_and_gives_what_is_not_said() {
    let (base, closure) = (base(), closure());
    let parts = Parts {
        base: Some(&base),
        ..parts(&closure)
    };
    let json = r#"{"firnImage":1,"contents":["{conf}"],"remove":["/usr/share/doc"],"config":{"env":{"A":"1"}}}"#;
    let image = make(json, &parts).unwrap();
    assert_eq!(image.layers[0], base.layers[0]);
    assert_eq!(image.layers.len(), 3);
    assert_eq!(config(&image).config.env, ["PATH=/usr/bin", "A=1"]);
    assert_eq!(config(&image).config.cmd, ["sh"]);
    // Its own /tmp and users stay.
    assert!(tree(&image).entries.is_empty());
    assert_eq!(tree(&image).removals.len(), 1);
    let json = r#"{"firnImage":1,"contents":["{conf}"],"inherit":["cmd"]}"#;
    let image = make(json, &parts).unwrap();
    assert_eq!(config(&image).config.env, [""; 0]);
    assert_eq!(image.layers[0].history[0].comment, "base image");
    assert_eq!(image.layers.len(), 2);
}

#[test]
fn history_labels_and_times_are_where_tools_look_for_them() {
    let image = described(
        r#"{"firnImage":1,"contents":["{app}"],"author":"me","created":"Source","labels":{"a":"1"},
            "annotations":{"b":"2"},"history":[{"createdBy":"by hand"}]}"#,
    )
    .unwrap();
    let fields = config(&image);
    assert_eq!(fields.created, Some(Timestamp::from_second(1000).unwrap()));
    assert_eq!(fields.author.as_deref(), Some("me"));
    assert_eq!(fields.config.labels["a"], "1");
    assert_eq!(image.annotations["b"], "2");
    assert!(fields.history[0].empty_layer);
    let layers: Vec<(Digest, &[History])> = image
        .layers
        .iter()
        .map(|layer| (Digest::of(b""), layer.history.as_slice()))
        .collect();
    let bytes = image.config.to_bytes(&layers);
    let read = ImageConfig::from_bytes(&bytes).unwrap();
    let made = read.history.iter().filter(|step| !step.empty_layer).count();
    assert_eq!(made, image.layers.len());
}

#[test]
fn a_thin_image_has_mount_points_and_says_what_goes_there() {
    let thin =
        described(r#"{"firnImage":1,"contents":["{app}"],"thin":{},"tmp":false,"users":[]}"#);
    let thin = thin.unwrap();
    let layer = &thin.layers[0];
    assert_eq!(
        layer.annotations["containerd.io/snapshot/nix-layer"],
        "true"
    );
    let first = &layer.annotations["containerd.io/snapshot/nix-store-path.0"];
    assert!(first.starts_with("/nix/store/"), "{first}");
    assert_eq!(layer.annotations.len(), 4);
    assert!(matches!(&layer.contents, Contents::Files(tree) if tree.mount_points.len() == 3));
    let json = r#"{"firnImage":1,"contents":["{app}"],"thin":{"closureInfo":"{conf}"}}"#;
    let thin = described(json).unwrap();
    let closure = &thin.layers[0].annotations["containerd.io/snapshot/nix-closure"];
    assert_eq!(*closure, path("conf").to_string());
    assert_eq!(thin.layers[0].annotations.len(), 2);
}

#[test]
fn what_nix_must_know_is_the_last_layer() {
    let database = |wanted: &str| {
        let json = format!(r#"{{"firnImage":1,"contents":["{{app}}"],"nixDatabase":{wanted}}}"#);
        let image = described(&json).unwrap();
        match &image.layers.last().unwrap().contents {
            Contents::NixDatabase(database) => Some((**database).clone()),
            _ => None,
        }
    };
    let root = database("true").unwrap();
    assert_eq!(
        root.paths,
        ["app", "lib", "nss-cacert-3.1"].map(path).into()
    );
    assert_eq!((root.uid, root.gid, root.has_base), (0, 0, false));
    let owned = database(r#"{"uid":1000,"gid":100}"#).unwrap();
    assert_eq!((owned.uid, owned.gid), (1000, 100));
    assert_eq!(database("false"), None);
}

#[test]
fn what_the_cluster_s_user_asks_for_counts() {
    let asked: ImageSpec = serde_json::from_str(
        r#"{"labels":{"a":"spec"},"annotations":{},"timestamp":"Epoch","maxLayers":50,"compression":"Zstd",
            "config":{"entrypoint":["/spec"],"env":[{"name":"A","value":"spec"}],"user":"1000","volumes":["/v"]},
            "files":{"tmp":false,"users":[{"name":"app","uid":1000}],"copyToRoot":true}}"#,
    )
    .unwrap();
    let json = document(
        r#"{"firnImage":1,"contents":["{conf}"],"labels":{"a":"own","b":"own"},
            "config":{"entrypoint":["/own"],"cmd":["own"],"env":["A=own","B=own"]}}"#,
    );
    let description = Description::parse(json.as_bytes()).unwrap().with(&asked);
    let closure = closure();
    let image = image(&description, &[path("conf")].into(), &parts(&closure)).unwrap();
    let config = &config(&image).config;
    assert_eq!(config.labels["a"], "spec");
    assert_eq!(config.labels["b"], "own");
    assert_eq!(config.entrypoint, ["/spec"]);
    assert_eq!(config.cmd, [""; 0]);
    assert_eq!(config.env, ["A=spec", "B=own"]);
    assert_eq!(config.user, "1000");
    let tree = tree(&image);
    assert!(!tree.entries.contains_key(&"/tmp".parse().unwrap()));
    assert_eq!(tree.copies[0].path, path("conf"));
    assert_eq!(
        description.with(&ImageSpec::default()).users.unwrap()[0].name,
        "app"
    );
}

#[test]
fn the_tar_format_is_the_document_s_unless_another_one_is_asked_for() {
    let profiles = |own: &str, asked: &str| {
        let json = document(&format!(
            r#"{{"firnImage":1,"contents":["{{app}}"],"profile":"{own}"}}"#
        ));
        let asked = ImageSpec {
            profile: asked.parse().unwrap(),
            ..ImageSpec::default()
        };
        let description = Description::parse(json.as_bytes()).unwrap().with(&asked);
        let closure = closure();
        let image = image(&description, &[path("app")].into(), &parts(&closure)).unwrap();
        let profiles = image
            .layers
            .iter()
            .filter_map(|layer| match &layer.contents {
                Contents::Paths(paths) => Some(paths.profile.name()),
                _ => None,
            });
        let profiles: BTreeSet<&str> = profiles.collect();
        Vec::from_iter(profiles)
    };
    assert_eq!(profiles("Firn", "Firn"), ["nar/1"]);
    assert_eq!(profiles("Nix2container", "Firn"), ["nix2container/1"]);
    assert_eq!(profiles("Nix2container", "DockerTools"), ["docker-tools/1"]);
}

/// Nothing that a document says makes the maker panic or hang.
#[test]
fn a_closure_of_one_path_with_any_name_is_found_by_its_hash() {
    let odd = StorePath::of_base_name("0123456789abcdfghijklmnpqrsvwxyz-a.b_c+d?e=f").unwrap();
    let infos = PathInfo {
        nar_hash: NarHash([1; 32]),
        nar_size: 5,
        references: Vec::new(),
    };
    let closure = Closure::new([(odd.clone(), infos)].into()).unwrap();
    let json = format!(r#"{{"firnImage":1,"config":{{"cmd":["({odd}/x):y"]}}}}"#);
    assert_eq!(mentions(json.as_bytes(), &closure).unwrap(), [odd].into());
    assert!(
        mentions(br#"{"x":"/nix/store/short"}"#, &closure)
            .unwrap()
            .is_empty()
    );
}

/// `UPDATE_EXPECT=1` writes it anew.
#[test]
fn the_published_schema_is_that_of_the_code() {
    let schema = schemars::schema_for!(Description);
    let mut text = serde_json::to_string_pretty(&schema).unwrap();
    text.push('\n');
    expect_test::expect_file!["../../../../docs/reference/image-description.schema.json"]
        .assert_eq(&text);
}

/// The examples of the reference are read; what they mention need not exist.
#[test]
fn the_examples_of_the_reference_are_descriptions() {
    let page = include_str!("../../../../docs/reference/image-description.md");
    let blocks: Vec<&str> = page
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(blocks.len() >= 3, "{}", blocks.len());
    for block in blocks {
        if let Err(error) = Description::parse(block.as_bytes()) {
            panic!("{}: {block}", crate::failure::chain(&error));
        }
    }
}

/// Every field of the document is in the reference.
#[test]
fn the_reference_has_every_field() {
    let page = include_str!("../../../../docs/reference/image-description.md");
    let schema = serde_json::to_value(schemars::schema_for!(Description)).unwrap();
    let fields = schema["properties"].as_object().unwrap();
    let missing: Vec<&String> = fields
        .keys()
        .filter(|field| !page.contains(&format!("| `{field}` |")))
        .collect();
    assert_eq!(missing, [""; 0]);
}
