//! An API server that knows a handful of Secrets.

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The right ones of [`super::server::Access::Private`].
pub(crate) const USER: &str = "robot";
pub(crate) const PASSWORD: &str = "p4ssw0rd";
pub(crate) const TOKEN: &str = "t0ken";
/// Nobody's key: whoever stands in for ssh compares the file with it.
pub(crate) const IDENTITY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n\
    b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQcanarycanary\n\
    -----END OPENSSH PRIVATE KEY-----\n";
pub(crate) const KNOWN_HOSTS: &str = "git.example ssh-ed25519 AAAA\n";
/// What forges sign with.
pub(crate) const HOOK: &str = "h00k-canary";
/// What no message may hold.
pub(crate) const WRONG: &str = "wr0ng-canary";

pub(crate) async fn client() -> kube::Client {
    let routes = Router::new()
        .route("/api/v1/namespaces/shop/secrets/{name}", get(secret))
        .fallback(async |uri: http::Uri| status(404, &format!("{uri} not found")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap()
}

async fn secret(Path(name): Path<String>) -> impl IntoResponse {
    let data: &[(&str, &str)] = match name.as_str() {
        "basic" => &[("username", USER), ("password", PASSWORD)],
        "bearer" => &[("bearerToken", TOKEN)],
        "wrong" => &[("username", USER), ("password", WRONG)],
        "ssh" => &[("identity", IDENTITY), ("known_hosts", KNOWN_HOSTS)],
        "ssh-without-hosts" => &[("identity", IDENTITY)],
        "hook" => &[("token", HOOK)],
        "empty" => &[],
        "forbidden" => {
            return status(
                403,
                r#"secrets "forbidden" is forbidden: User "system:serviceaccount:firn-system:firn" cannot get resource"#,
            );
        }
        _ => return status(404, "not found"),
    };
    let data: serde_json::Map<_, _> = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), Value::from(STANDARD.encode(value))))
        .collect();
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "shop"}, "data": data});
    (
        StatusCode::OK,
        [(CONTENT_TYPE, "application/json")],
        object.to_string(),
    )
}

fn status(code: u16, message: &str) -> (StatusCode, [(http::HeaderName, &'static str); 1], String) {
    let reason = if code == 403 { "Forbidden" } else { "NotFound" };
    let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code});
    (
        StatusCode::from_u16(code).unwrap(),
        [(CONTENT_TYPE, "application/json")],
        status.to_string(),
    )
}
