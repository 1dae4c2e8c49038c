//! The finished image, which BuildKit sends as one stream of bytes.

use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::FileSend;
use futures::StreamExt;
use futures::stream::Empty;
use std::path::PathBuf;
use tokio::io::AsyncWriteExt;
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone, Debug)]
pub(in crate::dockerfile) struct Receiver {
    /// The file that is written; it is there already.
    pub(in crate::dockerfile) path: PathBuf,
}

#[tonic::async_trait]
impl FileSend for Receiver {
    type DiffCopyStream = Empty<Result<BytesMessage, Status>>;

    async fn diff_copy(&self, request: Request<Streaming<BytesMessage>>) -> Result<Response<Self::DiffCopyStream>, Status> {
        let failed = |error: std::io::Error| Status::internal(format!("could not write {}: {error}", self.path.display()));
        let mut sent = request.into_inner();
        let mut file = tokio::fs::OpenOptions::new().write(true).truncate(true).open(&self.path).await.map_err(failed)?;
        while let Some(message) = sent.next().await {
            file.write_all(&message?.data).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        Ok(Response::new(futures::stream::empty()))
    }
}
