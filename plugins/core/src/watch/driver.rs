//! The watching thread: events in, generations out.

use super::ignores::{Ignores, is_ignore_file};
use super::index::Index;
use super::settle::{Settled, Settling, Sign};
use super::{Change, ChangeKind, Generation, WatchError, WatchRoot};
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::error::TrySendError;

/// A lock that is older was left behind by a git that crashed.
const STALE_LOCK: Duration = Duration::from_secs(30);
/// How often a full channel is tried again.
const RETRY: Duration = Duration::from_millis(5);
/// So many events are taken in before a generation may go out.
const DRAIN_LIMIT: usize = 10_000;

/// What the watching thread waits for.
#[derive(Debug)]
pub(super) enum Message {
    Event(Instant, notify::Result<notify::Event>),
    Stop,
}

/// What to do with the files that a scan finds.
#[derive(Clone, Copy, Debug)]
enum Scan {
    /// They are as they were: remember them.
    Baseline,
    /// They are new, or were written while nobody looked.
    Report(Instant),
    /// Events were lost.
    Doubt(Instant),
}

#[derive(Debug)]
struct Root {
    path: PathBuf,
    ignores: Ignores,
}

#[derive(Debug)]
pub(super) struct Driver {
    notify: RecommendedWatcher,
    message_rx: Receiver<Message>,
    generation_tx: tokio::sync::mpsc::Sender<Generation>,
    roots: Vec<Root>,
    git_locks: Vec<PathBuf>,
    index: Index,
    settling: Settling,
    unsent: VecDeque<Generation>,
    number: u64,
}

impl Driver {
    pub(super) fn start(
        roots: Vec<WatchRoot>,
        message_tx: Sender<Message>,
        message_rx: Receiver<Message>,
        generation_tx: tokio::sync::mpsc::Sender<Generation>,
    ) -> Result<Self, WatchError> {
        let handler = move |event: notify::Result<notify::Event>| {
            if !matches!(&event, Ok(event) if is_noise(&event.kind)) {
                // The thread ends before this watcher does.
                let _ = message_tx.send(Message::Event(Instant::now(), event));
            }
        };
        let notify = notify::recommended_watcher(handler).map_err(|error| WatchError::new(Path::new("."), error))?;
        let mut git_locks: Vec<PathBuf> = roots.iter().filter_map(|root| git_lock(&root.path)).collect();
        git_locks.sort();
        git_locks.dedup();
        let roots =
            roots.into_iter().map(|WatchRoot { path, rules }| Root { ignores: Ignores::new(&path, rules), path }).collect::<Vec<_>>();
        let mut driver = Self {
            notify,
            message_rx,
            generation_tx,
            roots,
            git_locks,
            index: Index::default(),
            settling: Settling::default(),
            unsent: VecDeque::new(),
            number: 0,
        };
        driver.scan_roots(Scan::Baseline)?;
        Ok(driver)
    }

    /// Runs until it is told to stop or the receiver is gone.
    pub(super) fn run(mut self) -> Result<(), WatchError> {
        loop {
            let mut next = self.wait();
            for _ in 0..DRAIN_LIMIT {
                match next {
                    Some(Message::Event(at, event)) => self.take(at, event)?,
                    Some(Message::Stop) => return Ok(()),
                    None => break,
                }
                next = self.message_rx.try_recv().ok();
            }
            let now = Instant::now();
            if self.settling.deadline(now).is_some() {
                let locked = self.git_locks.iter().any(|lock| is_held(lock));
                if let Some(settled) = self.settling.poll(now, locked) {
                    self.report(now, settled);
                }
            }
            if !self.send() {
                return Ok(());
            }
        }
    }

