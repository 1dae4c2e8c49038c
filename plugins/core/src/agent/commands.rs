//! The agent's commands that are programs of their own, such as those around a
//! debugger: started on a node, or in a container of a pod that has the agent.

use super::image::{ENTRYPOINT, VERSION};
use super::{AgentError, binary};
use crate::ephemeral::{self, Attached, EphemeralError};
use crate::node::{Node, NodeProcess};
use crate::tail::tail_of;
use devloop_agent::protocol::Decoder;
use kube::Client;
use serde::de::DeserializeOwned;
use std::any::Any;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// So much of what a command complains about is kept.
const KEPT: usize = 2048;

/// Where the agent's commands are started.
#[derive(Clone)]
pub enum Runner {
    /// On a node.
    Node {
        /// It.
        node: Node,
        /// The agent's path there.
        agent: String,
    },
    /// In a container of a pod.
    Pod {
        /// Speaks to the API server.
        client: Client,
        /// The pod's namespace.
        namespace: String,
        /// The pod.
        pod: String,
        /// The container whose image has the agent.
        container: String,
    },
}

/// A command that runs; its input ends when it is dropped.
pub struct Command {
    /// Its input.
    pub stdin: Pin<Box<dyn AsyncWrite + Send>>,
    /// What it answers.
    pub stdout: Pin<Box<dyn AsyncRead + Send>>,
    /// Ends it when dropped.
    pub guard: Box<dyn Any + Send + Sync>,
    stderr: Pin<Box<dyn AsyncRead + Send>>,
}

/// The messages that a command answers, one after another.
pub struct Messages {
    stdout: Pin<Box<dyn AsyncRead + Send>>,
    stderr: Option<Pin<Box<dyn AsyncRead + Send>>>,
    decoder: Decoder,
    _guard: Box<dyn Any + Send + Sync>,
}

impl Runner {
    /// Puts the agent on a node, unless it is there.
    ///
    /// # Errors
    /// When there is no usable agent, or it can't be put there.
    pub async fn on_node(node: &Node) -> Result<Self, AgentError> {
        let agent = binary::install(node, &program().await?).await?;
        Ok(Self::Node { node: node.clone(), agent })
    }

    /// Starts a container beside another one of a pod, from an image that has the
    /// agent; answers its name once commands can be started in it.
    ///
    /// # Errors
    /// As [`ephemeral::start`].
    pub async fn start_container(
        client: &Client,
        namespace: &str,
        pod: &str,
        program: &ephemeral::Program,
    ) -> Result<String, EphemeralError> {
        ephemeral::start(client, namespace, pod, program, &VERSION).await
    }

    /// Starts a command.
    ///
    /// # Errors
    /// When it can't be started.
    pub async fn start(&self, arguments: &[&str]) -> Result<Command, AgentError> {
        match self {
            Self::Node { node, agent } => {
                let NodeProcess { stdin, stdout, stderr, ended } = node.start(agent, arguments).await.map_err(AgentError::Start)?;
                Ok(Command { stdin, stdout, stderr, guard: Box::new(ended) })
            }
            Self::Pod { client, namespace, pod, container } => {
                let argv: Vec<String> = std::iter::once(ENTRYPOINT).chain(arguments.iter().copied()).map(str::to_owned).collect();
                let Attached { stdin, stdout, stderr } = ephemeral::exec(client, namespace, pod, container, &argv).await?;
                Ok(Command { stdin: Box::pin(stdin), stdout: Box::pin(stdout), stderr, guard: Box::new(()) })
            }
        }
    }

    /// Runs a command without input, and answers all that it answers.
    ///
    /// # Errors
    /// When it can't be run, answers nothing, or takes longer than `limit`.
    pub async fn ask<T: DeserializeOwned>(&self, arguments: &[&str], limit: Duration) -> Result<Vec<T>, AgentError> {
        let work = async {
            // Its input stays open until it has ended: where it goes by the API, the
            // connection does not outlast it for long.
            let (_stdin, mut messages) = self.start(arguments).await?.split();
            let mut all = Vec::new();
            while let Some(message) = messages.next().await? {
                all.push(message);
            }
            if all.is_empty() { Err(AgentError::Ended(messages.complaint().await)) } else { Ok(all) }
        };
        tokio::time::timeout(limit, work).await.unwrap_or(Err(AgentError::TimedOut(limit)))
    }

    /// Writes a file where the commands run, as a whole or not at all.
    ///
    /// # Errors
    /// When it can't be written.
    pub async fn write_file(&self, path: &str, content: &[u8]) -> Result<(), AgentError> {
        if let Self::Node { node, .. } = self {
            return node.write_file(path, content, 0o755).await.map_err(AgentError::Start);
        }
        let (mut stdin, mut messages) = self.start(&["receive", path]).await?.split();
        let written = async {
            stdin.write_all(content).await?;
            stdin.shutdown().await
        };
        let written = written.await;
        // It answers nothing: its end is the answer.
        let _: Option<()> = messages.next().await.unwrap_or_default();
        let complaint = messages.complaint().await;
        if complaint.is_empty() { written.map_err(AgentError::Start) } else { Err(AgentError::Ended(complaint)) }
    }
}

/// The agent's program on this machine.
///
/// # Errors
/// When there is none that can run on a node.
async fn program() -> Result<PathBuf, AgentError> {
    tokio::task::spawn_blocking(binary::find).await.map_err(|error| AgentError::Start(io::Error::other(error)))?
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node { node, .. } => write!(formatter, "Runner({})", node.describe()),
            Self::Pod { pod, container, .. } => write!(formatter, "Runner({pod}, {container})"),
        }
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Command").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Messages").field("pending", &self.decoder.pending()).finish_non_exhaustive()
    }
}

impl Command {
    /// Its input, and what it answers as messages.
    pub fn split(self) -> (Pin<Box<dyn AsyncWrite + Send>>, Messages) {
        let Self { stdin, stdout, stderr, guard } = self;
        (stdin, Messages { stdout, stderr: Some(stderr), decoder: Decoder::new(), _guard: guard })
    }
}

impl Messages {
    /// The next message; `None` at the end. Can be dropped while it waits.
    ///
    /// # Errors
    /// When what comes is no such message, or the connection breaks.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, AgentError> {
        let mut piece = [0; 16 * 1024];
        loop {
            if let Some(message) = self.decoder.pop().map_err(|error| AgentError::Unexpected(error.to_string()))? {
                return Ok(Some(message));
            }
            let length = self.stdout.read(&mut piece).await.map_err(AgentError::Start)?;
            if length == 0 {
                return Ok(None);
            }
            self.decoder.push(&piece[..length]);
        }
    }

    /// What the command said on stderr, once it has ended.
    pub async fn complaint(&mut self) -> String {
        let Some(stderr) = self.stderr.take() else { return String::new() };
        let said = tokio::time::timeout(Duration::from_millis(500), tail_of(Some(stderr), KEPT)).await.unwrap_or_default();
        said.trim().trim_start_matches("Error: ").to_owned()
    }
}
