//! One connection to a running agent.
//!
//! A writing task turns jobs into frames, one transfer after the other; a
//! reading task hands each answer to the one who waits for it. The writer tells
//! the reader whom to expect before it sends, so no state is shared.

use super::AgentError;
use super::chunks::Cache;
use super::source::{Body, Part, Piece};
use super::transport::{Connection, Transport};
use crate::node::Node;
use crate::tail::tail_of;
use devloop_agent::protocol::{ByteString, Decoder, Message, Request, Response, VERSION, encode, pack};
use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// How long a request without a transfer may take, its wait in line included.
const PATIENCE: Duration = Duration::from_secs(15);
/// What a transfer may take on top for each of its bytes.
const SLOWEST_BYTES_PER_SECOND: u64 = 4 << 20;
/// As much as a pipe holds (pipe(7)).
const WRITE_BUFFER: usize = 64 * 1024;
/// So much of what the agent says on stderr is kept for the error message.
const STDERR_KEPT: usize = 2048;

/// A running agent; it ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Agent {
    inner: Arc<Inner>,
}

struct Inner {
    job_tx: mpsc::Sender<Job>,
    ended_rx: watch::Receiver<Option<String>>,
    patience: Duration,
    /// What was sent of large files, to send less of their next versions.
    sent: Mutex<Cache>,
    /// Aborted when dropped.
    _tasks: JoinSet<()>,
    /// Ends the agent when dropped.
    _guard: Option<Box<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Inner").field("ended", &*self.ended_rx.borrow()).finish_non_exhaustive()
    }
}

/// How a connection is used.
#[derive(Clone, Copy, Debug)]
struct Habits {
    patience: Duration,
    /// See [`Connection::compress`].
    compress: bool,
}

/// What the writing task is given.
#[derive(Debug)]
struct Job {
    request: Request,
    body: Option<Body>,
    reply_tx: oneshot::Sender<Reply>,
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) response: Response,
    pub(super) sent: Option<blake3::Hash>,
}

/// What the reading task is told before an answer can come.
#[derive(Debug)]
enum Notice {
    Expect(u32, oneshot::Sender<Reply>),
    Sent(u32, blake3::Hash),
}

impl Agent {
    /// Puts the agent on the node and starts it.
    ///
    /// # Errors
    /// When there is no usable agent, it doesn't start, or it is too old or new.
    pub async fn start(node: &Node) -> Result<Self, AgentError> {
        Self::start_by(node).await
    }

    /// Starts the agent in whichever way.
    ///
    /// # Errors
    /// When it doesn't start, or it is too old or new.
    pub async fn start_by(transport: &impl Transport) -> Result<Self, AgentError> {
        let Connection { reader, writer, stderr, guard, compress } = transport.open().await?;
        let agent = Self::over(reader, writer, Some(stderr), Some(guard), Habits { patience: PATIENCE, compress });
        agent.greet().await?;
        Ok(agent)
    }

    /// Speaks over any two streams.
    fn over<R, W>(
        reader: R,
        writer: W,
        stderr: Option<std::pin::Pin<Box<dyn AsyncRead + Send>>>,
        guard: Option<Box<dyn Any + Send + Sync>>,
        habits: Habits,
    ) -> Self
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (job_tx, job_rx) = mpsc::channel(64);
        let (notice_tx, notice_rx) = mpsc::unbounded_channel();
        let (ended_tx, ended_rx) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(error) = write_jobs(job_rx, notice_tx, writer, habits.compress).await {
                // The reader sees the end, too, and tells why.
                tracing::debug!(%error, "could not write to the agent");
            }
        });
        tasks.spawn(async move {
            let reason = read_responses(notice_rx, reader).await;
            let stderr = match stderr {
                Some(stderr) => tokio::time::timeout(Duration::from_millis(200), tail_of(Some(stderr), STDERR_KEPT))
                    .await
                    .unwrap_or_default()
                    .trim()
                    .to_owned(),
                None => String::new(),
            };
            let reason = if stderr.is_empty() { reason } else { stderr };
            // Nobody may be left to hear it.
            let _ = ended_tx.send(Some(reason));
        });
        Self {
            inner: Arc::new(Inner { job_tx, ended_rx, patience: habits.patience, sent: Mutex::default(), _tasks: tasks, _guard: guard }),
        }
    }

    async fn greet(&self) -> Result<(), AgentError> {
        match self.ask(Request::Hello { version: VERSION }, None).await?.response {
            Response::Hello { version: VERSION, build, arch } => {
                tracing::debug!(build, arch, "agent started");
                Ok(())
            }
            Response::Hello { version, .. } => Err(AgentError::Version { agent: version, client: VERSION }),
            other => Err(unexpected(&other)),
        }
    }

    /// What is known of files that were sent.
    pub(super) fn sent(&self) -> std::sync::MutexGuard<'_, Cache> {
        // A cache that a panic left half changed is at worst of less use.
        self.inner.sent.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Resolves when the agent has ended by itself, with the reason.
    pub async fn ended(&self) -> String {
        let mut ended_rx = self.inner.ended_rx.clone();
        match ended_rx.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    pub(super) async fn ask(&self, request: Request, body: Option<Body>) -> Result<Reply, AgentError> {
        let bytes = body.as_ref().map_or(0, Body::size);
        self.ask_about(request, body, bytes).await
    }

    /// For a request that keeps the agent busy with so many bytes.
    pub(super) async fn ask_about(&self, request: Request, body: Option<Body>, bytes: u64) -> Result<Reply, AgentError> {
        let patience = self.inner.patience + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND);
        let exchange = async {
            let (reply_tx, reply_rx) = oneshot::channel();
            self.inner.job_tx.send(Job { request, body, reply_tx }).await.ok()?;
            reply_rx.await.ok()
        };
        match tokio::time::timeout(patience, exchange).await {
            Ok(Some(Reply { response: Response::Error { kind, message }, .. })) => Err(AgentError::Refused { kind, message }),
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => {
                let reason = tokio::time::timeout(Duration::from_secs(1), self.ended()).await;
                Err(AgentError::Ended(reason.unwrap_or_default()))
            }
            Err(_) => Err(AgentError::TimedOut(patience)),
        }
    }
}

