//! What stands before the registry and does nothing but the faults: TLS of its own, then every
//! request as it came.

use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Method, Request, Response, StatusCode, header};
use axum::serve::Listener;
use firn_e2e::cluster::network::CONTROL;
use firn_e2e::story::World;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::server::TlsStream;

/// The largest body: an image's largest blob is a busybox.
const BODY_MAX: usize = 64 << 20;
/// Where a connection is cut: in the midst of that blob, and past anything else that one connection
/// carries.
const CUT_AFTER: usize = 256 << 10;

/// An answer in the registry's place.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) method: Method,
    /// A part of the path.
    pub(super) path: String,
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    /// How many requests it is given to.
    pub(super) times: usize,
}

/// A request, and the status that it was answered with.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) status: StatusCode,
    pub(super) at: Instant,
}

/// The proxy. It ends with the runtime.
pub(super) struct Proxy {
    /// Where pods reach it: beside the API server.
    pub(super) address: String,
    /// PEM: who vouches for it is itself.
    pub(super) certificate: String,
    shared: Arc<Shared>,
}

struct Shared {
    registry: String,
    client: reqwest::Client,
    answers: Mutex<Vec<Answer>>,
    asked: Mutex<Vec<Asked>>,
    cuts: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts it with a number of connections that it will cut.
    pub(super) async fn start(world: &World, cuts: usize) -> Result<Self> {
        let ca = reqwest::Certificate::from_pem(world.services.ca_pem.as_bytes())?;
        let shared = Arc::new(Shared {
            registry: world.services.registry.clone(),
            client: reqwest::Client::builder().tls_certs_merge([ca]).build()?,
            answers: Mutex::default(),
            asked: Mutex::default(),
            cuts: Arc::new(AtomicUsize::new(cuts)),
        });
        let own = rcgen::generate_simple_self_signed(vec![CONTROL.to_string()])?;
        let key = own.signing_key.serialize_der();
        let key = PrivateKeyDer::try_from(key).map_err(anyhow::Error::msg)?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)?;
        let lines = Lines {
            listener: TcpListener::bind((CONTROL, 0)).await?,
            acceptor: TlsAcceptor::from(Arc::new(config)),
            cuts: Arc::clone(&shared.cuts),
        };
        let address = lines.listener.local_addr()?.to_string();
        let router = Router::new()
            .fallback(forward)
            .with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(lines, router).await });
        Ok(Self {
            address,
            certificate: own.cert.pem(),
            shared,
        })
    }

    /// From now on it gives these `answers` itself, each as often as it says.
    pub(super) fn arm(&self, answers: Vec<Answer>) {
        *lock(&self.shared.answers) = answers;
    }

    /// The name of an image of this proxy, and of none before it.
    pub(super) fn named(&self, name: &str) -> String {
        let port = self.address.rsplit(':').next().unwrap_or_default();
        format!("{name}-{port}")
    }

    /// Takes all faults away that are left; how many that were.
    pub(super) fn heal(&self) -> usize {
        let answers = std::mem::take(&mut *lock(&self.shared.answers));
        let answers = answers.iter().filter(|answer| answer.times > 0).count();
        answers + self.shared.cuts.swap(0, Ordering::SeqCst)
    }

    /// What was asked whose path has `part` in it.
    pub(super) fn asked(&self, method: &Method, part: &str) -> Vec<Asked> {
        let asked = lock(&self.shared.asked);
        asked
            .iter()
            .filter(|asked| asked.method == *method && asked.path.contains(part))
            .cloned()
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn forward(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let at = Instant::now();
    let response = match fault(&shared, &method, &path) {
        Some(answer) => {
            // A connection that is closed with bytes unread may lose the answer.
            let _ = to_bytes(request.into_body(), BODY_MAX).await;
            answered(&answer)
        }
        None => passed_on(&shared, request).await.unwrap_or_else(|status| {
            let response = Response::builder().status(status);
            response.body(Body::empty()).unwrap_or_default()
        }),
    };
    lock(&shared.asked).push(Asked {
        method,
        path,
        status: response.status(),
        at,
    });
    response
}

fn fault(shared: &Shared, method: &Method, path: &str) -> Option<Answer> {
    let mut answers = lock(&shared.answers);
    let answer = answers.iter_mut().find(|answer| {
        answer.times > 0 && answer.method == *method && path.contains(&answer.path)
    })?;
    answer.times -= 1;
    Some(answer.clone())
}

fn answered(answer: &Answer) -> Response<Body> {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(*name, *value);
    }
    response.body(Body::empty()).unwrap_or_default()
}

async fn passed_on(shared: &Shared, request: Request<Body>) -> Result<Response<Body>, StatusCode> {
    let framing = |name: &header::HeaderName| {
        matches!(
            *name,
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION | header::HOST
        )
    };
    let (head, body) = request.into_parts();
    let body = to_bytes(body, BODY_MAX)
        .await
        .map_err(|_| StatusCode::BAD_GATEWAY)?;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut onward = shared
        .client
        .request(head.method, format!("https://{}{path}", shared.registry));
    for (name, value) in head.headers.iter().filter(|(name, _)| !framing(name)) {
        onward = onward.header(name, value);
    }
    let answer = onward
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

struct Lines {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    cuts: Arc<AtomicUsize>,
}

impl Listener for Lines {
    type Io = TlsStream<Line>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else {
                continue;
            };
            let line = Line {
                stream,
                carried: 0,
                cuts: Arc::clone(&self.cuts),
            };
            if let Ok(stream) = self.acceptor.accept(line).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that is cut after [`CUT_AFTER`] bytes of the client, if there is a cut left.
struct Line {
    stream: TcpStream,
    carried: usize,
    cuts: Arc<AtomicUsize>,
}

impl Line {
    fn is_cut(&self) -> bool {
        let take = |cuts: usize| cuts.checked_sub(1);
        let order = Ordering::SeqCst;
        self.carried >= CUT_AFTER && self.cuts.fetch_update(order, order, take).is_ok()
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.carried += buf.filled().len() - before;
        Poll::Ready(if self.is_cut() {
            Err(Error::from(ErrorKind::ConnectionReset))
        } else {
            Ok(())
        })
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