    fn wait(&self) -> Option<Message> {
        let now = Instant::now();
        let deadline = self.settling.deadline(now).map(|deadline| deadline.saturating_duration_since(now));
        let retry = (!self.unsent.is_empty()).then_some(RETRY);
        match deadline.into_iter().chain(retry).min() {
            // Nobody can send any more only when the owner is gone, too.
            None => Some(self.message_rx.recv().unwrap_or(Message::Stop)),
            Some(timeout) => match self.message_rx.recv_timeout(timeout) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Message::Stop),
            },
        }
    }

    fn take(&mut self, at: Instant, event: notify::Result<notify::Event>) -> Result<(), WatchError> {
        let event = event.map_err(|error| {
            let path = error.paths.first().cloned().unwrap_or_default();
            WatchError::new(&path, error)
        })?;
        if event.need_rescan() {
            tracing::debug!("file events were lost; reading the folders again");
            return self.rescan(at);
        }
        let Some(path) = event.paths.first() else { return Ok(()) };
        match event.kind {
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => self.gone(at, path),
            EventKind::Create(CreateKind::Folder) => self.appeared(at, path, Sign::Found)?,
            EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => self.appeared(at, path, Sign::Writing)?,
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) | EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                self.appeared(at, path, Sign::Whole)?;
            }
            EventKind::Modify(ModifyKind::Metadata(_)) => self.metadata_changed(at, path),
            _ => {}
        }
        Ok(())
    }

    fn gone(&mut self, at: Instant, path: &Path) {
        if is_ignore_file(path) {
            self.reload_ignores();
        }
        let known = self.index.at_or_below(path);
        if known.is_empty() && self.settling.is_pending(path) {
            self.settling.observe(at, path, Sign::Gone, false);
        }
        for file in known {
            self.settling.observe(at, &file, Sign::Gone, true);
        }
    }

    fn appeared(&mut self, at: Instant, path: &Path, sign: Sign) -> Result<(), WatchError> {
        let is_folder = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        if self.roots.iter().any(|root| root.path.starts_with(path)) && is_folder {
            return self.scan_roots(Scan::Report(at));
        }
        if !self.is_relevant(path, is_folder) {
            return Ok(());
        }
        if is_folder {
            return self.scan(path.to_owned(), Scan::Report(at));
        }
        if is_ignore_file(path) && sign == Sign::Whole {
            self.reload_ignores();
            self.scan_roots(Scan::Baseline)?;
        }
        self.settling.observe(at, path, sign, self.index.contains(path));
        Ok(())
    }

    fn metadata_changed(&mut self, at: Instant, path: &Path) {
        let Ok(metadata) = path.metadata() else { return };
        let is_news = !metadata.is_dir() && !self.settling.is_pending(path) && self.index.differs(path, &metadata);
        if is_news && self.is_relevant(path, false) {
            self.settling.observe(at, path, Sign::Whole, self.index.contains(path));
        }
    }

    fn reload_ignores(&mut self) {
        for root in &mut self.roots {
            root.ignores.reload();
        }
        let roots = &mut self.roots;
        self.index.retain(|path| is_relevant(roots, path, false));
    }

    fn is_relevant(&mut self, path: &Path, is_folder: bool) -> bool {
        is_relevant(&mut self.roots, path, is_folder)
    }

    fn rescan(&mut self, at: Instant) -> Result<(), WatchError> {
        self.reload_ignores();
        for file in self.index.at_or_below(Path::new("/")) {
            if !file.exists() {
                self.settling.observe(at, &file, Sign::Gone, true);
            }
        }
        self.scan_roots(Scan::Doubt(at))
    }

    /// Watches every root and the folder above it, in which it may be replaced.
    fn scan_roots(&mut self, scan: Scan) -> Result<(), WatchError> {
        let paths: Vec<PathBuf> = self.roots.iter().map(|root| root.path.clone()).collect();
        for path in paths {
            let anchor = path.ancestors().skip(1).find(|folder| folder.is_dir());
            let anchor = anchor.ok_or_else(|| WatchError::NotFound(path.clone()))?;
            self.watch(anchor)?;
            match path.metadata() {
                Ok(metadata) if metadata.is_dir() => self.scan(path, scan)?,
                Ok(metadata) => self.found(&path, &metadata, scan),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Watches a folder and all below, and looks at the files that are there
    /// already: those made before the watch was set gave no event.
    fn scan(&mut self, folder: PathBuf, scan: Scan) -> Result<(), WatchError> {
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            // First watched, then listed: a file is in one of the two.
            if !self.watch(&folder)? {
                continue;
            }
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let (path, is_folder) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
                if !self.is_relevant(&path, is_folder) {
                    continue;
                }
                if is_folder {
                    folders.push(path);
                } else if let Ok(metadata) = path.metadata()
                    && metadata.is_file()
                {
                    self.found(&path, &metadata, scan);
                }
            }
        }
        Ok(())
    }

    fn found(&mut self, path: &Path, metadata: &std::fs::Metadata, scan: Scan) {
        let known = self.index.contains(path);
        match scan {
            Scan::Baseline if !known && !self.settling.is_pending(path) => self.index.record(path, metadata),
            Scan::Report(at) if self.index.differs(path, metadata) && !self.settling.is_pending(path) => {
                self.settling.observe(at, path, Sign::Found, known);
            }
            Scan::Doubt(at) if self.index.may_differ(path, metadata) => self.settling.observe(at, path, Sign::Found, known),
            _ => {}
        }
    }

    /// Watches one folder; `false` when it is gone again.
    fn watch(&mut self, folder: &Path) -> Result<bool, WatchError> {
        match self.notify.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => Ok(true),
            Err(error) => match WatchError::new(folder, error) {
                WatchError::NotFound(_) => Ok(false),
                // Folders that can't be read are passed over, as git does.
                WatchError::Other { path, source } => {
                    tracing::debug!(path = %path.display(), error = %source, "folder is not watched");
                    Ok(false)
                }
                fatal => Err(fatal),
            },
        }
    }

    fn report(&mut self, now: Instant, settled: Settled) {
        let changes: Vec<Change> = settled.paths.into_iter().filter_map(|path| self.truth(path)).collect();
        if !changes.is_empty() {
            self.number += 1;
            let generation = Generation { number: self.number, changes, first_event: settled.first_event, settled: now };
            self.unsent.push_back(generation);
        }
    }

    /// What the disk says about a path now.
    fn truth(&mut self, path: PathBuf) -> Option<Change> {
        match path.metadata() {
            Ok(metadata) if metadata.is_file() => {
                self.index.record(&path, &metadata);
                Some(Change { path, kind: ChangeKind::Modified })
            }
            _ => self.index.forget(&path).then_some(Change { path, kind: ChangeKind::Removed }),
        }
    }

    /// Hands over what is ready; `false` when nobody wants it any more.
    fn send(&mut self) -> bool {
        while let Some(generation) = self.unsent.pop_front() {
            match self.generation_tx.try_send(generation) {
                Ok(()) => {}
                Err(TrySendError::Full(generation)) => {
                    self.unsent.push_front(generation);
                    return true;
                }
                Err(TrySendError::Closed(_)) => return false,
            }
        }
        true
    }
}

fn is_relevant(roots: &mut [Root], path: &Path, is_folder: bool) -> bool {
    roots.iter_mut().any(|root| path == root.path || (path.starts_with(&root.path) && !root.ignores.is_ignored(path, is_folder)))
}

/// Events about files that were read: most of them caused by ourselves.
fn is_noise(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}

/// The lock that git holds while it rewrites the work tree around `path`.
fn git_lock(path: &Path) -> Option<PathBuf> {
    let dot_git = path.ancestors().map(|folder| folder.join(".git")).find(|candidate| candidate.exists())?;
    if dot_git.is_dir() {
        return Some(dot_git.join("index.lock"));
    }
    // A linked work tree: the file names its folder (gitrepository-layout(5)).
    let content = std::fs::read_to_string(&dot_git).ok()?;
    let folder = content.trim().strip_prefix("gitdir:")?.trim();
    Some(dot_git.parent()?.join(folder).join("index.lock"))
}

fn is_held(lock: &Path) -> bool {
    let Ok(modified) = lock.symlink_metadata().and_then(|metadata| metadata.modified()) else { return false };
    SystemTime::now().duration_since(modified).unwrap_or_default() < STALE_LOCK
}
