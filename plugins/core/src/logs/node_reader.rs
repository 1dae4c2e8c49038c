//! One agent reads all of a node's containers and sends their lines in one order.
//! A task owns the connection to it: when it breaks, another agent goes on where
//! the last line was.

use super::line::at_nanosecond;
use super::on_node::{Command, Entry, Hold, NodeEnd};
use super::outbox::Outbox;
use super::queue::Lane;
use super::spill::WORTH_SAYING;
use super::{LogEvent, LogLine, Origin};
use crate::agent::AgentError;
use crate::node::{Node, NodeProcess};
use devloop_agent::protocol::logs::{LINE_LIMIT, LogReply, LogRequest, LogSettings, Loss, OpenLog, Piece, Position, lines};
use devloop_agent::protocol::{Decoder, encode};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Pauses before another agent is started.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A request takes some 200 bytes, and at most a kilobyte.
const OPENED_AT_ONCE: usize = 1000;
/// As much as a pipe holds after it was widened, about.
const READ_BUFFER: usize = 256 * 1024;

struct Log {
    entry: Entry,
    position: Option<Position>,
    is_finishing: bool,
    /// Whether it was said that it is read.
    is_open: bool,
    /// What came of a line that isn't whole yet.
    part: Vec<u8>,
    /// So many lines came.
    count: u64,
}

impl Log {
    /// What another agent is asked for.
    fn again(&mut self) -> OpenLog {
        self.part.clear();
        let request = self.entry.request.clone();
        match self.position {
            Some(position) => {
                let head = request.head.map(|head| head.saturating_sub(self.count));
                OpenLog { resume: Some(position), head, since: None, ..request }
            }
            None => request,
        }
    }
}

/// Owns the connection.
pub(super) struct Reader {
    node: Node,
    settings: LogSettings,
    outbox: Outbox,
    commands_rx: mpsc::UnboundedReceiver<Command>,
    logs: BTreeMap<u32, Log>,
    /// Opened, and not read yet.
    fresh: Vec<u32>,
    /// The logs whose history is still to come; none before the first are read.
    history: Option<Vec<u32>>,
    was_connected: bool,
    is_away: bool,
    /// So much was said to wait for the output.
    held_said: u64,
}

/// Why a connection ended.
enum Ending {
    /// There is nothing to do any more.
    Done,
    Failed(String),
}

impl Reader {
    pub(super) fn new(node: Node, settings: LogSettings, lane: Lane, commands_rx: mpsc::UnboundedReceiver<Command>) -> Self {
        Self {
            node,
            settings,
            outbox: Outbox::new(lane),
            commands_rx,
            logs: BTreeMap::new(),
            fresh: Vec::new(),
            history: None,
            was_connected: false,
            is_away: false,
            held_said: 0,
        }
    }

