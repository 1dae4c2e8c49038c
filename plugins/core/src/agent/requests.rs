//! What an agent can be asked, one method each.

use super::chunks::{Chunks, Key};
use super::connection::{Agent, Reply, unexpected};
use super::source::{self, Body};
use super::{AgentError, ErrorKind, Located, ProcessId, Swapped, Undone};
use devloop_agent::protocol::{ByteString, Expected, Failed, MAX_FRAME, Request, Response};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use tokio::sync::oneshot;

/// So many bytes of files are compared by one request, lest a long one keep
/// others waiting.
const CHECKED_AT_ONCE: u64 = 64 << 20;
/// How much there is to put back is not known here.
const MUCH_TO_UNDO: u64 = 256 << 20;
/// An expected file without its path takes less than this in a frame.
const ENTRY_OVERHEAD: usize = 80;

/// What came of writing a file into containers.
#[derive(Debug)]
pub struct Written {
    /// The hash of what was written.
    pub blake3: blake3::Hash,
    /// Why some don't have it ([`AgentError::Refused`]); all others do.
    pub failed: Vec<(ProcessId, AgentError)>,
}

/// A file in a container, as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckEntry {
    /// The absolute path in the container.
    pub path: String,
    /// The size in bytes; of a link it is ignored.
    pub size: u64,
    /// The hash of its content; without, it is not looked at.
    pub blake3: Option<blake3::Hash>,
    /// The permission bits (`0o777`); without, they are not looked at.
    pub mode: Option<u32>,
    /// What the symlink says, where one is expected.
    pub link: Option<String>,
}

impl Agent {
    /// Finds the main process of a container, by the id in the pod's status.
    ///
    /// # Errors
    /// When there is no such container or it has no process.
    pub async fn locate(&self, container_id: &str) -> Result<Located, AgentError> {
        match self.ask(Request::Locate { container_id: container_id.to_owned() }, None).await?.response {
            Response::Located(located) => Ok(located),
            other => Err(unexpected(&other)),
        }
    }

    /// Copies a local file into the container of each process, in place of what
    /// is there. A container sees the old or the new file, never a part. It goes
    /// over the connection once, and of a large file that was sent before only
    /// what is new.
    ///
    /// # Errors
    /// [`AgentError::SourceChanged`] when the file was written to meanwhile; the
    /// containers' are untouched then.
    pub async fn put_file(&self, processes: &[ProcessId], source: &Path, destination: &str) -> Result<Written, AgentError> {
        let Some(first) = processes.first() else {
            return Ok(Written { blake3: source::hash(source).await?, failed: Vec::new() });
        };
        let announce = |size, metadata: &std::fs::Metadata, base| Request::PutFile {
            processes: processes.to_vec(),
            path: destination.into(),
            // As in an image: the owner's umask is not the container's business.
            mode: Some(if metadata.mode() & 0o111 == 0 { 0o644 } else { 0o755 }),
            size,
            modified: Some((metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or_default())),
            base,
        };
        let key = Key::new(*first, destination);
        let Transferred { reply, chunks } = self.transfer(&key, source, None, announce).await?;
        match reply {
            Reply { response: Response::Written { blake3: Some(written), failed }, sent: Some(sent) } if *sent.as_bytes() == written => {
                self.sent().remember(key, sent, chunks);
                Ok(Written { blake3: sent, failed: refusals(failed) })
            }
            Reply { response: Response::Written { blake3: Some(_), .. }, .. } => Err(AgentError::Damaged(source.to_owned())),
            Reply { response: Response::Written { blake3: None, failed }, .. } => {
                Ok(Written { blake3: source::hash(source).await?, failed: refusals(failed) })
            }
            Reply { response: Response::Aborted, .. } => Err(AgentError::SourceChanged(source.to_owned())),
            other => Err(unexpected(&other.response)),
        }
    }

    /// Makes a symlink in each container, in place of a file or link; answers
    /// where that failed.
    ///
    /// # Errors
    /// When the agent can't be asked.
    pub async fn put_link(
        &self,
        processes: &[ProcessId],
        target: &str,
        destination: &str,
    ) -> Result<Vec<(ProcessId, AgentError)>, AgentError> {
        self.change(Request::PutLink { processes: processes.to_vec(), target: target.into(), path: destination.into() }).await
    }

