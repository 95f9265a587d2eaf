//! Proxies of the environment, with and without TLS behind them. The environment of a test cannot
//! be changed while it runs, so the client runs in a process of its own: this program again.
#![expect(
    clippy::unwrap_used,
    reason = "helpers; clippy allows it in test functions only"
)]

use std::process::Output;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use firn_oci::Repository;
use firn_oci::registry::{Registry, RegistrySettings};
use firn_oci::testing::FakeRegistry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

const REGISTRY: &str = "registry.example";

/// Says to this program that it is the client: what the registry is called, and its certificate.
const CLIENT: &str = "FIRN_TEST_PROXY_CLIENT";
const CERTIFICATE: &str = "FIRN_TEST_PROXY_CERTIFICATE";

/// A proxy that leads everywhere to one place, and remembers what it was asked.
struct Proxy {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::default();
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, to.clone(), Arc::clone(&seen)));
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(mut client: TcpStream, to: String, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    asked
        .lock()
        .unwrap()
        .push(String::from_utf8(head.clone()).unwrap());
    let mut server = TcpStream::connect(to).await.unwrap();
    if head.starts_with(b"CONNECT ") {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    } else {
        server.write_all(&head).await.unwrap();
    }
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

/// TLS before a registry that has none: where it listens, and the certificate.
async fn tls_before(to: String) -> (String, String) {
    let own = rcgen::generate_simple_self_signed(vec![REGISTRY.to_owned()]).unwrap();
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
                let mut client = acceptor.accept(stream).await.unwrap();
                let mut server = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, own.cert.pem())
}

/// Lets a client with these variables look whether it may push.
async fn client(test: &str, registry: &str, variables: &[(&str, &str)]) -> Output {
    let mut program = tokio::process::Command::new(std::env::current_exe().unwrap());
    for variable in ["http_proxy", "https_proxy", "no_proxy", "all_proxy"] {
        program.env_remove(variable);
        program.env_remove(variable.to_uppercase());
    }
    program
        .args(["--exact", test, "--nocapture"])
        .env(CLIENT, registry)
        .envs(variables.iter().copied())
        .output()
        .await
        .unwrap()
}

/// Whether this process is the client; then it has done its work.
#[expect(
    clippy::disallowed_methods,
    reason = "a message from the test that started this process"
)]
async fn is_client() -> bool {
    let Ok(registry) = std::env::var(CLIENT) else {
        return false;
    };
    let (scheme, host) = registry.split_once("://").unwrap();
    let certificate = std::env::var(CERTIFICATE).map(String::into_bytes);
    let registry = Registry::new(RegistrySettings {
        plain_http: scheme == "http",
        extra_ca_pem: certificate.into_iter().collect(),
        ..RegistrySettings::new(host.parse().unwrap())
    })
    .unwrap();
    let repository: Repository = "team/app".parse().unwrap();
    registry.can_push(&repository).await.unwrap();
    true
}

fn assert_success(output: &Output) {
    let text = [output.stdout.clone(), output.stderr.clone()].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&text)
    );
}

#[tokio::test]
async fn https_goes_through_the_proxy_of_the_environment_with_its_password() {
    if is_client().await {
        return;
    }
    let fake = FakeRegistry::start().await.unwrap();
    let (address, certificate) = tls_before(fake.host().to_string()).await;
    let proxy = Proxy::start(address).await;
    let output = client(
        "https_goes_through_the_proxy_of_the_environment_with_its_password",
        "https://registry.example",
        &[
            (CERTIFICATE, &certificate),
            (
                "HTTPS_PROXY",
                &format!("http://user:canary@{}", proxy.address),
            ),
        ],
    )
    .await;
    assert_success(&output);
    let asked = proxy.asked().concat();
    assert!(
        asked.starts_with("CONNECT registry.example:443 "),
        "{asked}"
    );
    let login = format!("Basic {}", STANDARD.encode("user:canary"));
    assert!(asked.contains(&login), "{asked}");
    assert_eq!(fake.count("POST", "/v2/team/app/blobs/uploads/"), 1);
    let said = [output.stdout, output.stderr].concat();
    assert!(!String::from_utf8_lossy(&said).contains("canary"));
}

#[tokio::test]
async fn http_goes_through_the_proxy_of_the_environment_but_where_that_says_no() {
    if is_client().await {
        return;
    }
    let fake = FakeRegistry::start().await.unwrap();
    let proxy = Proxy::start(fake.host().to_string()).await;
    let test = "http_goes_through_the_proxy_of_the_environment_but_where_that_says_no";
    let variable = ("HTTP_PROXY", &*format!("http://{}", proxy.address));
    assert_success(&client(test, "http://registry.example", &[variable]).await);
    let asked = proxy.asked();
    assert!(
        asked[0].starts_with("GET http://registry.example/v2/ "),
        "{asked:?}"
    );
    let directly = format!("http://{}", fake.host());
    for exceptions in ["127.0.0.1", "registry.example,127.0.0.0/8"] {
        let variables = [variable, ("NO_PROXY", exceptions)];
        assert_success(&client(test, &directly, &variables).await);
        assert_eq!(proxy.asked().len(), asked.len(), "{exceptions}");
    }
}
