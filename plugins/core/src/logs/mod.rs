//! Container logs, every line once, across broken connections and restarts.
//!
//! [`follow_pods`] watches the pods of some selections and reads each of their
//! containers with a task of its own; `follow` is one such reader, `connection` what
//! it does with one connection; [`read_pods`] reads what is there and ends;
//! [`last_lines`] gives the end of one log; [`LocalLog`] is one of a file here. What to read next ([`decide`]), what was
//! read before ([`Resume`]), which lines go on (`sieve`) and which readers to start
//! ([`plan()`]) are pure. Events are handed on by the batch.
//!
//! The API gives a log by container name, not by instance, and of the current
//! and the previous instance only. So a reader goes instance by instance: it
//! follows one while it runs, then reads it once more to its end by a request
//! that ends by itself. What can't be read any more is said
//! ([`LogEvent::Gap`]), never passed over.
//!
//! Where a pod's node can be reached, its log files are read there instead
//! (`on_node`): those that were rotated, too, and as fast as files are. All lines
//! go through lanes (`queue`) into one order (`merge`).
//!
//! Limits of the API: a connection sees the log file that the kubelet writes
//! now, not those it has rotated away, so lines that are rotated while a
//! connection is broken are missing (and said to be). Each container costs a
//! connection, as kube-client speaks HTTP/1.1; beyond a limit, readers take turns.

mod backlog;
mod choice;
mod connection;
mod fetch;
mod follow;
mod happenings;
mod instance;
mod line;
mod local;
mod merge;
mod node_reader;
mod on_node;
mod order;
mod outbox;
mod owners;
mod plan;
mod pods;
mod queue;
mod read;
mod resume;
mod scope;
mod sieve;
mod sleep;
mod spill;
#[cfg(test)]
mod tests;
mod turns;
mod watching;
mod ways;

pub use choice::{Choice, Condition, ContainerState};
pub use fetch::last_lines;
pub use happenings::Happening;
pub use instance::{ContainerKind, Instance, InstanceState, NamedContainer, Observed, PodState, Step, containers, decide};
pub use line::LINE_LIMIT;
pub use local::{LocalLog, rotated};
pub use owners::{Object, find_object};
pub use plan::{Action, ContainerKey, plan};
pub use pods::follow_pods;
pub use read::{Found, read_pods};
pub use resume::{Resume, Verdict};
pub use scope::{Place, Scope};
pub use watching::list_pods;

use crate::args::Via;
use crate::error::CommandError;
use jiff::{SignedDuration, Timestamp};
use regex::bytes::RegexSet;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

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
    /// The node was asked for, and has no way to its logs.
    #[error("could not read the log of {what} on its node: {reason}")]
    Node {
        /// `pod/container`.
        what: String,
        /// Why.
        reason: String,
    },
    /// A task of ours ended unexpectedly.
    #[error("a log reader failed")]
    Task(#[from] tokio::task::JoinError),
}

impl From<LogsError> for crate::CommandError {
    fn from(error: LogsError) -> Self {
        match error {
            LogsError::Forbidden { doing, source } => crate::cluster::explain(source, format!("not allowed to {doing}")),
            LogsError::Unavailable { doing, source } => crate::cluster::explain(source, format!("could not {doing}")),
            LogsError::Node { what, reason } => Self::new(format!("could not read the log of {what} on its node"))
                .caused_by(Self::new(reason))
                .with_hint("leave out `--via node`"),
            other => Self::new("could not read the logs").caused_by(other),
        }
    }
}

/// Where a line comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// The kubeconfig context, where there are several.
    pub context: Option<String>,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// Whether the pod has other containers, too.
    pub has_siblings: bool,
    /// The pod's node.
    pub node: String,
    /// The pod's labels, as they were when it was found.
    pub labels: BTreeMap<String, String>,
    /// The pod's annotations, as they were when it was found.
    pub annotations: BTreeMap<String, String>,
}

impl Hash for Source {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Sources that are equal have the same name, and few have the same name.
        (&self.context, &self.namespace, &self.pod, &self.container).hash(state);
    }
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
#[derive(Clone, Debug)]
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
    /// Something happened to a pod, if that is wanted.
    Happened(Happening),
    /// No pod matches yet.
    NoPods,
    /// These pods, or the log of this container, can't be read; the rest goes on.
    Failed(String, Arc<CommandError>),
}