    /// Removes a file or folder from each container, and up to so many folders
    /// above it that are empty then; answers where that failed. It need not be
    /// there.
    ///
    /// # Errors
    /// When the agent can't be asked.
    pub async fn remove(
        &self,
        processes: &[ProcessId],
        path: &str,
        empty_parents: u32,
    ) -> Result<Vec<(ProcessId, AgentError)>, AgentError> {
        self.change(Request::Remove { processes: processes.to_vec(), path: path.into(), empty_parents }).await
    }

    /// Compares files of a container with what they should be; answers the
    /// indices of those that are missing or otherwise, in order.
    ///
    /// # Errors
    /// When the process is gone or the agent can't be asked.
    pub async fn check(&self, process: ProcessId, entries: &[CheckEntry]) -> Result<Vec<usize>, AgentError> {
        let mut differing = Vec::new();
        let mut rest = entries;
        while !rest.is_empty() {
            let start = entries.len() - rest.len();
            let (now, later) = rest.split_at(one_check(rest));
            rest = later;
            let bytes = now.iter().filter(|entry| entry.blake3.is_some()).map(|entry| entry.size).sum();
            let request = Request::Check { process, entries: now.iter().map(Expected::from).collect() };
            match self.ask_about(request, None, bytes).await?.response {
                Response::Differing { indices } if indices.iter().all(|index| (*index as usize) < now.len()) => {
                    differing.extend(indices.into_iter().map(|index| start + index as usize));
                }
                other => return Err(unexpected(&other)),
            }
        }
        Ok(differing)
    }

    /// Sends a signal to a process.
    ///
    /// # Errors
    /// When it is gone, or there is no such signal.
    pub async fn signal(&self, process: ProcessId, signal: i32) -> Result<(), AgentError> {
        self.change(Request::Signal { process, signal }).await.map(drop)
    }

    /// Executes the program of a process again, in place: for interpreters, whose
    /// source changed. Of the process and its parents in the container the
    /// outermost is restarted that has a changed path among its arguments; else
    /// the process itself. Its child processes are ended. The answer names the
    /// one that was restarted: if it is another, locate the container again.
    ///
    /// # Errors
    /// When it can't be done; the old process then runs on.
    pub async fn restart(&self, process: ProcessId, changed: &[String]) -> Result<Swapped, AgentError> {
        let changed = changed.iter().map(|path| ByteString::from(path.as_str())).collect();
        swapped(self.ask(Request::Restart { process, changed }, None).await?.response)
    }

    /// Replaces a running process by the program in the local file `source`, of this
    /// hash, which becomes `executable` in the container. Arguments, environment and
    /// pid stay; its child processes are ended.
    ///
    /// # Errors
    /// When it can't be done; the old process then runs on untouched.
    pub async fn swap(&self, process: ProcessId, source: &Path, hash: blake3::Hash, executable: &str) -> Result<Swapped, AgentError> {
        let announce = |size, _: &std::fs::Metadata, base| Request::Swap { process, executable: executable.into(), argv: None, size, base };
        let key = Key::new(process, executable);
        let Transferred { reply: Reply { response, sent }, chunks } = self.transfer(&key, source, Some(hash), announce).await?;
        if response == Response::Aborted {
            return Err(AgentError::SourceChanged(source.to_owned()));
        }
        let swapped = swapped(response)?;
        if let Some(sent) = sent {
            self.sent().remember(key, sent, chunks);
        }
        Ok(swapped)
    }

    /// Brings back the program that the last swap replaced.
    ///
    /// # Errors
    /// When there is none or the process is gone.
    pub async fn rollback(&self, process: ProcessId) -> Result<Swapped, AgentError> {
        swapped(self.ask(Request::Rollback { process }, None).await?.response)
    }

    /// Whether a process still runs.
    ///
    /// # Errors
    /// When the agent can't be asked.
    pub async fn alive(&self, process: ProcessId) -> Result<bool, AgentError> {
        match self.ask(Request::Alive { process }, None).await?.response {
            Response::Alive { running } => Ok(running),
            other => Err(unexpected(&other)),
        }
    }

