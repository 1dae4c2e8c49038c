//! One HTTP exchange with a registry, in several attempts if need be. Each makes
//! its request anew, body included, so that nothing is kept in memory for it.

use super::RegistryError;
use super::access::Access;
use super::auth::Authorizer;
use super::endpoint::Endpoint;
use super::retry::{ATTEMPTS, Pauses, is_passing, read_retry_after};
use super::transport::{Body, Transport};
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use std::io::{self, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// A file is sent in pieces of this many bytes.
const PIECE: usize = 256 * 1024;
/// No more than this is read of an answer: only errors have a body worth reading.
const MAX_ANSWER: usize = 64 * 1024;
/// How often a registry may lead elsewhere for one blob.
const MAX_REDIRECTIONS: usize = 5;
/// How long a request may take, for itself and for each of its megabytes: a
/// registry that stops reading must not hold a command for ever.
const PATIENCE: Duration = Duration::from_secs(15);
const PATIENCE_PER_MEGABYTE: Duration = Duration::from_secs(1);

/// What a request carries.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    Nothing,
    Bytes(Bytes),
    File {
        path: PathBuf,
        size: u64,
    },
    /// A part of a file of `total` bytes, of which the registry has those before.
    Part {
        path: PathBuf,
        offset: u64,
        size: u64,
        total: u64,
    },
    /// Nothing, to end an upload of so many bytes: a registry may read them again.
    End {
        total: u64,
    },
}

impl Payload {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Nothing | Self::End { .. } => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { size, .. } | Self::Part { size, .. } => *size,
        }
    }

    /// A part of a file; anything else is a whole.
    pub(super) fn part(&self, offset: u64, size: u64) -> Self {
        match self {
            Self::File { path, size: total } => Self::Part { path: path.clone(), offset, size, total: *total },
            other => other.clone(),
        }
    }

    /// `Content-Range` as the distribution specification has it: without a unit
    /// and a total.
    fn content_range(&self) -> Option<String> {
        match self {
            Self::Part { offset, size, .. } => Some(format!("{offset}-{}", (offset + size).saturating_sub(1))),
            _ => None,
        }
    }

    async fn body(&self) -> Result<Body, RegistryError> {
        let whole = |bytes: Bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
        match self {
            Self::Nothing | Self::End { .. } => Ok(whole(Bytes::new())),
            Self::Bytes(bytes) => Ok(whole(bytes.clone())),
            Self::File { path, size } => file_body(path, 0, *size, *size).await,
            Self::Part { path, offset, size, total } => file_body(path, *offset, *size, *total).await,
        }
    }

    fn patience(&self) -> Duration {
        let bytes = match self {
            Self::End { total } => *total,
            other => other.size(),
        };
        let megabytes = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        PATIENCE.saturating_add(PATIENCE_PER_MEGABYTE.saturating_mul(megabytes))
    }
}

/// So many bytes of a file that has `total`.
async fn file_body(path: &std::path::Path, offset: u64, size: u64, total: u64) -> Result<Body, RegistryError> {
    let unreadable = |source| RegistryError::Layer { path: path.to_owned(), source };
    let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    if file.metadata().await.map_err(unreadable)?.len() != total {
        return Err(unreadable(io::Error::other("its size has changed")));
    }
    file.seek(SeekFrom::Start(offset)).await.map_err(unreadable)?;
    // One read of a piece of the usual size; the default would be many.
    file.set_max_buf_size(PIECE);
    let pieces = futures::stream::try_unfold(file.take(size), |mut file| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        let count = file.read_buf(&mut piece).await?;
        Ok::<_, io::Error>((count > 0).then(|| (piece.freeze(), file)))
    });
    Ok(StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync())
}

/// What is asked of a registry.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) url: String,
    /// Header `Accept`, or of a payload `Content-Type`.
    pub(super) media_type: String,
    pub(super) payload: Payload,
}

