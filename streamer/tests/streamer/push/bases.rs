//! Images upon others: where the base image is, and whose login reads it.

use base64::Engine as _;
use firn_crd::pod::{BASE_SECRET, PUSH_SECRET};
use serde_json::json;

use super::*;

impl Pod {
    /// A login for the registry, as the kubelet mounts a Secret.
    fn log_in(&self, secret: &str, password: &str) {
        let folder = self.paths().at(secret);
        fs::create_dir_all(&folder).unwrap();
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("ada:{password}"));
        let host = self.registry.host().to_string();
        let config = json!({ "auths": { host: { "auth": auth } } }).to_string();
        fs::write(folder.join("config.json"), config).unwrap();
    }

    fn protect(&self) {
        self.registry.set_access(Access::Basic {
            username: "ada".into(),
            password: "right".into(),
        });
    }
}

#[tokio::test]
async fn an_image_in_the_store_is_built_upon() {
    let pod = Pod::new().await;
    let (base, info) = pod.store_file("base.json", pod.nix2container(4).as_bytes());
    let own = &pod.packages[2].path;
    let document = json!({
        "firnImage": 1, "contents": [own.to_string()], "config": {"cmd": ["x"]},
        "base": {"path": base.to_string()},
    });
    pod.hand_off_described_with(&document.to_string(), vec![(base.clone(), info)]);
    let upon = pod.push().await;
    let (config, layers) = published(&pod, &upon.digest);
    // The base's four, and what is described; the base itself is a description, and is not in it.
    assert!(layers.len() > 4, "{layers:?}");
    assert_eq!(config["config"]["Entrypoint"], json!(["/bin/app"]));
    assert_eq!(config["config"]["Cmd"], json!(["x"]));
    let history = config["history"].as_array().unwrap();
    assert_eq!(history.len(), layers.len());
    assert_eq!(history[0]["created_by"], "nix2container");
    let words = config.to_string();
    assert!(!words.contains("base.json"), "{words}");
    let again = pod.push().await;
    assert_eq!((again.digest, again.bytes_pushed), (upon.digest, 0));
}

#[tokio::test]
async fn a_store_path_that_is_no_base_image_is_the_user_s_to_correct() {
    let pod = Pod::new().await;
    let text = pod.store_file("notes.txt", b"hello");
    let unknown = store_path(77, 0);
    for (base, words) in [
        (json!({"path": text.0.to_string()}), "is no image"),
        (
            json!({"path": unknown.to_string()}),
            "interpolate the package",
        ),
        (json!({"path": "/etc/passwd"}), "/etc/passwd"),
        (json!({"path": "x", "image": "y"}), "exactly one of"),
        (json!({}), "exactly one of"),
    ] {
        let document = json!({ "firnImage": 1, "base": base }).to_string();
        pod.hand_off_described_with(&document, vec![text.clone()]);
        let failure = pod.try_push().await.unwrap_err();
        assert_eq!(failure.reason(), Reason::ImageInvalid, "{base}");
        assert!(failure.0.message.contains(words), "{}", failure.0.message);
    }
}

#[tokio::test]
async fn a_base_image_is_read_with_the_login_that_was_given_for_it() {
    let pod = Pod::new().await;
    pod.hand_off_described(&format!(
        r#"{{"firnImage":1,"contents":["{}"]}}"#,
        pod.packages[1].path
    ));
    let base = pod.push().await.digest;
    pod.protect();
    let document = json!({
        "firnImage": 1, "contents": [pod.packages[2].path.to_string()],
        "base": {"image": format!("{}/{REPOSITORY}@{base}", pod.registry.host())},
    });
    pod.hand_off_described(&document.to_string());
    pod.log_in(PUSH_SECRET, "right");
    pod.push().await;

    pod.log_in(BASE_SECRET, "wrong");
    let failure = pod.try_push().await.unwrap_err();
    assert_eq!(failure.reason(), Reason::PushAuthFailed);
    let message = &failure.0.message;
    assert!(message.contains("output.basePullSecretRef"), "{message}");
    assert!(!message.contains("pushSecretRef"), "{message}");

    pod.log_in(BASE_SECRET, "right");
    pod.push().await;

    // Without one of its own, it is the push Secret's.
    fs::remove_dir_all(pod.paths().at(BASE_SECRET)).unwrap();
    pod.log_in(PUSH_SECRET, "wrong");
    let failure = pod.try_push().await.unwrap_err();
    assert!(
        failure.0.message.contains("output.pushSecretRef"),
        "{}",
        failure.0.message
    );
}