/// So much waits for a slow listener where it would be gone otherwise: on a node
/// what its kubelet has deleted, here on disk what the API has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// `node NAME` or `pod/container`.
    pub whose: String,
    /// 0 when it has caught up.
    pub bytes: u64,
}

/// Where what is read goes.
#[derive(Clone, Debug)]
pub struct Outlet {
    /// Batches of events, in their order.
    pub events_tx: mpsc::Sender<Vec<LogEvent>>,
    /// What waits because the events aren't taken: it can't wait behind them.
    pub held_tx: mpsc::UnboundedSender<Held>,
}

impl LogEvent {
    /// The container that it is about.
    pub(crate) fn source(&self) -> Option<&Arc<Source>> {
        match self {
            Self::Line(line) => Some(&line.source),
            Self::Opened(source) | Self::Closed(source) | Self::Gap(source, _) | Self::Notice(source, _) => Some(source),
            Self::Interrupted(Origin::Log(source), _) | Self::Restored(Origin::Log(source)) => Some(source),
            _ => None,
        }
    }
}

/// What lost its connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The watch of the pods of the selection with this index.
    Watch(usize),
    /// A container's log.
    Log(Arc<Source>),
    /// The agent on the node of this name.
    Node(String),
}

/// A time to begin at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So long ago, by the clock of the server or node; whole seconds through the API.
    Ago(SignedDuration),
    /// This time.
    At(Timestamp),
}

/// What is read, and how.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Which pods and containers.
    pub choice: Choice,
    /// Of the instances that are there at the start: lines not older than this.
    pub since: Option<Since>,
    /// No line that is later.
    pub until: Option<Timestamp>,
    /// Of the instances that are there at the start: at most so many lines.
    pub tail: Option<u32>,
    /// The first so many lines of each container.
    pub head: Option<u64>,
    /// Everything that is still there: rotated files on the node, the instance
    /// before through the API.
    pub all: bool,
    /// The instance before the current one, with [`read_pods`].
    pub previous: bool,
    /// How long a line waits for older ones; none for the order in which they come.
    pub window: Option<Duration>,
    /// The way to the logs.
    pub via: Via,
    /// So many connections for logs at once; further readers take turns.
    pub connections: usize,
    /// So many bytes are kept for a slow listener: on each node of what the kubelet
    /// has deleted, here on disk of each container that the API gives.
    pub held_limit: u64,
    /// What is left out where it is read.
    pub filter: LineFilter,
    /// Whether the cluster's events and the ends of containers are told, with
    /// [`follow_pods`].
    pub events: bool,
}

/// Lines that are left out where they are read, on the node or as the API gives them, by
/// regular expressions over bytes: they take no part in the order of the others.
#[derive(Clone, Debug, Default)]
pub struct LineFilter {
    include: RegexSet,
    exclude: RegexSet,
}

impl LineFilter {
    /// Wants lines that one of `include` matches, if there are any, and none that one of
    /// `exclude` does.
    ///
    /// # Errors
    /// When one can't be read.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, regex::Error> {
        Ok(Self { include: RegexSet::new(include)?, exclude: RegexSet::new(exclude)? })
    }

    fn wants(&self, message: &[u8]) -> bool {
        (self.include.is_empty() || self.include.is_match(message)) && !self.exclude.is_match(message)
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            choice: Choice::default(),
            since: None,
            until: None,
            tail: None,
            head: None,
            all: false,
            previous: false,
            window: Some(WINDOW),
            via: Via::default(),
            connections: CONNECTIONS,
            held_limit: HELD_LIMIT,
            filter: LineFilter::default(),
            events: false,
        }
    }
}

/// How long a line waits for older ones by default.
pub const WINDOW: Duration = Duration::from_millis(150);

/// How many connections there are at once by default: each takes some 30 KiB here
/// and a stream of the API server's.
pub const CONNECTIONS: usize = 500;

/// How much a node keeps by default of what its kubelet has deleted.
pub const HELD_LIMIT: u64 = 1 << 30;