async fn write_jobs<W: AsyncWrite + Unpin>(
    mut job_rx: mpsc::Receiver<Job>,
    notice_tx: mpsc::UnboundedSender<Notice>,
    writer: W,
    compress: bool,
) -> io::Result<()> {
    // A small file and its announcement leave as one: over a network, the second
    // of two small writes would wait for the first to be acknowledged.
    let mut writer = BufWriter::with_capacity(WRITE_BUFFER, writer);
    let mut id = 0_u32;
    loop {
        let job = match job_rx.try_recv() {
            Ok(job) => job,
            // All that waited is on its way: of many small files, many at once.
            Err(_) => {
                writer.flush().await?;
                match job_rx.recv().await {
                    Some(job) => job,
                    None => break,
                }
            }
        };
        let Job { request, body, reply_tx } = job;
        id = id.wrapping_add(1);
        if notice_tx.send(Notice::Expect(id, reply_tx)).is_err() {
            return Ok(());
        }
        let mut sender = Sender { id, compress, writer: &mut writer, frame: Vec::with_capacity(1024) };
        match body {
            None => sender.send(request).await?,
            Some(body) => sender.transfer(request, body, &notice_tx).await?,
        }
    }
    writer.shutdown().await
}

struct Sender<'a, W> {
    id: u32,
    compress: bool,
    writer: &'a mut W,
    frame: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> Sender<'_, W> {
    async fn send(&mut self, request: Request) -> io::Result<()> {
        self.frame.clear();
        encode(&Message { id: self.id, body: request }, &mut self.frame).map_err(io::Error::other)?;
        self.writer.write_all(&self.frame).await
    }

    /// Sends a file, or takes it back when it is not what it was any more.
    async fn transfer(&mut self, request: Request, mut body: Body, notice_tx: &mpsc::UnboundedSender<Notice>) -> io::Result<()> {
        // The reader hears of the hash before the agent can answer. Nobody is
        // left to tell when it is gone; then the next write fails, too.
        let id = self.id;
        let conclude = |hash: blake3::Hash| drop(notice_tx.send(Notice::Sent(id, hash)));
        if body.size() == 0 {
            // An empty file has no Data: the announcement is all there is.
            conclude(blake3::hash(b""));
            return self.send(request).await;
        }
        self.send(request).await?;
        loop {
            match body.next().await {
                None => return self.send(Request::AbortFile).await,
                Some(Piece { part, last: None }) => self.part(part).await?,
                Some(Piece { part, last: Some(hash) }) => {
                    conclude(hash);
                    return self.part(part).await;
                }
            }
        }
    }

    async fn part(&mut self, part: Part) -> io::Result<()> {
        match part {
            Part::Copy { offset, length } => self.send(Request::Copy { offset, length }).await,
            Part::Bytes(bytes) => {
                let packed = if self.compress { pack(&bytes) } else { None };
                match packed {
                    Some(packed) => {
                        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
                        self.send(Request::Packed { length, bytes: ByteString(packed) }).await
                    }
                    None => self.send(Request::Data { bytes: ByteString(bytes) }).await,
                }
            }
        }
    }
}

/// Hands answers over until the stream ends; answers why it did.
async fn read_responses<R: AsyncRead + Unpin>(mut notice_rx: mpsc::UnboundedReceiver<Notice>, mut reader: R) -> String {
    let mut waiting: HashMap<u32, (oneshot::Sender<Reply>, Option<blake3::Hash>)> = HashMap::new();
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match reader.read(&mut buffer).await {
            Ok(0) => return String::new(),
            Ok(count) => count,
            Err(error) => return error.to_string(),
        };
        decoder.push(&buffer[..count]);
        loop {
            let message: Message<Response> = match decoder.pop() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => return spoken(&buffer[..count]).unwrap_or_else(|| error.to_string()),
            };
            // Told before the request was sent, so it is there by now.
            while let Ok(notice) = notice_rx.try_recv() {
                match notice {
                    Notice::Expect(id, reply_tx) => {
                        waiting.insert(id, (reply_tx, None));
                    }
                    Notice::Sent(id, hash) => {
                        if let Some((_, sent)) = waiting.get_mut(&id) {
                            *sent = Some(hash);
                        }
                    }
                }
            }
            match waiting.remove(&message.id) {
                // Whoever gave up waiting doesn't want it.
                Some((reply_tx, sent)) => drop(reply_tx.send(Reply { response: message.body, sent })),
                None => tracing::debug!(?message, "an answer that nobody waits for"),
            }
        }
    }
}

/// What came instead of an answer, if it is a sentence: of an engine, perhaps,
/// that could not start the agent and says so in its place.
fn spoken(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(&bytes[..bytes.len().min(STDERR_KEPT)]).ok()?.trim();
    let is_text = !text.is_empty() && text.chars().all(|character| !character.is_control() || character.is_whitespace());
    is_text.then(|| text.to_owned())
}

pub(super) fn unexpected(response: &Response) -> AgentError {
    AgentError::Unexpected(format!("{response:?}"))
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
