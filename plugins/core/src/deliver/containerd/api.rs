//! containerd's own interface: gRPC over its socket, where that is a file of this
//! machine.

use super::PATIENCE;
use super::messages::Nothing;
use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

/// Where Kubernetes keeps its images.
const NAMESPACE: &str = "k8s.io";
/// Headers of the two things that a request is within
/// (`pkg/namespaces` and `core/leases` of containerd).
const NAMESPACE_HEADER: &str = "containerd-namespace";
const LEASE_HEADER: &str = "containerd-lease";
/// A list of images may be longer than the 4 MiB that are usual.
const LARGEST_ANSWER: usize = 64 << 20;

/// A connection.
#[derive(Clone, Debug)]
pub(super) struct Api {
    channel: Channel,
    /// What keeps unpacked layers.
    pub(super) snapshotter: String,
    /// What is made within it is kept while it lasts.
    lease: Option<AsciiMetadataValue>,
    /// How long an answer may take.
    patience: Duration,
}

impl Api {
    /// Connects to a socket of this machine.
    pub(super) async fn connect(socket: &Path, snapshotter: String) -> Result<Self, tonic::transport::Error> {
        let socket = socket.to_owned();
        let connector = tower::service_fn(move |_| {
            let socket: PathBuf = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The address is not used, but has to be one.
        let channel = Endpoint::from_static("http://containerd").connect_with_connector(connector).await?;
        Ok(Self { channel, snapshotter, lease: None, patience: PATIENCE })
    }

    /// The same, within a lease.
    pub(super) fn within(&self, lease: &str) -> Self {
        Self { lease: lease.parse().ok(), ..self.clone() }
    }

    /// The same, for what takes long.
    pub(super) fn patient(&self, patience: Duration) -> Self {
        Self { patience, ..self.clone() }
    }

    fn headers(&self) -> MetadataMap {
        let mut headers = MetadataMap::new();
        headers.insert(NAMESPACE_HEADER, AsciiMetadataValue::from_static(NAMESPACE));
        if let Some(lease) = &self.lease {
            headers.insert(LEASE_HEADER, lease.clone());
        }
        headers
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }

    /// Asks one question. `method` is `/PACKAGE.SERVICE/METHOD`.
    pub(super) async fn ask<Q, A>(&self, method: &'static str, question: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut request = Request::new(question);
        *request.metadata_mut() = self.headers();
        let mut grpc = self.ready().await?;
        let answer = grpc.unary(request, PathAndQuery::from_static(method), ProstCodec::<Q, A>::default());
        let answer = tokio::time::timeout(self.patience, answer).await;
        Ok(answer.map_err(|_| Status::deadline_exceeded(method))??.into_inner())
    }

    /// Orders something.
    pub(super) async fn order<Q>(&self, method: &'static str, order: Q) -> Result<(), Status>
    where
        Q: prost::Message + Send + Sync + 'static,
    {
        self.ask::<Q, Nothing>(method, order).await.map(drop)
    }

    /// Whether there is what is asked about.
    pub(super) async fn has<Q>(&self, method: &'static str, question: Q) -> Result<bool, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
    {
        match self.order(method, question).await {
            Ok(()) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(status),
        }
    }

    /// Speaks and is answered at the same time.
    pub(super) async fn converse<Q, A>(
        &self,
        method: &'static str,
        questions: impl futures::Stream<Item = Q> + Send + 'static,
    ) -> Result<tonic::Streaming<A>, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut request = Request::new(questions);
        *request.metadata_mut() = self.headers();
        let codec = ProstCodec::<Q, A>::default();
        Ok(self.ready().await?.streaming(request, PathAndQuery::from_static(method), codec).await?.into_inner())
    }
}
