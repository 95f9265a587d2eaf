//! Images upon others: where the base image is, how it is reached, and whose login reads it.

use std::sync::Arc;

use base64::Engine as _;
use firn_crd::pod::{BASE_CA, BASE_SECRET, PUSH_CA, PUSH_SECRET};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

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

    /// Hands off an image upon one that another pod has pushed to its registry, called `host`.
    async fn hand_off_upon(&self, below: &Self, host: &str) {
        let own = &below.packages[1].path;
        below.hand_off_described(&json!({ "firnImage": 1, "contents": [own] }).to_string());
        let base = below.push().await.digest;
        let own = &self.packages[2].path;
        let document = json!({
            "firnImage": 1, "contents": [own],
            "base": {"image": format!("{host}/{REPOSITORY}@{base}")},
        });
        self.hand_off_described(&document.to_string());
    }

    fn trust(&self, mount: &str, certificate: &str) {
        let folder = self.paths().at(mount);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("ca.crt"), certificate).unwrap();
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

/// TLS before a registry that has none: where it listens, and the certificate.
async fn tls_before(to: String) -> (String, String) {
    let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, to) = (acceptor.clone(), to.clone());
            tokio::spawn(async move {
                // A client that trusts nobody here hangs up.
                if let Ok(mut client) = acceptor.accept(stream).await {
                    let mut server = TcpStream::connect(to).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    (address, own.cert.pem())
}

async fn refused(pod: &Pod) -> String {
    let failure = pod.try_push().await.unwrap_err();
    assert_eq!(failure.reason(), Reason::RegistryUnavailable);
    failure.0.message
}

#[tokio::test]
async fn a_base_image_s_registry_without_tls_is_read_by_http_where_that_is_said() {
    let (mut pod, below) = (Pod::new().await, Pod::new().await);
    let host = below.registry.host().to_string();
    pod.hand_off_upon(&below, &host).await;
    pod.base_plain_http_hosts = vec!["other.example".into()];
    let message = refused(&pod).await;
    for words in ["base image", &host, "output.basePlainHTTPHosts"] {
        assert!(message.contains(words), "{message}");
    }
    pod.base_plain_http_hosts.push(host);
    pod.push().await;
    assert!(pod.registry.is_whole());
}

#[tokio::test]
async fn a_base_image_s_registry_with_a_ca_of_its_own_is_trusted_by_its_own_bundle() {
    let (pod, below) = (Pod::new().await, Pod::new().await);
    let (host, certificate) = tls_before(below.registry.host().to_string()).await;
    pod.hand_off_upon(&below, &host).await;
    // Whom the image's own registry is trusted by vouches for that one only.
    pod.trust(PUSH_CA, &certificate);
    let message = refused(&pod).await;
    for words in ["base image", &host, "output.baseCAConfigMapRef"] {
        assert!(message.contains(words), "{message}");
    }
    pod.trust(BASE_CA, &certificate);
    pod.push().await;
    assert!(pod.registry.is_whole());
}
