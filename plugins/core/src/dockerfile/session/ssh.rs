//! The user's SSH agent, passed on byte by byte.

use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::Ssh;
use bollard_buildkit_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::{Request, Response, Status, Streaming};

/// Messages of an agent are small.
const CHUNK: usize = 16 * 1024;

#[derive(Clone, Debug)]
pub(in crate::dockerfile) struct Agent {
    /// The agent's socket.
    pub(in crate::dockerfile) socket: PathBuf,
    /// What it is called in Dockerfiles.
    pub(in crate::dockerfile) ids: Vec<String>,
}

#[tonic::async_trait]
impl Ssh for Agent {
    type ForwardAgentStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn check_agent(&self, request: Request<CheckAgentRequest>) -> Result<Response<CheckAgentResponse>, Status> {
        let id = request.into_inner().id;
        let id = if id.is_empty() { "default" } else { &id };
        if self.ids.iter().any(|known| known == id) {
            Ok(Response::new(CheckAgentResponse {}))
        } else {
            Err(Status::not_found(format!("{id} is not among the build's `ssh`")))
        }
    }

    async fn forward_agent(&self, request: Request<Streaming<BytesMessage>>) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let failed = |error: std::io::Error| Status::unavailable(format!("could not speak to the SSH agent: {error}"));
        let (mut from_agent, mut to_agent) = UnixStream::connect(&self.socket).await.map_err(failed)?.into_split();
        let mut asked = request.into_inner();
        // One future for both ways: it ends with the stream that owns it.
        let (mut answer_tx, answer_rx) = futures::channel::mpsc::channel::<Result<BytesMessage, Status>>(4);
        let pass_on = async move {
            while let Some(Ok(message)) = asked.next().await {
                if to_agent.write_all(&message.data).await.is_err() {
                    break;
                }
            }
            let _ = to_agent.shutdown().await;
        };
        let answer = async move {
            let mut buffer = vec![0; CHUNK];
            loop {
                let message = match from_agent.read(&mut buffer).await {
                    Ok(0) => break,
                    Ok(count) => Ok(BytesMessage { data: buffer[..count].to_vec() }),
                    Err(error) => Err(failed(error)),
                };
                let is_last = message.is_err();
                if futures::SinkExt::send(&mut answer_tx, message).await.is_err() || is_last {
                    break;
                }
            }
        };
        let work = futures::stream::once(futures::future::join(pass_on, answer).map(|_| ())).filter_map(|()| async { None });
        Ok(Response::new(futures::stream::select(answer_rx, work).boxed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_agents_that_were_named_are_there() {
        let agent = Agent { socket: "/nowhere".into(), ids: vec!["default".into()] };
        let ask = async |id: &str| agent.check_agent(Request::new(CheckAgentRequest { id: id.into() })).await;
        assert!(ask("").await.is_ok());
        assert!(ask("default").await.is_ok());
        assert_eq!(ask("other").await.unwrap_err().code(), tonic::Code::NotFound);
    }
}
