//! From file events to settled changes.
//!
//! A thread owns the `notify` watcher; it turns events into signs, lets them
//! settle, and reads the truth from the disk when it reports: a change says
//! only that a path is there with new content, or is not there any more.
//!
//! Symbolic links to files are followed, those to folders are not.

mod driver;
mod ignores;
mod index;
mod settle;

pub use ignores::Rules;

use crate::error::CommandError;
use driver::{Driver, Message};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tokio::sync::mpsc;

/// A file or folder to watch, with all below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WatchRoot {
    /// An absolute path. It may be missing as yet, if a folder above is there.
    pub path: PathBuf,
    /// What is ignored below it.
    pub rules: Rules,
}

impl WatchRoot {
    /// Source code: what `.gitignore` and `.devloopignore` leave.
    pub fn sources(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), rules: Rules::Sources }
    }

    /// What goes into an image: what `.dockerignore` leaves, too.
    pub fn content(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), rules: Rules::Content }
    }
}

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It is there; its content or permissions may be new.
    Modified,
    /// It was there and is no more.
    Removed,
}

/// One path that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path, below a root as the root was given.
    pub path: PathBuf,
    /// What became of it.
    pub kind: ChangeKind,
}

/// Changes that settled together.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Counts from 1.
    pub number: u64,
    /// Each path once, in order.
    pub changes: Vec<Change>,
    /// When the first event about them came.
    pub first_event: Instant,
    /// When they were found to be over.
    pub settled: Instant,
}

/// Why files can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Neither the root nor a folder above it is there.
    #[error("{} does not exist", .0.display())]
    NotFound(PathBuf),
    /// The kernel's limit of watched folders per user is reached.
    #[error("the system's limit of watched folders is reached at {}", .0.display())]
    TooManyFolders(PathBuf),
    /// The kernel's limit of watchers per user is reached.
    #[error("the system's limit of file watchers is reached")]
    TooManyWatchers,
    /// Anything else.
    #[error("could not watch {}", .path.display())]
    Other {
        /// What was to be watched.
        path: PathBuf,
        /// The library's reason.
        source: notify::Error,
    },
}

impl WatchError {
    fn new(path: &Path, source: notify::Error) -> Self {
        // inotify_init1(2): EMFILE for the limit of instances, or of open files.
        const EMFILE: i32 = 24;
        match &source.kind {
            notify::ErrorKind::MaxFilesWatch => Self::TooManyFolders(path.to_owned()),
            notify::ErrorKind::PathNotFound => Self::NotFound(path.to_owned()),
            notify::ErrorKind::Io(error) if error.raw_os_error() == Some(EMFILE) => Self::TooManyWatchers,
            _ => Self::Other { path: path.to_owned(), source },
        }
    }

    /// What the user can do.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::TooManyFolders(_) => Some(
                "raise it with `sudo sysctl fs.inotify.max_user_watches=1048576`, or list folders that need no watching in .devloopignore",
            ),
            Self::TooManyWatchers => Some("raise it with `sudo sysctl fs.inotify.max_user_instances=1024`"),
            Self::NotFound(_) | Self::Other { .. } => None,
        }
    }
}

impl From<WatchError> for CommandError {
    fn from(error: WatchError) -> Self {
        let hint = error.hint();
        let command = CommandError::new("could not watch for changes").caused_by(error);
        match hint {
            Some(hint) => command.with_hint(hint),
            None => command,
        }
    }
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    message_tx: std::sync::mpsc::Sender<Message>,
    thread: Option<std::thread::JoinHandle<()>>,
    failure: Arc<OnceLock<WatchError>>,
}

impl Watcher {
    /// Watches `roots`. Every change after the return is reported. The receiver
    /// ends when watching failed: see [`Watcher::failure`].
    ///
    /// # Errors
    /// When a root can't be watched.
    pub fn start(roots: Vec<WatchRoot>) -> Result<(Self, mpsc::Receiver<Generation>), WatchError> {
        let (message_tx, message_rx) = std::sync::mpsc::channel();
        let (generation_tx, generation_rx) = mpsc::channel(64);
        let failure = Arc::new(OnceLock::new());
        let driver = Driver::start(roots, message_tx.clone(), message_rx, generation_tx)?;
        let failure_cell = Arc::clone(&failure);
        let run = move || {
            if let Err(error) = driver.run() {
                // Set once: this thread is the only writer.
                let _ = failure_cell.set(error);
            }
        };
        let thread = std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(run)
            .map_err(|error| WatchError::Other { path: PathBuf::new(), source: notify::Error::io(error) })?;
        Ok((Self { message_tx, thread: Some(thread), failure }, generation_rx))
    }

    /// Why the receiver ended before the watcher was dropped.
    pub fn failure(&self) -> Option<&WatchError> {
        self.failure.get()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // The thread may have ended by itself.
        let _ = self.message_tx.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
