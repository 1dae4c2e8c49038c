//! The session of a build: what BuildKit asks its client for while it builds. Each
//! file is one of the services of the protocol (`moby/buildkit`, folder `session`),
//! and the client is the server here: BuildKit calls back on the connection that
//! was opened for it.

mod auth;
mod files;
mod follow;
mod health;
mod receive;
mod secrets;
mod ssh;

pub(super) use auth::Credentials;
pub(super) use files::Folders;
pub(super) use receive::Receiver;
pub(super) use secrets::Secrets;
pub(super) use ssh::Agent;

use bollard_buildkit_proto::health::health_server::HealthServer;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::SecretsServer;
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::FileSyncServer;
use bollard_buildkit_proto::moby::filesync::v1::auth_server::AuthServer;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::FileSendServer;
use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::SshServer;
use futures::StreamExt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::Server;
use tonic::transport::server::Connected;

/// What BuildKit takes in one message: its own limit.
const LARGEST_MESSAGE: usize = 16 << 20;

/// What a build may ask for.
#[derive(Debug)]
pub(super) struct Session {
    /// Its name, unique.
    pub(super) id: String,
    /// The same for builds of the same context: BuildKit keeps what it was sent
    /// under it, so that the next build sends only what changed.
    pub(super) shared_key: String,
    pub(super) folders: Folders,
    pub(super) credentials: Credentials,
    pub(super) secrets: Secrets,
    pub(super) agent: Option<Agent>,
    pub(super) receiver: Receiver,
}

impl Session {
    /// The headers that a session begins with.
    pub(super) fn headers(&self) -> Vec<(&'static str, String)> {
        let methods = ["moby.filesync.v1.FileSync/DiffCopy", "moby.filesync.v1.Auth/Credentials", "moby.filesync.v1.FileSend/DiffCopy"];
        let mut methods: Vec<&str> = methods.into();
        methods.push("moby.buildkit.secrets.v1.Secrets/GetSecret");
        methods.push("grpc.health.v1.Health/Check");
        if self.agent.is_some() {
            methods.extend(["moby.sshforward.v1.SSH/CheckAgent", "moby.sshforward.v1.SSH/ForwardAgent"]);
        }
        let mut headers = vec![
            ("x-docker-expose-session-uuid", self.id.clone()),
            ("x-docker-expose-session-name", "devloop".to_owned()),
            ("x-docker-expose-session-sharedkey", self.shared_key.clone()),
        ];
        headers.extend(methods.into_iter().map(|method| ("x-docker-expose-session-grpc-method", format!("/{method}"))));
        headers
    }

    /// Answers what is asked on a connection, for as long as the future lives.
    pub(super) async fn serve(self, connection: impl AsyncRead + AsyncWrite + Send + 'static) -> Result<(), tonic::transport::Error> {
        let connection = Connection(Box::pin(connection));
        // There is no second connection; and the end of this one is not waited for
        // here, but by whoever waits for the build.
        let incoming = futures::stream::iter([Ok::<_, io::Error>(connection)]).chain(futures::stream::pending());
        let mut router = Server::builder()
            .add_service(HealthServer::new(health::Healthy))
            .add_service(
                FileSyncServer::new(self.folders).max_decoding_message_size(LARGEST_MESSAGE).max_encoding_message_size(LARGEST_MESSAGE),
            )
            .add_service(AuthServer::new(self.credentials))
            .add_service(SecretsServer::new(self.secrets))
            .add_service(FileSendServer::new(self.receiver).max_decoding_message_size(LARGEST_MESSAGE));
        if let Some(agent) = self.agent {
            router = router.add_service(SshServer::new(agent));
        }
        router.serve_with_incoming(incoming).await
    }
}

/// Bytes to and from BuildKit.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

struct Connection(Pin<Box<dyn Duplex>>);

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(context, buffer)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(context)
    }
}
