//! The client of `devloop-agent`, which runs on a node beside the containers,
//! or in a pod beside one of them.
//!
//! On a node the agent is put once per build of it, and started for as long as
//! the client lives; into a pod it comes as an image ([`AgentImages`]) in an ephemeral
//! container ([`Beside`]). The two ways differ in how the stream is opened
//! ([`Transport`]) and in nothing else. Requests may be made from many tasks at once; each is
//! answered within its time or the connection is given up.

mod binary;
mod chunks;
mod commands;
mod connection;
mod image;
mod requests;
mod source;
mod transport;

pub use commands::{Command, Messages, Runner};
pub use connection::Agent;
pub use devloop_agent::debug;
pub use devloop_agent::protocol::{ByteString, ErrorKind, Located, Phases, ProcessId, Swapped, Undone, encode};
pub use devloop_agent::supervise::RESTART_SIGNAL;
pub use devloop_agent::tools;
pub use image::{AgentImages, Companion, CompanionFile};
pub use requests::{CheckEntry, Written};
pub use transport::{Beside, Connection, Transport};

use crate::ephemeral::EphemeralError;
use crate::error::CommandError;
use crate::node::Node;
use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

/// Why the agent did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// There is no agent to put on the node.
    #[error("the devloop-agent program was not found")]
    Missing,
    /// The agent found can't run on a node.
    #[error("{} can't be used as agent: {reason}", .path.display())]
    Unusable {
        /// The program.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It could not be put on the node or started there.
    #[error("could not start devloop-agent on the node")]
    Start(#[source] std::io::Error),
    /// It could not be started in a pod.
    #[error(transparent)]
    Pod(#[from] EphemeralError),
    /// Its image could not be made, or not be brought to the cluster.
    #[error("could not bring the agent's image into the cluster")]
    Image(#[source] CommandError),
    /// There is no way to bring its image to the cluster.
    #[error("the agent's image can't be brought into the cluster: its nodes can't be reached from here, and it names no local registry")]
    NoImage,
    /// It is there and is not the one that this client speaks to.
    #[error("the agent speaks version {agent} of the protocol, this program version {client}")]
    Version {
        /// The agent's.
        agent: u32,
        /// Ours.
        client: u32,
    },
    /// A source file could not be read.
    #[error("could not read {}", .path.display())]
    Source {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A source file was written to, truncated or deleted meanwhile; nothing
    /// was changed in the container.
    #[error("{} changed while it was copied", .0.display())]
    SourceChanged(PathBuf),
    /// What arrived is not what was sent.
    #[error("{} arrived damaged", .0.display())]
    Damaged(PathBuf),
    /// The agent refused.
    #[error("{message}")]
    Refused {
        /// What to decide by.
        kind: ErrorKind,
        /// The agent's reason.
        message: String,
    },
    /// No answer came in time.
    #[error("the agent did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The agent ended, with the last that it said on stderr.
    #[error("the agent ended{}", if .0.is_empty() { String::new() } else { format!(": {}", .0) })]
    Ended(String),
    /// The agent answered something else than what was asked.
    #[error("the agent gave an answer that does not fit: {0}")]
    Unexpected(String),
}

/// Puts the agent on a node unless it is there; answers its path there.
pub(crate) async fn install_on(node: &Node) -> Result<String, AgentError> {
    let program = tokio::task::spawn_blocking(binary::find).await.map_err(|error| AgentError::Start(std::io::Error::other(error)))??;
    binary::install(node, &program).await
}

impl AgentError {
    /// Whether this agent is of no more use and another must be started.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::TimedOut(_) | Self::Ended(_) | Self::Unexpected(_) | Self::Damaged(_))
    }

    /// Whether the process asked about is gone.
    pub fn is_vanished(&self) -> bool {
        matches!(self, Self::Refused { kind: ErrorKind::Vanished | ErrorKind::NotFound, .. })
    }

    /// Whether the process stands still for its debugger, and may run on soon.
    pub fn is_halted(&self) -> bool {
        matches!(self, Self::Refused { kind: ErrorKind::Halted, .. })
    }

    /// Whether it is about the agent's program itself: then no node or pod will
    /// have one.
    pub fn is_everywhere(&self) -> bool {
        matches!(self, Self::Missing | Self::Unusable { .. } | Self::Version { .. } | Self::NoImage)
    }

    /// Whether it is about what may be done in the namespace: then no pod of it
    /// will have an agent.
    pub fn is_about_namespace(&self) -> bool {
        matches!(self, Self::Pod(EphemeralError::Policy { .. } | EphemeralError::Forbidden { .. }))
    }

    /// Whether another try may go better, with nothing changed by the user.
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Pod(error) => error.is_passing(),
            Self::Start(_) | Self::TimedOut(_) | Self::Ended(_) => true,
            _ => false,
        }
    }

    fn hint(&self) -> Option<Cow<'static, str>> {
        let fixed = match self {
            Self::Pod(error) => return error.hint().map(Cow::Owned),
            Self::NoImage => Some(
                "make one of these true: a cluster whose nodes are on this machine; a registry in it (ConfigMap kube-public/local-registry-hosting); --agent-image or DEVLOOP_AGENT_IMAGE with an image that its nodes can pull",
            ),
            Self::Version { .. } => Some("build or install the agent and this program together"),
            Self::Missing => Some("put it beside this program or on PATH, or name it with DEVLOOP_AGENT=/path/to/devloop-agent"),
            Self::Unusable { .. } => Some(
                "build it with `RUSTFLAGS='-C target-feature=+crt-static' cargo build --package devloop-agent --target <arch>-unknown-linux-gnu`",
            ),
            Self::Refused { kind: ErrorKind::Permission, .. } => Some("detach debuggers from the process"),
            Self::Refused { kind: ErrorKind::ReadOnly, .. } => {
                Some("mount a writable volume there, or set `readOnlyRootFilesystem: false` for development")
            }
            Self::Refused { kind: ErrorKind::Halted, .. } => Some("let it run on in the debugger"),
            Self::Refused { kind: ErrorKind::InUse, .. } => Some("end the other session, or wait until it has undone its changes"),
            Self::Refused { kind: ErrorKind::Seccomp, .. } => {
                Some("let the container start under a supervisor, or relax its seccomp profile for development")
            }
            Self::Refused { kind: ErrorKind::NoSpace, .. } => Some("free space on the node or in the volume"),
            _ => None,
        };
        fixed.map(Cow::Borrowed)
    }
}

impl From<AgentError> for CommandError {
    fn from(error: AgentError) -> Self {
        let hint = error.hint();
        let command = CommandError::new("the agent could not do its work").caused_by(error);
        match hint {
            Some(hint) => command.with_hint(hint),
            None => command,
        }
    }
}
