//! The connection to a BuildKit: the one in the Docker engine, or a daemon.

use super::DockerfileError;
use super::session::{Duplex, Session};
use crate::docker::{Engine, UpgradeError};
use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::StatusCode;
use hyper_util::rt::TokioIo;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Request;
use tonic::metadata::{AsciiMetadataKey, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};

/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What BuildKit takes in one message, and may send.
const LARGEST_MESSAGE: usize = 16 << 20;
/// So much of the session travels in one message to a daemon.
const CHUNK: usize = 64 * 1024;

/// A connection: what is asked of the builder, and what answers its own questions
/// for as long as it is polled.
pub(super) struct Link {
    pub(super) control: ControlClient<Channel>,
    pub(super) serving: BoxFuture<'static, Result<(), BoxError>>,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Opens a session with the engine's BuildKit; `None` for an engine without one.
pub(super) async fn to_engine(engine: &Engine, session: Session) -> Result<Option<Link>, DockerfileError> {
    let builder = || format!("the Docker engine at {}", engine.endpoint());
    let failed = |error: UpgradeError| DockerfileError::connection(builder())(error.into());
    let headers = session.headers();
    let connection = match engine.upgrade("/session", &headers).await {
        Ok(connection) => connection,
        Err(UpgradeError::Refused(status)) if is_unknown(status) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let control = engine.upgrade("/grpc", &headers[..1]).await.map_err(failed)?;
    let channel = channel_on(TokioIo::new(control)).await.map_err(DockerfileError::connection(builder()))?;
    let serving = async move { session.serve(TokioIo::new(connection)).await.map_err(Into::into) };
    Ok(Some(Link { control: control_of(channel), serving: serving.boxed() }))
}

/// What an engine answers that has no BuildKit, podman's among them.
fn is_unknown(status: StatusCode) -> bool {
    [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED, StatusCode::BAD_REQUEST].contains(&status)
}

/// Opens a session with a daemon.
pub(super) fn to_daemon(channel: Channel, session: Session, builder: &str) -> Result<Link, DockerfileError> {
    let failed = |error: BoxError| DockerfileError::connection(builder)(error);
    let control = control_of(channel);
    let (ours, theirs) = tokio::io::duplex(CHUNK);
    let (from_session, mut to_session) = tokio::io::split(theirs);
    let messages = futures::stream::unfold(from_session, |mut from| async {
        let mut data = vec![0; CHUNK];
        let count = from.read(&mut data).await.ok().filter(|count| *count > 0)?;
        data.truncate(count);
        Some((BytesMessage { data }, from))
    });
    let mut request = Request::new(messages);
    for (name, value) in session.headers() {
        let value = MetadataValue::try_from(value).map_err(|error| failed(error.into()))?;
        request.metadata_mut().append(AsciiMetadataKey::from_static(name), value);
    }
    // The daemon answers once it has something to ask, which the build gives it.
    let mut asking = control.clone();
    let pump = async move {
        let mut answers = asking.session(request).await?.into_inner();
        while let Some(message) = answers.next().await {
            to_session.write_all(&message?.data).await?;
        }
        to_session.shutdown().await?;
        Ok::<(), BoxError>(())
    };
    let serving = async move {
        tokio::select! {
            served = session.serve(ours) => served.map_err(Into::into),
            pumped = pump => pumped,
        }
    };
    Ok(Link { control, serving: serving.boxed() })
}

/// A channel to a daemon's address.
pub(super) async fn to_tcp(address: &str) -> Result<Channel, BoxError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(PATIENCE).tcp_nodelay(true);
    Ok(endpoint.connect().await?)
}

/// A channel to a daemon's socket.
pub(super) async fn to_socket(path: &Path) -> Result<Channel, BoxError> {
    channel_on(tokio::net::UnixStream::connect(path).await?).await
}

/// A channel that has this connection, and no other.
pub(super) async fn channel_on(connection: impl Duplex + Unpin + 'static) -> Result<Channel, BoxError> {
    let connection = Mutex::new(Some(connection));
    let connector = tower::service_fn(move |_: Uri| {
        let connection = connection.lock().ok().and_then(|mut connection| connection.take());
        let connection = connection.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection is gone"));
        async move { connection.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://buildkit");
    Ok(tokio::time::timeout(PATIENCE, endpoint.connect_with_connector(connector)).await??)
}

fn control_of(channel: Channel) -> ControlClient<Channel> {
    ControlClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE).max_encoding_message_size(LARGEST_MESSAGE)
}
