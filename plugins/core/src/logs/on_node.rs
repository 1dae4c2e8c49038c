//! The logs of a node's containers, read there by `devloop-agent logs`: the way to the
//! task that owns the connection to it (`node_reader`).

use super::Source;
use super::node_reader::Reader;
use super::queue::Lane;
use crate::node::Node;
use devloop_agent::protocol::logs::{LogSettings, OpenLog};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// How a log ended.
#[derive(Clone, Debug)]
pub(super) enum NodeEnd {
    /// It was read to its end.
    Read,
    /// The node has no files of it, and why.
    Missing(String),
    /// No agent can be run there, and why. Whoever goes another way opens a lane for
    /// that before it drops the hold.
    Unavailable(String, Option<Arc<Hold>>),
}

/// Keeps the order waiting for a node's lane until it is dropped.
#[derive(Debug)]
pub(super) struct Hold(pub(super) Lane);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.caught_up();
    }
}

/// What the task is told.
#[derive(Debug)]
pub(super) enum Command {
    Open(Entry),
    /// The logs that were opened so far are read from now on, together.
    Begin,
    Finish(u32),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) request: OpenLog,
    pub(super) source: Arc<Source>,
    pub(super) ended_tx: oneshot::Sender<NodeEnd>,
}

/// The way to the task; the logs are closed when it is dropped.
#[derive(Debug)]
pub(super) struct NodeLogs {
    commands_tx: mpsc::UnboundedSender<Command>,
    next: u32,
    _task: JoinSet<()>,
}

impl NodeLogs {
    /// No agent is started before a log is opened.
    pub(super) fn new(node: Node, settings: LogSettings, lane: Lane) -> Self {
        let (commands_tx, commands_rx) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(Reader::new(node, settings, lane, commands_rx).run());
        Self { commands_tx, next: 0, _task: task }
    }

    /// Opens a log; it is read after [`NodeLogs::begin`]. Answers its number and
    /// how to hear of its end.
    pub(super) fn open(&mut self, request: OpenLog, source: Arc<Source>) -> (u32, oneshot::Receiver<NodeEnd>) {
        let (ended_tx, ended_rx) = oneshot::channel();
        self.next += 1;
        let request = OpenLog { id: self.next, ..request };
        // A task that ended drops the sender, which says so.
        let _ = self.commands_tx.send(Command::Open(Entry { request, source, ended_tx }));
        (self.next, ended_rx)
    }

    /// Reads what was opened.
    pub(super) fn begin(&self) {
        let _ = self.commands_tx.send(Command::Begin);
    }

    /// A handle that says when a pod is gone.
    pub(super) fn finisher(&self, id: u32) -> Finisher {
        Finisher { id, commands_tx: self.commands_tx.clone() }
    }
}

/// Says that a log's pod is gone.
#[derive(Debug)]
pub(super) struct Finisher {
    id: u32,
    commands_tx: mpsc::UnboundedSender<Command>,
}

impl Finisher {
    pub(super) fn finish(&self) {
        let _ = self.commands_tx.send(Command::Finish(self.id));
    }
}

#[cfg(test)]
#[path = "on_node_tests.rs"]
mod tests;