/// What it answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn location(&self) -> Option<&str> {
        self.header(LOCATION.as_str())
    }

    /// Whether a manifest is refused because a blob of it is not there.
    pub(super) fn is_missing_blob(&self) -> bool {
        self.has_code(&["BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"])
    }

    /// Whether a blob is refused because it is not what its digest says.
    pub(super) fn is_wrong_digest(&self) -> bool {
        self.has_code(&["DIGEST_INVALID"])
    }

    /// Distribution specification, "Error codes".
    fn has_code(&self, wanted: &[&str]) -> bool {
        let error = serde_json::from_slice::<serde_json::Value>(&self.body).unwrap_or_default();
        let mut codes = error["errors"].as_array().into_iter().flatten().filter_map(|error| error["code"].as_str());
        codes.any(|code| wanted.contains(&code))
    }

    /// Checks what the registry says it has stored, where it says so.
    pub(super) fn check_digest(&self, exchange: &Exchange, what: &str, expected: &str) -> Result<(), RegistryError> {
        match self.header("docker-content-digest") {
            Some(found) if found != expected => Err(RegistryError::DigestMismatch {
                registry: exchange.endpoint.name().to_owned(),
                what: what.to_owned(),
                expected: expected.to_owned(),
                found: found.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// The bytes that an upload has, from the header `Range`: `0-N`, where the
    /// last is counted from 0.
    pub(super) fn received(&self) -> Option<u64> {
        read_range(self.header("range")?)
    }

    /// How long the registry wants to be left alone.
    fn retry_after(&self) -> Option<Duration> {
        read_retry_after(self.header(RETRY_AFTER.as_str())?, jiff::Timestamp::now().as_second())
    }
}

/// A registry's own words (distribution specification, "Error codes").
pub(super) fn message_of(body: &[u8]) -> String {
    let error = serde_json::from_slice::<serde_json::Value>(body).ok();
    let first = error.as_ref().and_then(|error| error["errors"][0]["message"].as_str()).map(str::to_owned);
    first.unwrap_or_else(|| String::from_utf8_lossy(body).trim().chars().take(200).collect())
}

fn read_range(text: &str) -> Option<u64> {
    let range = text.trim().strip_prefix("bytes=").unwrap_or(text.trim());
    let (first, last) = range.split_once('-')?;
    (first == "0").then(|| last.parse::<u64>().ok())?.map(|last| last.saturating_add(1))
}

/// Speaks to one registry.
#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) endpoint: Endpoint,
    transport: Arc<Transport>,
    authorizer: Arc<Authorizer>,
}

impl Exchange {
    /// With what Docker's files on this machine say.
    pub(super) fn with(endpoint: Endpoint) -> Self {
        Self::with_access(endpoint, &Access::from_env())
    }

    pub(super) fn with_access(endpoint: Endpoint, access: &Access) -> Self {
        let transport = Arc::new(Transport::new(endpoint.trust(access)));
        Self { endpoint, transport, authorizer: Arc::new(Authorizer::new(access.docker_config.clone())) }
    }

    /// Says beforehand what is going to be done, as a token's scope.
    pub(super) async fn expect(&self, scope: &str) {
        self.authorizer.expect(scope).await;
    }

    /// Asks once for each time until there is an answer that is not a passing
    /// failure. `doing` is for messages.
    pub(super) async fn ask(&self, doing: &str, question: &Question) -> Result<Answer, RegistryError> {
        with_attempts(|| self.ask_once(doing, question)).await
    }

    /// One attempt: a passing failure is an error. Who asks is told to this
    /// registry alone, and only when it wants to know.
    pub(super) async fn ask_once(&self, doing: &str, question: &Question) -> Result<Answer, RegistryError> {
        let own = self.endpoint.owns(&question.url);
        let used = if own { self.authorizer.header().await } else { None };
        let mut answer = self.send(doing, question, used.as_ref()).await?;
        if answer.status == StatusCode::UNAUTHORIZED
            && own
            && let Some(header) = self.authorizer.answer(&self.transport, &self.endpoint, &answer.headers, used.as_ref()).await?
        {
            answer = self.send(doing, question, Some(&header)).await?;
        }
        if is_passing(answer.status.as_u16()) { Err(self.refused(doing, &answer)) } else { Ok(answer) }
    }

    /// An answer whose body is read as it comes, from a byte on where that is not
    /// the first. Redirections are followed; what is no success is an error.
    pub(super) async fn open(&self, doing: &str, question: &Question, from: u64) -> Result<Response<Incoming>, RegistryError> {
        let mut question = question.clone();
        for _ in 0..MAX_REDIRECTIONS {
            let own = self.endpoint.owns(&question.url);
            let used = if own { self.authorizer.header().await } else { None };
            let mut response = self.in_time(doing, self.begin(doing, &question, used.as_ref(), from)).await??;
            if response.status() == StatusCode::UNAUTHORIZED
                && own
                && let Some(header) = self.authorizer.answer(&self.transport, &self.endpoint, response.headers(), used.as_ref()).await?
            {
                response = self.in_time(doing, self.begin(doing, &question, Some(&header), from)).await??;
            }
            if response.status().is_success() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            match location {
                Some(location) if response.status().is_redirection() => question.url = self.endpoint.resolve(location),
                _ => return Err(self.refused(doing, &read(response).await)),
            }
        }
        Err(self.not_a_registry("it leads from one place to another without an end".to_owned()))
    }

    /// Waits no longer than for any answer.
    pub(super) async fn in_time<T>(&self, doing: &str, work: impl Future<Output = T>) -> Result<T, RegistryError> {
        tokio::time::timeout(PATIENCE, work).await.map_err(|_| self.unreachable(doing, "it took too long".into()))
    }

    async fn send(&self, doing: &str, question: &Question, authorization: Option<&HeaderValue>) -> Result<Answer, RegistryError> {
        let exchanged = async { Ok(read(self.begin(doing, question, authorization, 0).await?).await) };
        match tokio::time::timeout(question.payload.patience(), exchanged).await {
            Ok(answer) => answer,
            Err(_) => Err(self.unreachable(doing, "it took too long".into())),
        }
    }

    async fn begin(
        &self,
        doing: &str,
        question: &Question,
        authorization: Option<&HeaderValue>,
        from: u64,
    ) -> Result<Response<Incoming>, RegistryError> {
        let mut request = Request::builder().method(&question.method).uri(&question.url).header(USER_AGENT, "devloop");
        request = match question.payload {
            Payload::Nothing => request.header(ACCEPT, &question.media_type),
            _ => request.header(CONTENT_TYPE, &question.media_type),
        };
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if let Some(range) = question.payload.content_range() {
            request = request.header(CONTENT_RANGE, range);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.header(CONTENT_LENGTH, question.payload.size()).body(question.payload.body().await?);
        let request = request.map_err(|error| self.not_a_registry(format!("it names {:?}: {error}", question.url)))?;
        self.transport.request(request).await.map_err(|source| self.unreachable(doing, source))
    }

    pub(super) fn unreachable(&self, doing: &str, source: Box<dyn std::error::Error + Send + Sync>) -> RegistryError {
        RegistryError::Unreachable { registry: self.endpoint.name().to_owned(), doing: doing.to_owned(), attempts: ATTEMPTS, source }
    }

    pub(super) fn refused(&self, doing: &str, answer: &Answer) -> RegistryError {
        RegistryError::Refused {
            registry: self.endpoint.name().to_owned(),
            doing: doing.to_owned(),
            status: answer.status.as_u16(),
            message: message_of(&answer.body),
            retry_after: answer.retry_after(),
        }
    }

    pub(super) fn not_a_registry(&self, reason: String) -> RegistryError {
        RegistryError::NotARegistry { registry: self.endpoint.name().to_owned(), reason }
    }
}

/// An answer with as much of its body as is worth reading.
async fn read(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Answer { status: head.status, headers: head.headers, body }
}

/// Makes attempts until one succeeds or fails for good.
pub(super) async fn with_attempts<T, F>(attempt: impl Fn() -> F) -> Result<T, RegistryError>
where
    F: Future<Output = Result<T, RegistryError>>,
{
    let mut pauses = Pauses::default();
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => pause_for(error, &mut pauses).await?,
        }
    }
}

/// Waits before the next attempt.
///
/// # Errors
/// With the failure, when another attempt is of no use or there was the last one.
pub(super) async fn pause_for(error: RegistryError, pauses: &mut Pauses) -> Result<(), RegistryError> {
    let told = match &error {
        RegistryError::Unreachable { .. } => None,
        RegistryError::Refused { status, retry_after, .. } if is_passing(*status) => *retry_after,
        _ => return Err(error),
    };
    let Some(pause) = pauses.next(told) else { return Err(error) };
    tracing::info!(%error, ?pause, "trying again");
    tokio::time::sleep(pause).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_count_what_is_there() {
        for (text, bytes) in [("0-999", Some(1000)), ("bytes=0-0", Some(1)), ("5-9", None), ("0-", None), ("", None)] {
            assert_eq!(read_range(text), bytes, "{text:?}");
        }
        let part = Payload::File { path: "x".into(), size: 100 }.part(10, 20);
        assert_eq!((part.content_range().as_deref(), part.size()), (Some("10-29"), 20));
    }
}