    /// Puts back all that was changed in the container of a process, by this
    /// session or an earlier one that was killed.
    ///
    /// # Errors
    /// When something could not be put back; the record stays then.
    pub async fn undo(&self, process: ProcessId) -> Result<Undone, AgentError> {
        match self.ask_about(Request::Undo { process }, None, MUCH_TO_UNDO).await?.response {
            Response::Undone(undone) => Ok(undone),
            other => Err(unexpected(&other)),
        }
    }

    /// Leaves the container of a process as it is now: the record of what it was
    /// is dropped.
    ///
    /// # Errors
    /// When the record can't be removed.
    pub async fn keep(&self, process: ProcessId) -> Result<(), AgentError> {
        self.change(Request::Keep { process }).await.map(drop)
    }

    async fn change(&self, request: Request) -> Result<Vec<(ProcessId, AgentError)>, AgentError> {
        match self.ask(request, None).await?.response {
            Response::Done { failed } => Ok(refusals(failed)),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends what is new of a file; all of it when the agent has not what it
    /// should have.
    async fn transfer(
        &self,
        key: &Key,
        source: &Path,
        hash: Option<blake3::Hash>,
        announce: impl Fn(u64, &std::fs::Metadata, Option<[u8; 32]>) -> Request,
    ) -> Result<Transferred, AgentError> {
        let mut known = self.sent().take(key);
        loop {
            let based = known.is_some();
            let base = known.as_ref().map(|(hash, _)| *hash.as_bytes());
            let (body, metadata, chunks_rx) = Body::open(source, known.take().map(|(_, chunks)| chunks), hash).await?;
            let request = announce(body.size(), &metadata, base);
            match self.ask(request, Some(body)).await {
                Err(AgentError::Refused { kind: ErrorKind::BaseChanged, message }) if based => {
                    tracing::debug!(path = %source.display(), message, "sent as a whole");
                }
                reply => return Ok(Transferred { reply: reply?, chunks: made(chunks_rx).await }),
            }
        }
    }
}

/// An answer to a transfer, and what the file was made of.
struct Transferred {
    reply: Reply,
    chunks: Option<Chunks>,
}

async fn made(chunks_rx: Option<oneshot::Receiver<Chunks>>) -> Option<Chunks> {
    chunks_rx?.await.ok()
}

fn swapped(response: Response) -> Result<Swapped, AgentError> {
    match response {
        Response::Swapped(swapped) => Ok(swapped),
        other => Err(unexpected(&other)),
    }
}

fn refusals(failed: Vec<Failed>) -> Vec<(ProcessId, AgentError)> {
    failed.into_iter().map(|failed| (failed.process, AgentError::Refused { kind: failed.kind, message: failed.message })).collect()
}

/// How many of the entries one request takes: at least one.
fn one_check(entries: &[CheckEntry]) -> usize {
    let (mut room, mut bytes) = (MAX_FRAME / 2, 0_u64);
    let fits = |entry: &&CheckEntry| {
        let needed = ENTRY_OVERHEAD + entry.path.len() + entry.link.as_ref().map_or(0, String::len);
        let fits = needed <= room && bytes < CHECKED_AT_ONCE;
        room = room.saturating_sub(needed);
        bytes = bytes.saturating_add(entry.size);
        fits
    };
    entries.iter().take_while(fits).count().max(1)
}

impl From<&CheckEntry> for Expected {
    fn from(entry: &CheckEntry) -> Self {
        Self {
            path: entry.path.as_str().into(),
            size: entry.size,
            blake3: entry.blake3.map(|hash| *hash.as_bytes()),
            mode: entry.mode,
            link: entry.link.as_deref().map(ByteString::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, size: u64) -> CheckEntry {
        CheckEntry { path: path.to_owned(), size, blake3: None, mode: None, link: None }
    }

    #[test]
    fn a_check_is_split_by_what_fits_into_a_frame_and_by_bytes() {
        let many = vec![entry(&"x".repeat(1000), 1); 1000];
        let first = one_check(&many);
        assert!(first > 100 && first * 1000 < MAX_FRAME);
        let large = vec![entry("/a", 40 << 20); 5];
        assert_eq!(one_check(&large), 2);
        assert_eq!(one_check(&[entry("/a", u64::MAX), entry("/b", u64::MAX)]), 1);
        assert_eq!(one_check(&[entry(&"x".repeat(MAX_FRAME), 1)]), 1);
    }
}
