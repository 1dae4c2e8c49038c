//! The ways to run the agent: each gives one connection to its stdin and stdout.

use super::image::VERSION;
use super::{AgentError, binary};
use crate::ephemeral::{self, Program};
use crate::node::{Node, NodeProcess};
use kube::Client;
use std::any::Any;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};

/// What the agent needs to work on another container's files and process:
/// to follow `/proc/PID/root` and to trace; to write for any owner; to give
/// files their owner and mode; to signal the process and end its children.
const CAPABILITIES: &[&str] = &["SYS_PTRACE", "DAC_OVERRIDE", "CHOWN", "FOWNER", "KILL"];

/// A way to run the agent.
pub trait Transport: Send + Sync {
    /// Starts an agent.
    fn open(&self) -> impl Future<Output = Result<Connection, AgentError>> + Send;
}

/// An agent that runs; it ends when its input does.
pub struct Connection {
    /// What it says.
    pub reader: Pin<Box<dyn AsyncRead + Send>>,
    /// What it is told.
    pub writer: Pin<Box<dyn AsyncWrite + Send>>,
    /// What it complains about.
    pub stderr: Pin<Box<dyn AsyncRead + Send>>,
    /// Dropped with the connection.
    pub guard: Box<dyn Any + Send + Sync>,
    /// Whether it is slow enough for compression to pay.
    pub compress: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// Node path: one agent for all containers of a node.
impl Transport for Node {
    async fn open(&self) -> Result<Connection, AgentError> {
        let path = super::install_on(self).await?;
        let NodeProcess { stdin, stdout, stderr, ended } = self.start(&path, &["serve"]).await.map_err(AgentError::Start)?;
        Ok(Connection { reader: stdout, writer: stdin, stderr, guard: Box::new(ended), compress: false })
    }
}

/// API path: an agent in a pod, beside one of its containers.
#[derive(Clone)]
pub struct Beside {
    /// Speaks to the API server.
    pub client: Client,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// Its container that is worked on.
    pub container: String,
    /// The agent's image, as the nodes know it (see [`super::AgentImages`]).
    pub image: String,
}

impl std::fmt::Debug for Beside {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Beside").field("pod", &self.pod).field("container", &self.container).finish_non_exhaustive()
    }
}

impl Transport for Beside {
    async fn open(&self) -> Result<Connection, AgentError> {
        let program = Program {
            name: binary::NAME.to_owned(),
            image: self.image.clone(),
            arguments: vec!["serve".to_owned(), "--beside".to_owned()],
            target: self.container.clone(),
            capabilities: CAPABILITIES.iter().map(|name| (*name).to_owned()).collect(),
            user: None,
        };
        let name = ephemeral::start(&self.client, &self.namespace, &self.pod, &program, &VERSION).await?;
        let attached = ephemeral::attach(&self.client, &self.namespace, &self.pod, &name).await?;
        tracing::debug!(pod = self.pod, container = name, "agent attached");
        let (reader, writer) = (Box::pin(attached.stdout), Box::pin(attached.stdin));
        Ok(Connection { reader, writer, stderr: attached.stderr, guard: Box::new(()), compress: true })
    }
}
