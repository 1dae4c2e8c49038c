//! One HTTP exchange with a registry, in several attempts if need be. Each makes
//! its request anew, body included, so that nothing is kept in memory for it.

use super::RegistryError;
use super::endpoint::Endpoint;
use super::retry::{ATTEMPTS, is_passing, pause_after};
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::Frame;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// A file is sent in pieces of this many bytes.
const PIECE: usize = 256 * 1024;
/// No more than this is read of an answer: only errors have a body worth reading.
const MAX_ANSWER: usize = 64 * 1024;
/// How long a request may take, for itself and for each of its megabytes: a
/// registry that stops reading must not hold a command for ever.
const PATIENCE: Duration = Duration::from_secs(15);
const PATIENCE_PER_MEGABYTE: Duration = Duration::from_secs(1);

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a request carries.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    Nothing,
    Bytes(Bytes),
    File { path: PathBuf, size: u64 },
}

impl Payload {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
        }
    }

    async fn body(&self) -> Result<Body, RegistryError> {
        let whole = |bytes: Bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
        match self {
            Self::Nothing => Ok(whole(Bytes::new())),
            Self::Bytes(bytes) => Ok(whole(bytes.clone())),
            Self::File { path, size } => {
                let unreadable = |source| RegistryError::Layer { path: path.clone(), source };
                let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
                if file.metadata().await.map_err(unreadable)?.len() != *size {
                    return Err(unreadable(io::Error::other("its size has changed")));
                }
                let pieces = futures::stream::try_unfold(file, |mut file| async move {
                    let mut piece = BytesMut::with_capacity(PIECE);
                    let count = file.read_buf(&mut piece).await?;
                    Ok::<_, io::Error>((count > 0).then(|| (piece.freeze(), file)))
                });
                Ok(StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync())
            }
        }
    }

    fn patience(&self) -> Duration {
        let megabytes = u32::try_from(self.size() >> 20).unwrap_or(u32::MAX);
        PATIENCE.saturating_add(PATIENCE_PER_MEGABYTE.saturating_mul(megabytes))
    }
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
        let error = serde_json::from_slice::<serde_json::Value>(&self.body).unwrap_or_default();
        let codes = error["errors"].as_array().into_iter().flatten().filter_map(|error| error["code"].as_str());
        codes.into_iter().any(|code| matches!(code, "BLOB_UNKNOWN" | "MANIFEST_BLOB_UNKNOWN"))
    }

    /// The registry's own words (distribution specification, "Error codes").
    fn message(&self) -> String {
        let error = serde_json::from_slice::<serde_json::Value>(&self.body).ok();
        let first = error.as_ref().and_then(|error| error["errors"][0]["message"].as_str()).map(str::to_owned);
        first.unwrap_or_else(|| String::from_utf8_lossy(&self.body).trim().chars().take(200).collect())
    }
}

/// Speaks to one registry.
#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) endpoint: Endpoint,
    client: Transport,
}

/// Reading this machine's certificates takes longer than most pushes to a
/// registry on loopback, which has no use for them.
#[derive(Clone)]
enum Transport {
    Clear(Client<HttpConnector, Body>),
    Encrypted(Client<HttpsConnector<HttpConnector>, Body>),
}

impl Exchange {
    pub(super) fn with(endpoint: Endpoint) -> Result<Self, RegistryError> {
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(Duration::from_secs(5)));
        http.set_nodelay(true);
        let builder = Client::builder(TokioExecutor::new());
        if endpoint.is_clear() {
            return Ok(Self { endpoint, client: Transport::Clear(builder.build(http)) });
        }
        http.enforce_http(false);
        let roots = HttpsConnectorBuilder::new().with_native_roots().map_err(|error| RegistryError::Unreachable {
            registry: endpoint.name().to_owned(),
            doing: "read this machine's certificates to connect".to_owned(),
            attempts: 1,
            source: error.into(),
        })?;
        let connector = roots.https_only().enable_http1().wrap_connector(http);
        Ok(Self { endpoint, client: Transport::Encrypted(builder.build(connector)) })
    }

    /// Asks once for each time until there is an answer that is not a passing
    /// failure. `doing` is for messages.
    pub(super) async fn ask(&self, doing: &str, question: &Question) -> Result<Answer, RegistryError> {
        with_attempts(|| self.ask_once(doing, question)).await
    }

    /// One attempt: a passing failure is an error.
    pub(super) async fn ask_once(&self, doing: &str, question: &Question) -> Result<Answer, RegistryError> {
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| RegistryError::Unreachable {
            registry: self.endpoint.name().to_owned(),
            doing: doing.to_owned(),
            attempts: ATTEMPTS,
            source,
        };
        let mut request = Request::builder().method(&question.method).uri(&question.url).header(USER_AGENT, "devloop");
        request = match question.payload {
            Payload::Nothing => request.header(ACCEPT, &question.media_type),
            _ => request.header(CONTENT_TYPE, &question.media_type),
        };
        let request = request.header(CONTENT_LENGTH, question.payload.size()).body(question.payload.body().await?);
        let request = request.map_err(|error| self.not_a_registry(format!("it names {:?}: {error}", question.url)))?;
        let exchanged = async {
            let response = match &self.client {
                Transport::Clear(client) => client.request(request),
                Transport::Encrypted(client) => client.request(request),
            };
            let (head, body) = response.await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            Ok::<_, hyper_util::client::legacy::Error>(Answer { status: head.status, headers: head.headers, body })
        };
        let answer = match tokio::time::timeout(question.payload.patience(), exchanged).await {
            Ok(answer) => answer.map_err(|error| unreachable(error.into()))?,
            Err(_) => return Err(unreachable("it took too long".into())),
        };
        if is_passing(answer.status.as_u16()) { Err(self.refused(doing, &answer)) } else { Ok(answer) }
    }

    pub(super) fn refused(&self, doing: &str, answer: &Answer) -> RegistryError {
        RegistryError::Refused {
            registry: self.endpoint.name().to_owned(),
            doing: doing.to_owned(),
            status: answer.status.as_u16(),
            message: answer.message(),
        }
    }

    pub(super) fn not_a_registry(&self, reason: String) -> RegistryError {
        RegistryError::NotARegistry { registry: self.endpoint.name().to_owned(), reason }
    }
}

/// Makes attempts until one succeeds or fails for good.
pub(super) async fn with_attempts<T, F>(attempt: impl Fn() -> F) -> Result<T, RegistryError>
where
    F: Future<Output = Result<T, RegistryError>>,
{
    let mut number = 1;
    loop {
        let error = match attempt().await {
            Err(error) if may_pass(&error) => error,
            done => return done,
        };
        let Some(pause) = pause_after(number) else { return Err(error) };
        tracing::info!(%error, number, "trying again");
        tokio::time::sleep(pause).await;
        number += 1;
    }
}

fn may_pass(error: &RegistryError) -> bool {
    match error {
        RegistryError::Unreachable { .. } => true,
        RegistryError::Refused { status, .. } => is_passing(*status),
        _ => false,
    }
}
