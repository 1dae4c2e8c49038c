//! From file events to settled changes.
//!
//! A thread listens to the events that `notify` has for each folder, lets what it
//! hears settle, and reads the truth from the disk when it reports: a change says only that a path is there with
//! new content, or is not there any more.
//!
//! A symbolic link is an entry of its own, whatever it leads to: it is reported
//! when it is made, led elsewhere or removed, also when it leads to a folder or
//! nowhere. It is not followed: a change of the file that it leads to is
//! reported for that file, if that is below a root. Only a root that is a link
//! itself stands for what it leads to. Devices, sockets and pipes are no files.
//!
//! Where the kernel's limits keep folders from being watched they are polled,
//! and [`Watcher::take_warnings`] says so.

mod driver;
mod git;
mod ignores;
mod inbox;
mod index;
mod kernel;
mod list;
mod names;
mod polling;
mod settle;
mod signature;
mod view;
mod warning;
mod watches;

pub use ignores::Rules;
pub use list::list;
pub use warning::{WatchLimit, WatchWarning};

use crate::error::CommandError;
use driver::{Driver, Outputs};
use inbox::{Inbox, Outlet};
use kernel::Limits;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;
use view::View;

/// A file or folder to watch, with all below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WatchRoot {
    /// An absolute path. It may be missing as yet.
    pub path: PathBuf,
    /// What is ignored below it.
    pub rules: Rules,
    /// What the user wants ignored, too: patterns as in `.gitignore`, relative
    /// to the root, that decide before any file's. `!pattern` brings back what
    /// files or habit (`node_modules`, `target`, ...) leave out, but for `.git`.
    pub ignore: Vec<String>,
}

impl WatchRoot {
    /// Source code: what `.gitignore` and `.devloopignore` leave.
    pub fn sources(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), rules: Rules::Sources, ignore: Vec::new() }
    }

    /// What goes into an image: what `.dockerignore` leaves, too.
    pub fn content(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), rules: Rules::Content, ignore: Vec::new() }
    }

    /// The same root without what these patterns name.
    #[must_use]
    pub fn ignoring(mut self, patterns: impl IntoIterator<Item = String>) -> Self {
        self.ignore.extend(patterns);
        self
    }
}

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It is there; its content, permissions or target may be new.
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
    /// Each path once, in order. Where a folder gave way to a file of its name,
    /// the removals below come after it: apply removals first.
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
    /// The root depends on the working directory.
    #[error("{} is not an absolute path", .0.display())]
    Relative(PathBuf),
    /// A pattern of the user's is none.
    #[error("{pattern:?} is not a pattern as in .gitignore")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: ignore::Error,
    },
    /// The system refuses.
    #[error("file events can't be had from the system")]
    System(#[source] notify::Error),
    /// No thread is to be had.
    #[error("the watching thread can't be started")]
    Thread(#[source] std::io::Error),
}

impl From<WatchError> for CommandError {
    fn from(error: WatchError) -> Self {
        let hint = match &error {
            WatchError::BadPattern { .. } => {
                Some("correct it: `*`, `?`, `**`, `[a-z]` and `{a,b}` are understood, `\\` takes their meaning away")
            }
            WatchError::NotFound(_) | WatchError::Relative(_) | WatchError::System(_) | WatchError::Thread(_) => None,
        };
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
    /// Tells the thread to stop.
    outlet: Outlet,
    thread: Option<std::thread::JoinHandle<()>>,
    failure: Arc<OnceLock<WatchError>>,
    /// A receiver can't be shared between threads, the watcher can.
    warning_rx: Mutex<std::sync::mpsc::Receiver<WatchWarning>>,
}

impl Watcher {
    /// Watches `roots`. Every change after the return is reported. The receiver
    /// ends when watching failed: see [`Watcher::failure`].
    ///
    /// # Errors
    /// When a root can't be watched.
    pub fn start(roots: Vec<WatchRoot>) -> Result<(Self, mpsc::Receiver<Generation>), WatchError> {
        Self::start_within(roots, Limits::default())
    }

    fn start_within(roots: Vec<WatchRoot>, limits: Limits) -> Result<(Self, mpsc::Receiver<Generation>), WatchError> {
        let (generation_tx, generation_rx) = mpsc::channel(64);
        let (warning_tx, warning_rx) = std::sync::mpsc::channel();
        let failure = Arc::new(OnceLock::new());
        let (inbox, outlet) = Inbox::new(roots.iter().map(|root| root.path.clone()).collect(), limits.queue);
        let view = View::new(roots, limits, outlet.clone())?;
        let driver = Driver::new(inbox, view, Outputs { generation_tx, warning_tx });
        let failure_cell = Arc::clone(&failure);
        let run = move || {
            if let Err(error) = driver.run() {
                // Set once: this thread is the only writer.
                let _ = failure_cell.set(error);
            }
        };
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(run).map_err(WatchError::Thread)?;
        Ok((Self { outlet, thread: Some(thread), failure, warning_rx: Mutex::new(warning_rx) }, generation_rx))
    }

    /// Why the receiver ended before the watcher was dropped.
    pub fn failure(&self) -> Option<&WatchError> {
        self.failure.get()
    }

    /// What the user should know that was not told before. There is some after
    /// the start, or after a generation, if at all.
    pub fn take_warnings(&self) -> Vec<WatchWarning> {
        // Nothing that can panic holds it.
        self.warning_rx.lock().unwrap_or_else(PoisonError::into_inner).try_iter().collect()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.outlet.stop();
        if let Some(thread) = self.thread.take() {
            // It has told why it ended, if by itself.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
