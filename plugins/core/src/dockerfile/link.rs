//! The connection to a BuildKit: the one in the Docker engine, or a daemon.

use super::DockerfileError;
use super::session::{Duplex, Session};
use crate::docker::{Engine, UpgradeError};
use crate::registry::client_config;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::{BytesMessage, ListWorkersRequest};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::StatusCode;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
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

/// Whom an encrypted connection trusts, and how this side shows who it is: PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trust {
    pub(super) authority: PathBuf,
    /// A certificate and its key.
    pub(super) own: Option<(PathBuf, PathBuf)>,
    /// The name in the daemon's certificate; the host when absent.
    pub(super) server_name: Option<String>,
}

impl Trust {
    /// The files of a folder, as Docker and `buildctl --tlsdir` name them.
    pub(super) fn in_folder(folder: &Path, server_name: Option<String>) -> Self {
        let own = (folder.join("cert.pem"), folder.join("key.pem"));
        Self { authority: folder.join("ca.pem"), own: Some(own).filter(|(certificate, _)| certificate.exists()), server_name }
    }
}

/// A channel to a daemon's address, encrypted.
pub(super) async fn to_tls(address: &str, trust: &Trust) -> Result<Channel, BoxError> {
    let own = trust.own.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
    let mut config = client_config(&trust.authority, own)?;
    // Daemons refuse whoever doesn't say so.
    config.alpn_protocols = vec![b"h2".to_vec()];
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(trust.server_name.clone().unwrap_or_else(|| host.to_owned()))?;
    let connect = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    channel_on(tokio::time::timeout(PATIENCE, connect).await??).await
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

/// Whether a daemon is at the other end.
pub(super) async fn answers(channel: &Channel) -> Result<(), BoxError> {
    let mut control = control_of(channel.clone());
    tokio::time::timeout(PATIENCE, control.list_workers(ListWorkersRequest::default())).await??;
    Ok(())
}

fn control_of(channel: Channel) -> ControlClient<Channel> {
    ControlClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE).max_encoding_message_size(LARGEST_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{RootCertStore, ServerConfig};

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
    }

    /// The files that one side of a connection has.
    fn write(folder: &Path, issuer: &CertifiedIssuer<'static, KeyPair>, name: &str) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, issuer).unwrap();
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    }

    /// A server that wants to know who asks, as `buildkitd --tlscacert` does.
    async fn serve(folder: &Path, issuer: &CertifiedIssuer<'static, KeyPair>) -> String {
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let chain = rustls::pki_types::CertificateDer::pem_file_iter(folder.join("cert.pem")).unwrap().map(Result::unwrap).collect();
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
        let mut config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let service = hyper::service::service_fn(async |_| {
                    let answer = http::Response::builder().header("content-type", "application/grpc").header("grpc-status", "12");
                    answer.body(http_body_util::Empty::<bytes::Bytes>::new())
                });
                let connection = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        address
    }

    #[tokio::test]
    async fn an_encrypted_connection_knows_both_sides() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (authority(), authority());
        let place = |name: &str| folder.path().join(name);
        write(&place("server"), &ours, "bk");
        write(&place("client"), &ours, "me");
        write(&place("stranger"), &theirs, "me");
        let address = serve(&place("server"), &ours).await;
        let trust = |name: &str, server: &str| Trust::in_folder(&place(name), Some(server.to_owned()));
        // A question that only a daemon has an answer to.
        let ask = async |trust: Trust| {
            let channel = to_tls(&address, &trust).await?;
            match control_of(channel).list_workers(ListWorkersRequest::default()).await {
                Err(status) if status.code() == tonic::Code::Unimplemented => Ok(()),
                other => Err(BoxError::from(format!("{other:?}"))),
            }
        };
        ask(trust("client", "bk")).await.unwrap();
        assert!(ask(trust("client", "other")).await.is_err(), "the certificate is of another server");
        assert!(ask(trust("stranger", "bk")).await.is_err(), "the authority is another one");
        assert!(ask(Trust { own: None, ..trust("client", "bk") }).await.is_err(), "it wants to know who asks");
        std::fs::write(place("client/ca.pem"), "x").unwrap();
        let error = ask(trust("client", "bk")).await.unwrap_err().to_string();
        assert!(error.contains("ca.pem can't be used"), "{error}");
    }
}
