//! Who may do what with the fake registry, and its token service.

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::State;

/// How the fake registry is protected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Access {
    /// Everybody may do everything.
    #[default]
    Open,
    /// Name and password with each request.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// A token from `/token`, for a name and password or for a refresh token.
    Bearer {
        /// The name.
        username: String,
        /// The password, or the refresh token.
        password: String,
        /// What the service says a token lives, in seconds.
        expires_in: u64,
        /// Actions that are never granted, such as `push`.
        withheld: Vec<String>,
    },
}

/// The refusal, if the request may not be carried out.
pub(super) fn refusal(state: &State, request: &Request<Body>) -> Option<Response<Body>> {
    let sent = header(request, "authorization");
    let fits = match &state.access {
        Access::Open => return None,
        Access::Basic { username, password } => sent == basic(username, password),
        Access::Bearer { .. } => {
            let scopes = sent
                .strip_prefix("Bearer ")
                .and_then(|token| state.tokens.get(token));
            let needed = needed_scope(request.method(), request.uri());
            scopes.is_some_and(|scopes| {
                needed
                    .as_ref()
                    .is_none_or(|(repository, action)| grants(scopes, repository, action))
            })
        }
    };
    if fits {
        return None;
    }
    Response::builder()
        .status(401)
        .header(
            "www-authenticate",
            challenge(state, request.method(), request.uri())?,
        )
        .body(Body::from(
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
        ))
        .ok()
}

/// What a 401 says. `None`: nobody has to log in.
pub(super) fn challenge(state: &State, method: &Method, uri: &Uri) -> Option<String> {
    match &state.access {
        Access::Open => None,
        Access::Basic { .. } => Some("Basic realm=\"fake\"".to_owned()),
        Access::Bearer { .. } => {
            let scope = needed_scope(method, uri)
                .map_or_else(String::new, |(repository, action)| {
                    format!(",scope=\"repository:{repository}:{action}\"")
                });
            let host = &state.host;
            Some(format!(
                "Bearer realm=\"http://{host}/token\",service=\"fake\"{scope}"
            ))
        }
    }
}

/// Whether the token of a request may read another repository, as a mount needs it.
pub(super) fn may_pull(state: &State, authorization: &str, repository: &str) -> bool {
    match &state.access {
        Access::Open | Access::Basic { .. } => true,
        Access::Bearer { .. } => authorization
            .strip_prefix("Bearer ")
            .and_then(|token| state.tokens.get(token))
            .is_some_and(|scopes| grants(scopes, repository, "pull")),
    }
}

/// The token service.
pub(super) fn token(
    state: &mut State,
    method: &Method,
    uri: &Uri,
    authorization: &str,
    body: &[u8],
) -> Response<Body> {
    let Access::Bearer {
        username,
        password,
        expires_in,
        withheld,
    } = state.access.clone()
    else {
        return plain(StatusCode::NOT_FOUND, "");
    };
    let form = String::from_utf8_lossy(body).into_owned();
    let text = if method == Method::POST {
        form.as_str()
    } else {
        uri.query().unwrap_or_default()
    };
    let fields = fields(text);
    let is_known = if method == Method::POST {
        fields.contains(&("refresh_token".to_owned(), password))
            && fields.contains(&("grant_type".to_owned(), "refresh_token".to_owned()))
    } else {
        authorization == basic(&username, &password)
    };
    if !is_known {
        return plain(
            StatusCode::UNAUTHORIZED,
            r#"{"details":"incorrect username or password"}"#,
        );
    }
    let scopes: Vec<String> = fields
        .iter()
        .filter(|(key, _)| key == "scope")
        .flat_map(|(_, value)| value.split(' '))
        .map(|scope| {
            let (name, actions) = scope.rsplit_once(':').unwrap_or((scope, ""));
            let granted: Vec<&str> = actions
                .split(',')
                .filter(|action| !withheld.iter().any(|other| other == action))
                .collect();
            format!("{name}:{}", granted.join(","))
        })
        .collect();
    state.next += 1;
    let token = format!("token-{}", state.next);
    state.tokens.insert(token.clone(), scopes);
    plain(
        StatusCode::OK,
        &format!(r#"{{"token":"{token}","expires_in":{expires_in}}}"#),
    )
}

fn grants(scopes: &[String], repository: &str, action: &str) -> bool {
    scopes.iter().any(|scope| {
        scope
            .strip_prefix(&format!("repository:{repository}:"))
            .is_some_and(|actions| actions.split(',').any(|granted| granted == action))
    })
}

/// Repository and action. `None`: the API itself.
fn needed_scope(method: &Method, uri: &Uri) -> Option<(String, &'static str)> {
    let path = uri.path().strip_prefix("/v2/")?;
    let end = ["/blobs/", "/manifests/", "/tags/", "/referrers/"]
        .iter()
        .find_map(|kind| path.find(kind))?;
    let (repository, rest) = path.split_at_checked(end)?;
    let action = match *method {
        Method::GET | Method::HEAD => "pull",
        Method::DELETE if rest.starts_with("/manifests/") => "delete",
        _ => "push",
    };
    Some((repository.to_owned(), action))
}

pub(super) fn header(request: &Request<Body>, name: &str) -> String {
    request
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

pub(super) fn plain(status: StatusCode, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_owned()));
    *response.status_mut() = status;
    response
}

/// The pairs of a query or form.
pub(super) fn fields(text: &str) -> Vec<(String, String)> {
    reqwest::Url::parse(&format!("http://x/?{text}"))
        .map(|url| url.query_pairs().into_owned().collect())
        .unwrap_or_default()
}

fn basic(username: &str, password: &str) -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    )
}
