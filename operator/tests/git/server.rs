//! A repository on disk and servers for it: `git http-backend` behind a CGI shim of its own.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::cluster;

/// A repository with a work tree; its path is `<root>/repo`.
pub(crate) struct Repository {
    root: tempfile::TempDir,
}

impl Repository {
    pub(crate) fn new() -> Self {
        let repository = Self {
            root: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(repository.path()).unwrap();
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.root.path().join("repo")
    }

    /// Writes files and commits them; the commit's id.
    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, content) in files {
            let path = self.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "change"]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let output = isolated(&self.path()).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "git {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

/// git without whatever configuration this machine has.
fn isolated(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory);
    for (name, value) in [
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_AUTHOR_NAME", "A"),
        ("GIT_AUTHOR_EMAIL", "a@example.com"),
        ("GIT_COMMITTER_NAME", "C"),
        ("GIT_COMMITTER_EMAIL", "c@example.com"),
        ("GIT_AUTHOR_DATE", "1600000000 +0000"),
        ("GIT_COMMITTER_DATE", "1700000000 +0200"),
    ] {
        command.env(name, value);
    }
    command
}

/// Text that does not compress away.
pub(crate) fn noise(length: usize) -> String {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let letter = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'!' + u8::try_from(state % 90).unwrap())
    };
    (0..length).map(letter).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Public,
    Private,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    V2,
    WithoutFilters,
    /// Version 0, and only what is listed can be had.
    V0,
}

/// Serves until it is dropped.
pub(crate) struct Server {
    address: std::net::SocketAddr,
    task: tokio::task::JoinHandle<()>,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    sent: AtomicUsize,
    authorizations: AtomicUsize,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Backend {
    root: std::path::PathBuf,
    access: Access,
    protocol: Protocol,
    seen: Arc<Seen>,
}

impl Server {
    pub(crate) async fn start(repository: &Repository, access: Access, protocol: Protocol) -> Self {
        let seen = Arc::new(Seen::default());
        let root = repository.root.path().to_owned();
        let backend = Backend {
            root,
            access,
            protocol,
            seen: Arc::clone(&seen),
        };
        Self::serve(Router::new().fallback(serve).with_state(backend), seen).await
    }

    /// Sends every request to the same path below `url`'s host.
    pub(crate) async fn redirecting_to(url: &str) -> Self {
        let base = url.trim_end_matches("/repo/.git").to_owned();
        let routes = Router::new().fallback(async move |request: Request| {
            let to = format!("{base}{}", request.uri());
            Response::builder()
                .status(301)
                .header(header::LOCATION, to)
                .body(Body::empty())
                .unwrap()
        });
        Self::serve(routes, Arc::default()).await
    }

    /// Gives every request the same answer.
    pub(crate) async fn answering(
        status: u16,
        content_type: &'static str,
        text: &'static str,
    ) -> Self {
        let routes = Router::new().fallback(async move || {
            (
                StatusCode::from_u16(status).unwrap(),
                [(header::CONTENT_TYPE, content_type)],
                text,
            )
        });
        Self::serve(routes, Arc::default()).await
    }

    async fn serve(routes: Router, seen: Arc<Seen>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            address,
            task,
            seen,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/repo/.git", self.address)
    }

    /// Bytes of bodies that were sent.
    pub(crate) fn sent(&self) -> usize {
        self.seen.sent.load(Ordering::Relaxed)
    }

    /// Requests that came with credentials.
    pub(crate) fn authorizations(&self) -> usize {
        self.seen.authorizations.load(Ordering::Relaxed)
    }
}

async fn serve(State(backend): State<Backend>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let text = |name| {
        parts
            .headers
            .get(name)
            .and_then(|v: &header::HeaderValue| v.to_str().ok())
            .unwrap_or_default()
    };
    let authorization = text(header::AUTHORIZATION);
    if !authorization.is_empty() {
        backend.seen.authorizations.fetch_add(1, Ordering::Relaxed);
    }
    let basic = format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{}", cluster::USER, cluster::PASSWORD))
    );
    let right = [basic, format!("Bearer {}", cluster::TOKEN)];
    if backend.access == Access::Private && !right.iter().any(|r| r == authorization) {
        return Response::builder()
            .status(401)
            .header(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")
            .header(header::CONTENT_LENGTH, 0)
            .body(Body::empty())
            .unwrap();
    }
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let mut command = isolated(&backend.root);
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &backend.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", text(header::CONTENT_TYPE))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", text(header::CONTENT_ENCODING))
        // Belongs to another user where tests run as root in a container.
        .env("GIT_CONFIG_COUNT", "2")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("GIT_CONFIG_KEY_1", "uploadpack.allowFilter")
        .env(
            "GIT_CONFIG_VALUE_1",
            if backend.protocol == Protocol::V2 {
                "true"
            } else {
                "false"
            },
        );
    if backend.protocol != Protocol::V0 {
        command.env(
            "GIT_PROTOCOL",
            text(header::HeaderName::from_static("git-protocol")),
        );
    }
    let output = tokio::task::spawn_blocking(move || cgi(&mut command, &body))
        .await
        .unwrap();
    let response = answer(&output);
    backend.seen.sent.fetch_add(output.len(), Ordering::Relaxed);
    response
}

fn cgi(command: &mut Command, body: &Bytes) -> Vec<u8> {
    use std::io::Write;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It may refuse before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(body);
    child.wait_with_output().unwrap().stdout
}

fn answer(output: &[u8]) -> Response<Body> {
    let end = output
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .expect("CGI headers");
    let mut response = Response::builder();
    for line in std::str::from_utf8(&output[..end]).unwrap().lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = if name == "Status" {
            response.status(value[..3].parse::<u16>().unwrap())
        } else {
            response.header(name, value)
        };
    }
    response
        .body(Body::from(output[end + 4..].to_vec()))
        .unwrap()
}
