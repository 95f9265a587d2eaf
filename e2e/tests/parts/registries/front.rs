//! What stands before a registry: TLS, a login, and a cap on the size of requests.

use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use axum::serve::Listener;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

/// How it is before a registry.
#[derive(Debug, Clone)]
pub(super) struct Front {
    /// `http://127.0.0.1:PORT` or with TLS: the registry.
    pub(super) to: String,
    /// Name and password. `None`: the registry asks for them itself.
    pub(super) login: Option<(&'static str, &'static str)>,
    /// The largest body, in bytes.
    pub(super) cap: usize,
    /// Trusts the registry.
    pub(super) client: reqwest::Client,
}

/// A certificate of its own for a server on loopback.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) certificate: String,
    pub(super) key: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Identity {
    pub(super) fn new() -> Result<Self> {
        let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        Ok(Self {
            certificate: own.cert.pem(),
            key: own.signing_key.serialize_pem(),
            der: own.cert.der().clone(),
            key_der: own.signing_key.serialize_der(),
        })
    }
}

impl Front {
    /// Starts it on a free port, which it tells as `127.0.0.1:PORT`. It ends with the runtime.
    pub(super) async fn start(self, identity: &Identity) -> Result<String> {
        let router = Router::new().fallback(forward).with_state(Arc::new(self));
        serve(router, identity).await
    }

    fn lets_in(&self, headers: &HeaderMap) -> bool {
        self.login.is_none_or(|(name, password)| {
            let expected = format!("Basic {}", STANDARD.encode(format!("{name}:{password}")));
            headers
                .get(header::AUTHORIZATION)
                .is_some_and(|sent| sent.as_bytes() == expected.as_bytes())
        })
    }
}

/// Serves with TLS on a free port, which it gives as `127.0.0.1:PORT`. It ends with the runtime.
pub(super) async fn serve(router: Router, identity: &Identity) -> Result<String> {
    let key = PrivateKeyDer::try_from(identity.key_der.clone()).map_err(anyhow::Error::msg)?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![identity.der.clone()], key)?;
    let ports = Ports {
        listener: TcpListener::bind("127.0.0.1:0").await?,
        acceptor: TlsAcceptor::from(Arc::new(config)),
    };
    let address = ports.listener.local_addr()?.to_string();
    tokio::spawn(async move { axum::serve(ports, router).await });
    Ok(address)
}

struct Ports {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Ports {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if let Ok((stream, address)) = self.listener.accept().await
                && let Ok(stream) = self.acceptor.accept(stream).await
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

async fn forward(State(front): State<Arc<Front>>, request: Request<Body>) -> Response<Body> {
    if !front.lets_in(request.headers()) {
        return said(StatusCode::UNAUTHORIZED)
            .header(header::WWW_AUTHENTICATE, "Basic realm=\"front\"")
            .body(Body::empty())
            .unwrap_or_default();
    }
    match passed_on(&front, request).await {
        Ok(response) => response,
        Err(status) => said(status).body(Body::empty()).unwrap_or_default(),
    }
}

fn said(status: StatusCode) -> http::response::Builder {
    // What is left of the request's body was not read.
    Response::builder()
        .status(status)
        .header(header::CONNECTION, "close")
}

async fn passed_on(front: &Front, request: Request<Body>) -> Result<Response<Body>, StatusCode> {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, front.cap)
        .await
        .map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut onward = front
        .client
        .request(head.method.clone(), format!("{}{path}", front.to));
    for (name, value) in &head.headers {
        let is_framing = matches!(
            *name,
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION
        );
        let is_own = *name == header::AUTHORIZATION && front.login.is_some();
        if !is_framing && !is_own {
            onward = onward.header(name, value);
        }
    }
    let answer = onward
        .header("x-forwarded-proto", "https")
        .header(header::CONTENT_LENGTH, body.len())
        .body(body)
        .send()
        .await
        .map_err(|_| StatusCode::BAD_GATEWAY)?;
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if *name != header::TRANSFER_ENCODING && *name != header::CONNECTION {
            response = response.header(name, value);
        }
    }
    response
        .body(Body::from_stream(answer.bytes_stream()))
        .map_err(|_| StatusCode::BAD_GATEWAY)
}