    /// Reads until nobody wants it any more.
    pub(super) async fn run(mut self) {
        let mut failures = 0;
        loop {
            // Nothing is started for nobody.
            while self.logs.is_empty() || self.history.is_none() {
                match self.commands_rx.recv().await {
                    Some(Command::Begin) => {
                        let fresh = std::mem::take(&mut self.fresh);
                        self.history.get_or_insert(fresh);
                        self.has_caught_up();
                    }
                    Some(command) => self.note(command),
                    None => return,
                }
            }
            let connected_at = tokio::time::Instant::now();
            let reason = match self.connect().await {
                Ok(process) => match self.converse(process).await {
                    Ending::Done => return,
                    Ending::Failed(reason) => reason,
                },
                Err(error) => crate::telemetry::error_chain(&error),
            };
            tracing::debug!(node = self.node.name(), reason, "no agent reads the logs");
            if !self.was_connected {
                self.give_up(&reason);
                continue;
            }
            if !std::mem::replace(&mut self.is_away, true) {
                let origin = Origin::Node(self.node.name().to_owned());
                self.outbox.lane().send(vec![LogEvent::Interrupted(origin, reason)]).await;
            }
            failures = if connected_at.elapsed() > LONGEST_PAUSE { 0 } else { failures + 1_u32 };
            let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.outbox.lane().closed() => return,
            }
        }
    }

    async fn connect(&self) -> Result<NodeProcess, AgentError> {
        let path = crate::agent::install_on(&self.node).await?;
        self.node.start(&path, &["logs"]).await.map_err(AgentError::Start)
    }

    /// No agent can be had: whoever opened a log has another way.
    fn give_up(&mut self, reason: &str) {
        let hold = Arc::new(Hold(self.outbox.lane().clone()));
        for (_, log) in std::mem::take(&mut self.logs) {
            let _ = log.entry.ended_tx.send(NodeEnd::Unavailable(reason.to_owned(), Some(Arc::clone(&hold))));
        }
        self.fresh.clear();
        self.history = None;
    }

    fn note(&mut self, command: Command) {
        match command {
            Command::Open(entry) => {
                let id = entry.request.id;
                self.logs.insert(id, Log { entry, position: None, is_finishing: false, is_open: false, part: Vec::new(), count: 0 });
                self.fresh.push(id);
            }
            Command::Finish(id) => {
                if let Some(log) = self.logs.get_mut(&id) {
                    log.is_finishing = true;
                }
            }
            Command::Begin => {}
        }
    }

    async fn converse(&mut self, process: NodeProcess) -> Ending {
        let NodeProcess { mut stdin, mut stdout, stderr, ended: _ended } = process;
        let mut frames = Vec::new();
        self.ask(&mut frames, &LogRequest::Start(self.settings.clone()));
        self.fresh.clear();
        // Another agent has a credit of its own.
        self.outbox.forget_taken();
        let all: Vec<OpenLog> = self.logs.values_mut().map(Log::again).collect();
        self.open_all(&mut frames, all);
        for (id, log) in &self.logs {
            if log.is_finishing {
                self.ask(&mut frames, &LogRequest::Finish { id: *id });
            }
        }
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; READ_BUFFER];
        loop {
            // What has room goes; the rest waits while all else is heard.
            let waits = self.outbox.pass_on();
            if let Some(bytes) = self.outbox.taken() {
                self.ask(&mut frames, &LogRequest::Taken { bytes });
            }
            if !frames.is_empty() {
                let written = stdin.write_all(&frames).await;
                frames.clear();
                if let Err(error) = written {
                    return Ending::Failed(failure(stderr, error.to_string()).await);
                }
            }
            let lane = self.outbox.lane().clone();
            tokio::select! {
                command = self.commands_rx.recv() => {
                    let Some(command) = command else { return Ending::Done };
                    self.command(command, &mut frames);
                }
                room = room_for(&lane, waits), if waits.is_some() => {
                    let Some(room) = room else { return Ending::Done };
                    self.outbox.put(room);
                }
                read = stdout.read(&mut buffer) => match read {
                    Ok(0) => return Ending::Failed(failure(stderr, "the agent ended".to_owned()).await),
                    Ok(length) => {
                        decoder.push(&buffer[..length]);
                        loop {
                            match decoder.pop::<LogReply>() {
                                Ok(Some(reply)) => if let Err(reason) = self.reply(reply) {
                                    return Ending::Failed(reason);
                                },
                                Ok(None) => break,
                                Err(error) => return Ending::Failed(error.to_string()),
                            }
                        }
                    }
                    Err(error) => return Ending::Failed(error.to_string()),
                },
                () = lane.closed() => return Ending::Done,
            }
        }
    }

    fn ask(&self, frames: &mut Vec<u8>, request: &LogRequest) {
        if let Err(error) = encode(request, frames) {
            tracing::warn!(%error, "a request is too long for the agent");
        }
    }

    /// In as few frames as they fit into.
    fn open_all(&self, frames: &mut Vec<u8>, requests: Vec<OpenLog>) {
        requests.chunks(OPENED_AT_ONCE).for_each(|some| self.ask(frames, &LogRequest::Open(some.to_vec())));
    }

    fn command(&mut self, command: Command, frames: &mut Vec<u8>) {
        match command {
            Command::Begin => {
                let fresh = std::mem::take(&mut self.fresh);
                let requests: Vec<OpenLog> = fresh.iter().filter_map(|id| self.logs.get(id)).map(|log| log.entry.request.clone()).collect();
                self.open_all(frames, requests);
            }
            Command::Finish(id) if self.logs.contains_key(&id) => {
                self.note(command);
                // One that isn't asked for yet is finished right away.
                if !self.fresh.contains(&id) {
                    self.ask(frames, &LogRequest::Finish { id });
                }
            }
            command => self.note(command),
        }
    }

    fn reply(&mut self, reply: LogReply) -> Result<(), String> {
        self.was_connected |= !matches!(reply, LogReply::Failed { .. });
        if std::mem::take(&mut self.is_away) {
            self.outbox.say(LogEvent::Restored(Origin::Node(self.node.name().to_owned())));
        }
        match reply {
            LogReply::Lines { bytes, positions } => {
                for piece in lines(&bytes.0) {
                    self.piece(piece.map_err(|error| error.to_string())?);
                }
                for (id, position) in positions {
                    if let Some(log) = self.logs.get_mut(&id) {
                        log.position = Some(position);
                    }
                }
                self.outbox.mark_taken(bytes.0.len() as u64);
            }
            LogReply::CaughtUp { id } => {
                self.opened(id);
                self.caught_up(id);
            }
            LogReply::Gap { id, loss } => {
                self.opened(id);
                if let Some(log) = self.logs.get(&id) {
                    self.outbox.say(LogEvent::Gap(Arc::clone(&log.entry.source), describe(loss)));
                }
            }
            LogReply::Ended { id } => self.end(id, NodeEnd::Read),
            LogReply::Missing { id, reason } => self.end(id, NodeEnd::Missing(reason)),
            LogReply::Held { bytes } => {
                // Not each time that it changes.
                let is_end = bytes == 0 && self.held_said > 0;
                if is_end || bytes >= (self.held_said * 2).max(WORTH_SAYING) {
                    self.held_said = bytes;
                    self.outbox.lane().say_held(format!("node {}", self.node.name()), bytes);
                }
            }
            LogReply::Failed { message } => return Err(message),
        }
        Ok(())
    }

    /// There are files of a log.
    fn opened(&mut self, id: u32) {
        if let Some(log) = self.logs.get_mut(&id)
            && !std::mem::replace(&mut log.is_open, true)
            && self.settings.follow
        {
            let source = Arc::clone(&log.entry.source);
            self.outbox.say(LogEvent::Opened(source));
        }
    }

    fn piece(&mut self, piece: Piece<'_>) {
        if self.logs.get(&piece.id).is_some_and(|log| !log.is_open) {
            self.opened(piece.id);
        }
        let Some(log) = self.logs.get_mut(&piece.id) else { return };
        if !piece.is_last {
            log.part.extend_from_slice(piece.bytes);
            return;
        }
        log.count += 1;
        let message = if log.part.is_empty() {
            piece.bytes.to_vec()
        } else {
            let mut message = std::mem::take(&mut log.part);
            message.extend_from_slice(piece.bytes);
            message.truncate(LINE_LIMIT);
            message
        };
        let source = Arc::clone(&log.entry.source);
        self.outbox.say(LogEvent::Line(LogLine { source, timestamp: at_nanosecond(piece.timestamp), message, cut: piece.cut }));
    }

    fn end(&mut self, id: u32, end: NodeEnd) {
        if let Some(log) = self.logs.remove(&id) {
            if matches!(end, NodeEnd::Read) && self.settings.follow {
                self.outbox.say(LogEvent::Closed(log.entry.source));
            }
            self.outbox.end(log.entry.ended_tx, end);
        }
        self.caught_up(id);
    }

    fn caught_up(&mut self, id: u32) {
        let Some(history) = &mut self.history else { return };
        let before = history.len();
        history.retain(|waiting| *waiting != id);
        if history.len() < before {
            self.has_caught_up();
        }
    }

    fn has_caught_up(&mut self) {
        if self.history.as_ref().is_some_and(Vec::is_empty) {
            self.outbox.caught_up();
        }
    }
}

