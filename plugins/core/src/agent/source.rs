//! A local file on its way to an agent: read once, in a thread of its own, at
//! most a few pieces ahead of the connection.

use super::AgentError;
use super::chunks::{Chunker, Chunks};
use devloop_agent::protocol::MAX_CHUNK;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::sync::{mpsc, oneshot};

/// A smaller file is sent as a whole: that takes less time than to compare it.
const SMALLEST_WITH_CHUNKS: u64 = 128 * 1024;
/// So many pieces wait for the connection, each at most [`MAX_CHUNK`] long.
const PIECES_AHEAD: usize = 4;
/// The agent begins to copy while the rest of a long stretch is still compared.
const LONGEST_COPY: u64 = 1 << 20;
/// So much of a file is looked at at once.
const WINDOW: usize = 1 << 20;

/// The bytes of a transfer: a file as it was when it was opened.
#[derive(Debug)]
pub(super) struct Body {
    size: u64,
    piece_rx: mpsc::Receiver<Piece>,
}

/// The next bytes of a transfer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) part: Part,
    /// With the last one: the hash of the whole file.
    pub(super) last: Option<blake3::Hash>,
}

/// Some bytes, or where the agent has them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Bytes(Vec<u8>),
    Copy { offset: u64, length: u64 },
}

/// Differs when a file was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: (i64, i64),
}

type Opened = (Body, Metadata, Option<oneshot::Receiver<Chunks>>);

impl Body {
    /// Opens a file and begins to read it. With the chunks of a version that the
    /// agent has, only what is new comes as bytes. The third of the answer is
    /// there for large files, and tells their chunks when all was read. The hash of the
    /// file is taken from who knows it already.
    pub(super) async fn open(path: &Path, base: Option<Chunks>, hash: Option<blake3::Hash>) -> Result<Opened, AgentError> {
        let path = path.to_owned();
        blocking(move || open(&path, base, hash)).await
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The next piece; `None` when the file is not any more what it was. The
    /// last one comes only when it still is.
    pub(super) async fn next(&mut self) -> Option<Piece> {
        self.piece_rx.recv().await
    }
}

/// The hash of a file.
pub(super) async fn hash(path: &Path) -> Result<blake3::Hash, AgentError> {
    let path = path.to_owned();
    blocking(move || {
        let mut hasher = blake3::Hasher::new();
        let mut file = File::open(&path).map_err(|error| unreadable(&path, error))?;
        io::copy(&mut file, &mut hasher).map_err(|error| unreadable(&path, error))?;
        Ok(hasher.finalize())
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, AgentError> + Send + 'static) -> Result<T, AgentError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(AgentError::Source { path: PathBuf::new(), source: io::Error::other(error) }))
}

fn unreadable(path: &Path, source: io::Error) -> AgentError {
    match source.kind() {
        io::ErrorKind::NotFound => AgentError::SourceChanged(path.to_owned()),
        _ => AgentError::Source { path: path.to_owned(), source },
    }
}

fn open(path: &Path, base: Option<Chunks>, hash: Option<blake3::Hash>) -> Result<Opened, AgentError> {
    let failed = |error| unreadable(path, error);
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(AgentError::SourceChanged(path.to_owned()));
    }
    let stamp = Stamp::new(&metadata);
    let size = stamp.size;
    let (piece_tx, piece_rx) = mpsc::channel(PIECES_AHEAD);
    let body = Body { size, piece_rx };
    if size < SMALLEST_WITH_CHUNKS {
        if size > 0
            && let Some(bytes) = read_small(&mut file, stamp)
        {
            let last = Some(blake3::hash(&bytes));
            // There is room for the first, and if nobody wants it, so be it.
            let _ = piece_tx.try_send(Piece { part: Part::Bytes(bytes), last });
        }
        return Ok((body, metadata, None));
    }
    let (chunks_tx, chunks_rx) = oneshot::channel();
    let reader = Reader { file, stamp, piece_tx, waiting: None, hash };
    tokio::task::spawn_blocking(move || {
        if let Some(chunks) = reader.run(base) {
            // Nobody is left to hear it if the transfer failed.
            let _ = chunks_tx.send(chunks);
        }
    });
    Ok((body, metadata, Some(chunks_rx)))
}

fn read_small(file: &mut File, stamp: Stamp) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(stamp.size).ok()?];
    file.read_exact(&mut bytes).ok()?;
    (Stamp::new(&file.metadata().ok()?) == stamp).then_some(bytes)
}

/// Reads a large file, in the end or until nobody wants more of it.
struct Reader {
    file: File,
    stamp: Stamp,
    piece_tx: mpsc::Sender<Piece>,
    /// Held back, since the last piece is a special one; and to join neighbours.
    waiting: Option<Part>,
    /// That of the whole, where it is known.
    hash: Option<blake3::Hash>,
}

impl Reader {
    /// The chunks of the file; `None` if it changed, or its receiver is gone.
    fn run(mut self, base: Option<Chunks>) -> Option<Chunks> {
        let mut whole = blake3::Hasher::new();
        let mut chunker = Chunker::new(base);
        // One buffer, filled behind what is left in it of the window before.
        let mut window = vec![0; WINDOW];
        let mut filled = 0;
        let mut left = self.stamp.size;
        while left > 0 || filled > 0 {
            let wanted = usize::try_from(left).unwrap_or(WINDOW).min(WINDOW - filled);
            self.file.read_exact(&mut window[filled..filled + wanted]).ok()?;
            filled += wanted;
            left -= wanted as u64;
            let mut done = 0;
            while let Some(chunk) = chunker.next(&window[done..filled], left == 0) {
                let bytes = &window[done..done + chunk.length];
                if self.hash.is_none() {
                    whole.update(bytes);
                }
                self.add(chunk.found, bytes)?;
                done += chunk.length;
            }
            window.copy_within(done..filled, 0);
            filled -= done;
        }
        if Stamp::new(&self.file.metadata().ok()?) != self.stamp {
            return None;
        }
        let part = self.waiting.take()?;
        let hash = self.hash.unwrap_or_else(|| whole.finalize());
        self.piece_tx.blocking_send(Piece { part, last: Some(hash) }).ok()?;
        Some(chunker.finish())
    }

    fn add(&mut self, found: Option<u64>, bytes: &[u8]) -> Option<()> {
        match (&mut self.waiting, found) {
            (Some(Part::Copy { offset, length }), Some(at)) if *offset + *length == at && *length < LONGEST_COPY => {
                *length += bytes.len() as u64
            }
            (Some(Part::Bytes(waiting)), None) if waiting.len() + bytes.len() <= MAX_CHUNK => waiting.extend_from_slice(bytes),
            _ => {
                let part = match found {
                    Some(offset) => Part::Copy { offset, length: bytes.len() as u64 },
                    None => Part::Bytes(bytes.to_vec()),
                };
                if let Some(part) = self.waiting.replace(part) {
                    self.piece_tx.blocking_send(Piece { part, last: None }).ok()?;
                }
            }
        }
        Some(())
    }
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        Self { size: metadata.size(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}
