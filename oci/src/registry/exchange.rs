//! One request and its answer: authorised, within its time, and again if that can help.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderValue, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use tokio::time::{Instant, sleep, timeout};

use super::error::{Standing, words_of};
use super::{Ask, Error, Refusal, Registry, auth, retry};

/// Error bodies are read up to here: enough for the registry's words.
const ERROR_BODY_MAX: usize = 16 * 1024;
/// For the rest of an error body; without it the status alone must do.
const ERROR_BODY_TIME: Duration = Duration::from_secs(5);

impl Registry {
    /// Asks until there is an answer with one of the statuses `good`, or asking again is of no use,
    /// or the retry budget is spent. `shape` adds headers and body; it is called for each attempt.
    pub(super) async fn exchange<S>(
        &self,
        ask: &Ask<'_>,
        shape: S,
        good: &[u16],
    ) -> Result<Response, Error>
    where
        S: Fn(RequestBuilder) -> RequestBuilder,
    {
        self.retrying(|| self.attempt(ask, &shape, good)).await
    }

    /// Runs attempts with growing pauses while their errors are of the kind that passes.
    pub(super) async fn retrying<T, A, F>(&self, mut attempt: A) -> Result<T, Error>
    where
        A: FnMut() -> F,
        F: Future<Output = Result<T, Error>>,
    {
        let mut retries = Retries::new(self);
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => retries.pause_after(error).await?,
            }
        }
    }

    /// One attempt, and one more with a new token after a 401.
    pub(super) async fn attempt<S>(
        &self,
        ask: &Ask<'_>,
        shape: &S,
        good: &[u16],
    ) -> Result<Response, Error>
    where
        S: Fn(RequestBuilder) -> RequestBuilder,
    {
        let mut renewed = false;
        let mut reread = false;
        loop {
            let login = self.login(ask);
            let header = self.header_for(ask).await?;
            let request = shape(self.request(ask));
            let response = self.dispatch(ask, request, header.as_ref()).await?;
            if good.contains(&response.status().as_u16()) {
                return Ok(response);
            }
            let is_401 = response.status() == StatusCode::UNAUTHORIZED;
            if !is_401 || !self.is_ours(&ask.url) {
                return Err(self.refusal(ask, response).await);
            }
            if !renewed && self.learn(ask, response.headers(), header.as_ref()).await? {
                renewed = true;
            } else if !reread && self.reread_login(ask, login.as_ref()).await {
                reread = true;
            } else {
                return Err(self.refusal(ask, response).await);
            }
        }
    }

    /// The authorisation for a request. Other origins (a Location may be anywhere) get none.
    pub(super) async fn header_for(&self, ask: &Ask<'_>) -> Result<Option<HeaderValue>, Error> {
        if self.is_ours(&ask.url) {
            self.authorization(ask).await
        } else {
            Ok(None)
        }
    }

    pub(super) fn request(&self, ask: &Ask<'_>) -> RequestBuilder {
        self.inner
            .client
            .request(ask.method.clone(), ask.url.clone())
    }

    /// Sends and waits for the head of the answer, whatever it says.
    pub(super) async fn dispatch(
        &self,
        ask: &Ask<'_>,
        request: RequestBuilder,
        header: Option<&HeaderValue>,
    ) -> Result<Response, Error> {
        let limit = self.inner.limits.answer;
        match timeout(limit, auth::authorized(request, header).send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Error::unreachable(ask, error)),
            Err(_) => Err(Error::TimedOut {
                place: Box::new(ask.place()),
                what: "no answer",
                waited: limit,
            }),
        }
    }

    /// Reads a body of at most `limit` bytes.
    pub(super) async fn read_body(
        &self,
        ask: &Ask<'_>,
        mut response: Response,
        limit: usize,
    ) -> Result<Bytes, Error> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.next_chunk(ask, &mut response).await? {
            if body.len() + chunk.len() > limit {
                return Err(Error::TooLarge {
                    place: Box::new(ask.place()),
                    limit: limit as u64,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    async fn next_chunk(
        &self,
        ask: &Ask<'_>,
        response: &mut Response,
    ) -> Result<Option<Bytes>, Error> {
        let limit = self.inner.limits.stall;
        match timeout(limit, response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(error)) => Err(Error::unreachable(ask, error)),
            Err(_) => Err(Error::TimedOut {
                place: Box::new(ask.place()),
                what: "nothing came",
                waited: limit,
            }),
        }
    }

    /// Whether an address is the registry's own origin: credentials go nowhere else.
    pub(super) fn is_ours(&self, url: &Url) -> bool {
        url.origin() == self.inner.base.origin()
    }

    /// The error of an answer that is not a good one.
    pub(super) async fn refusal(&self, ask: &Ask<'_>, response: Response) -> Error {
        self.refuse(ask, response, None).await
    }

    pub(super) async fn refusal_of_token(
        &self,
        ask: &Ask<'_>,
        response: Response,
        host: String,
    ) -> Error {
        self.refuse(ask, response, Some(host)).await
    }

    async fn refuse(
        &self,
        ask: &Ask<'_>,
        response: Response,
        token_service: Option<String>,
    ) -> Error {
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|header| header.to_str().ok())
            .and_then(|header| retry::retry_after(header, now()));
        let (code, words) = words_of(&error_body(response).await);
        let standing = match self.login(ask) {
            None if self.has_helper() => Standing::HelperNotRun,
            None => Standing::Anonymous,
            Some(_) if token_service.is_none() && self.uses_tokens() => Standing::Granted,
            Some(_) => Standing::LoggedIn,
        };
        Error::Refused(Box::new(Refusal {
            place: Box::new(ask.place()),
            token_service,
            status,
            code,
            words,
            retry_after,
            standing,
            of_manifest: ask.of_manifest,
            of_zstd: ask.of_zstd,
        }))
    }
}

/// The attempts of one operation: how many there were, and since when.
pub(super) struct Retries {
    registry: Registry,
    since: Instant,
    failed: u32,
}

impl Retries {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            registry: registry.clone(),
            since: Instant::now(),
            failed: 0,
        }
    }

    /// Waits before another attempt, or gives the error back if there should be none.
    pub(super) async fn pause_after(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_retryable() {
            return Err(error);
        }
        self.pause_whatever(error).await
    }

    /// Waits before another attempt, unless the budget is spent.
    pub(super) async fn pause_whatever(&mut self, error: Error) -> Result<(), Error> {
        self.pause(error).await.map(drop)
    }

    /// The same, and gives the error back, for attempts that may not be told by their own.
    pub(super) async fn pause(&mut self, error: Error) -> Result<Error, Error> {
        self.failed += 1;
        let limits = &self.registry.inner.limits;
        // What the registry asks for comes on top, so that its clients do not return as one.
        let pause = retry::pause(limits.first_pause, self.failed, chance())
            .saturating_add(error.retry_after().unwrap_or_default());
        if self.since.elapsed().saturating_add(pause) > limits.retry_budget {
            return Err(error);
        }
        tracing::debug!(
            registry = self.registry.host().as_str(),
            attempt = self.failed,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            reason = %error,
            "asking the registry again"
        );
        sleep(pause).await;
        Ok(error)
    }
}

/// As much of an error body as comes in time and fits.
async fn error_body(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            let room = ERROR_BODY_MAX.saturating_sub(body.len());
            body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
            if body.len() >= ERROR_BODY_MAX {
                break;
            }
        }
    };
    // Late or not: what is there is there.
    let _ = timeout(ERROR_BODY_TIME, read).await;
    body
}

/// Uniform in 0..1. The standard library seeds each hasher anew; that is all the chance needed here.
#[expect(
    clippy::cast_precision_loss,
    reason = "a jitter has no use for 64 bits"
)]
fn chance() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

#[expect(
    clippy::disallowed_methods,
    reason = "Retry-After may be a date; the arithmetic is in retry, which takes the time"
)]
fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