async fn room_for(lane: &Lane, weight: Option<u32>) -> Option<OwnedSemaphorePermit> {
    match weight {
        Some(weight) => lane.room(weight).await,
        None => std::future::pending().await,
    }
}

/// What the agent said last, if anything.
async fn failure(stderr: std::pin::Pin<Box<dyn tokio::io::AsyncRead + Send>>, otherwise: String) -> String {
    let said = tokio::time::timeout(FIRST_PAUSE, crate::tail::tail_of(Some(stderr), 2048)).await.unwrap_or_default();
    let said = said.trim().trim_start_matches("Error: ");
    if said.is_empty() { otherwise } else { said.to_owned() }
}

fn describe(loss: Loss) -> String {
    match loss {
        Loss::Rotated { until } => {
            let until = until.and_then(|until| Timestamp::from_nanosecond(i128::from(until)).ok());
            let until = until.map_or_else(String::new, |until| format!(" up to {until}"));
            format!("lines{until} are lost: the files that had them were deleted while the node's agent was away")
        }
        Loss::Instances { count: 1 } => "the container restarted; the log of one instance is gone".to_owned(),
        Loss::Instances { count } => format!("the container restarted; the logs of {count} instances are gone"),
        Loss::Dropped { bytes } => {
            format!(
                "{bytes} bytes of lines are lost: they were deleted on the node before the output took them, and more than --spill waited"
            )
        }
        Loss::Damaged { bytes: 0 } => "lines may be missing: a compressed file of the log is damaged".to_owned(),
        Loss::Damaged { bytes } => format!("{bytes} bytes of the log's file are no lines"),
        Loss::Truncated => "lines may be missing: the log's file was made shorter".to_owned(),
    }
}
