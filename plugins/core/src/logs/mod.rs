//! Container logs, every line once, across broken connections and restarts.
//!
//! [`follow_pods`] watches the pods of some selections and reads each of their
//! containers with a task of its own; [`follow()`] is one such reader;
//! [`read_pods`] reads what is there and ends; [`last_lines`] gives the end of
//! one log. What to read next ([`decide`]), what was read before ([`Resume`])
//! and which readers to start ([`plan()`]) are pure.
//!
//! The API gives a log by container name, not by instance, and of the current
//! and the previous instance only. So a reader goes instance by instance: it
//! follows one while it runs, then reads it once more to its end by a request
//! that ends by itself. What can't be read any more is said
//! ([`LogEvent::Gap`]), never passed over.
//!
//! Limits of the API: a connection sees the log file that the kubelet writes
//! now, not those it has rotated away, so lines that are rotated while a
//! connection is broken are missing (and said to be). Each container costs a
//! connection, as kube-client speaks HTTP/1.1.

mod fetch;
mod follow;
mod instance;
mod line;
mod plan;
mod pods;
mod resume;
#[cfg(test)]
mod tests;

pub use fetch::last_lines;
pub use follow::{Beginning, follow};
pub use instance::{Instance, InstanceState, NamedContainer, Observed, PodState, Step, containers, decide};
pub use line::LINE_LIMIT;
pub use plan::{Action, ContainerKey, plan};
pub use pods::{Found, follow_pods, read_pods};
pub use resume::{Resume, Verdict};

use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// A log that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The API server refuses.
    #[error("not allowed to {doing}")]
    Forbidden {
        /// What was asked for.
        doing: String,
        /// The server's answer.
        #[source]
        source: kube::Error,
    },
    /// The server or the network failed, again and again.
    #[error("could not {doing}")]
    Unavailable {
        /// What was asked for.
        doing: String,
        /// The last failure.
        #[source]
        source: kube::Error,
    },
    /// The connection broke, again and again.
    #[error("the connection broke while reading the log of {0}")]
    Broken(String, #[source] std::io::Error),
    /// A task of ours ended unexpectedly.
    #[error("a log reader failed")]
    Task(#[from] tokio::task::JoinError),
}

impl From<LogsError> for crate::CommandError {
    fn from(error: LogsError) -> Self {
        match error {
            LogsError::Forbidden { doing, source } => crate::cluster::explain(source, format!("not allowed to {doing}")),
            LogsError::Unavailable { doing, source } => crate::cluster::explain(source, format!("could not {doing}")),
            other => Self::new("could not read the logs").caused_by(other),
        }
    }
}

/// Where a line comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// Whether the pod has other containers, too.
    pub has_siblings: bool,
}

/// A line of a container's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Where it comes from.
    pub source: Arc<Source>,
    /// When the runtime read it.
    pub timestamp: Timestamp,
    /// The bytes that the container wrote, without the newline, at most [`LINE_LIMIT`].
    pub message: Vec<u8>,
    /// How many bytes of it were dropped at the limit.
    pub cut: u64,
}

/// What happens while logs are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// The log of a container is read from now on.
    Opened(Arc<Source>),
    /// It won't be read any more: its pod is gone.
    Closed(Arc<Source>),
    /// A line.
    Line(LogLine),
    /// Lines may be missing here, and why.
    Gap(Arc<Source>, String),
    /// Something the kubelet says in place of log lines.
    Notice(Arc<Source>, String),
    /// The connection is lost, and why; it is tried again.
    Interrupted(Origin, String),
    /// It is back.
    Restored(Origin),
    /// No pod matches yet.
    NoPods,
}

/// What lost its connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The watch of the pods of the selection with this index.
    Watch(usize),
    /// A container's log.
    Log(Arc<Source>),
}

/// What is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Only these containers; all if empty.
    pub containers: Vec<String>,
    /// Of the instances that are there at the start: lines not older than this.
    pub since: Option<SignedDuration>,
    /// Of the instances that are there at the start: at most so many lines.
    pub tail: Option<u32>,
    /// The instance before the current one, with [`read_pods`].
    pub previous: bool,
}

impl LogOptions {
    /// Whether a container of this name is wanted.
    pub fn wants(&self, container: &str) -> bool {
        self.containers.is_empty() || self.containers.iter().any(|name| name == container)
    }
}
