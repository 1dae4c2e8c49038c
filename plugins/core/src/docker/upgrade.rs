//! Connections that begin as a request to the engine and go on as something else:
//! its BuildKit is reached that way (`/session` and `/grpc` of
//! <https://docs.docker.com/reference/api/engine/>).

use super::{Endpoint, Engine};
use crate::registry::client_config;
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::rt::{Read, Write};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::io;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tower::Service;

/// How long an engine may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no such connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// The engine doesn't know what is asked for.
    #[error("the engine answers {0}")]
    Refused(StatusCode),
    /// It can't be reached.
    #[error("the engine can't be reached: {0}")]
    Io(#[from] io::Error),
    /// It doesn't speak HTTP.
    #[error("the engine can't be understood: {0}")]
    Http(#[from] hyper::Error),
}

impl Engine {
    /// Asks for a connection that goes on as HTTP/2 without encryption of its own.
    ///
    /// # Errors
    /// [`UpgradeError::Refused`] by an engine that has nothing of the kind.
    pub(crate) async fn upgrade(&self, path: &str, headers: &[(&'static str, String)]) -> Result<Upgraded, UpgradeError> {
        let work = async {
            match &self.endpoint {
                Endpoint::Unix(socket) => ask(TokioIo::new(UnixStream::connect(socket).await?), path, headers).await,
                Endpoint::Http(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    ask(TokioIo::new(stream), path, headers).await
                }
                Endpoint::Https { address, certificates } => {
                    let own = (certificates.join("cert.pem"), certificates.join("key.pem"));
                    let trust = client_config(&certificates.join("ca.pem"), Some((&own.0, &own.1)))?;
                    let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(trust).https_only().enable_http1();
                    let uri: Uri = format!("https://{address}/").parse().map_err(io::Error::other)?;
                    let stream = connector.build().call(uri).await.map_err(io::Error::other)?;
                    ask(stream, path, headers).await
                }
            }
        };
        tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }
}

async fn ask(
    stream: impl Read + Write + Unpin + Send + 'static,
    path: &str,
    headers: &[(&'static str, String)],
) -> Result<Upgraded, UpgradeError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let mut request = Request::post(path).header("host", "docker").header("connection", "Upgrade").header("upgrade", "h2c");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    // It ends when it has been handed over, or with `sender`.
    tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(UpgradeError::Refused(response.status()));
    }
    Ok(hyper::upgrade::on(response).await?)
}
