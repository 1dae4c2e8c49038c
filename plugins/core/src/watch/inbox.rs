//! What the library's thread hands to ours: notices, in order, so many at most.

use super::names::is_repository;
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// What an event says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Created,
    Written,
    Closed,
    Arrived,
    Left,
    Attributes,
}

/// One thing that the watching thread is told.
#[derive(Debug)]
pub(super) enum Notice {
    /// About a watched folder or an entry of one, under the name that the folder
    /// had when its watch was set.
    Event { at: Instant, path: PathBuf, kind: Kind },
    /// Events were lost.
    Lost(Instant),
    /// There will be no events any more.
    Failed(notify::Error),
    /// Nobody wants to know any more.
    Stop,
}

/// How full the inbox is.
#[derive(Debug, Default)]
struct Level {
    waiting: AtomicUsize,
    /// Whether a loss is told already, and not yet taken note of.
    lost: AtomicBool,
    stopped: AtomicBool,
}

/// The end that takes events in. It runs on the library's thread, for each event:
/// what concerns nobody ends here and wakes nobody.
#[derive(Clone, Debug)]
pub(super) struct Outlet {
    notice_tx: Sender<Notice>,
    level: Arc<Level>,
    limit: usize,
    /// The paths of all roots.
    roots: Arc<[PathBuf]>,
}

impl Outlet {
    pub(super) fn tell(&self, event: notify::Result<Event>) {
        match event {
            Ok(event) if event.need_rescan() => self.lose(),
            Ok(mut event) => {
                if let Some(kind) = kind(event.kind)
                    && let Some(path) = event.paths.pop()
                    && self.concerns(&path)
                {
                    self.push(path, kind);
                }
            }
            // A read that a signal ended is made again.
            Err(error) if is_interruption(&error) => {}
            Err(error) => self.send(Notice::Failed(error)),
        }
    }

    /// Has it told that nobody wants to know any more, before all else.
    pub(super) fn stop(&self) {
        self.level.stopped.store(true, Ordering::Release);
        self.send(Notice::Stop);
    }

    fn push(&self, path: PathBuf, kind: Kind) {
        if self.level.waiting.load(Ordering::Relaxed) >= self.limit {
            return self.lose();
        }
        self.level.waiting.fetch_add(1, Ordering::Relaxed);
        self.send(Notice::Event { at: Instant::now(), path, kind });
    }

    /// Has it told that events were lost.
    pub(super) fn lose(&self) {
        if !self.level.lost.swap(true, Ordering::AcqRel) {
            self.send(Notice::Lost(Instant::now()));
        }
    }

    fn send(&self, notice: Notice) {
        // Once the watching thread has ended nobody wants to know.
        let _ = self.notice_tx.send(notice);
    }

    /// Whether a path is a root, or above or below one. What is above is watched
    /// for the sake of the roots; what else goes on there concerns nobody, but
    /// for a repository that they may be in.
    fn concerns(&self, path: &Path) -> bool {
        self.roots.iter().any(|root| path.starts_with(root) || root.starts_with(path)) || is_repository(path)
    }
}

/// The end where notices come out.
#[derive(Debug)]
pub(super) struct Inbox {
    notice_rx: Receiver<Notice>,
    level: Arc<Level>,
    /// What [`Inbox::wait`] found.
    first: Option<Notice>,
}

impl Inbox {
    /// An inbox that holds so many events about these roots, and its outlet.
    pub(super) fn new(roots: Arc<[PathBuf]>, limit: usize) -> (Self, Outlet) {
        let (notice_tx, notice_rx) = std::sync::mpsc::channel();
        let level = Arc::new(Level::default());
        let outlet = Outlet { notice_tx, level: Arc::clone(&level), limit, roots };
        (Self { notice_rx, level, first: None }, outlet)
    }

    /// Waits until there is something to take, for `timeout` at most.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) {
        if self.first.is_some() {
            return;
        }
        self.first = match timeout {
            // Without a sender there is no watcher that could be stopped.
            None => Some(self.notice_rx.recv().unwrap_or(Notice::Stop)),
            Some(timeout) => match self.notice_rx.recv_timeout(timeout) {
                Ok(notice) => Some(notice),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Notice::Stop),
            },
        };
    }

    /// What was told first and not yet taken.
    pub(super) fn next(&mut self) -> Option<Notice> {
        if self.level.stopped.load(Ordering::Acquire) {
            return Some(Notice::Stop);
        }
        let notice = self.first.take().or_else(|| self.notice_rx.try_recv().ok())?;
        match notice {
            Notice::Event { .. } => _ = self.level.waiting.fetch_sub(1, Ordering::Relaxed),
            // What is lost from now on is told again: who takes this reads all
            // folders afterwards.
            Notice::Lost(_) => self.level.lost.store(false, Ordering::Release),
            Notice::Failed(_) | Notice::Stop => {}
        }
        Some(notice)
    }
}

/// What an event means; `None` for those about files that are only read, most
/// of them caused by ourselves, and for what others say as well.
fn kind(kind: EventKind) -> Option<Kind> {
    match kind {
        EventKind::Create(_) => Some(Kind::Created),
        EventKind::Modify(ModifyKind::Data(_)) => Some(Kind::Written),
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Kind::Closed),
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Kind::Arrived),
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => Some(Kind::Left),
        EventKind::Modify(ModifyKind::Metadata(_)) => Some(Kind::Attributes),
        _ => None,
    }
}

fn is_interruption(error: &notify::Error) -> bool {
    matches!(&error.kind, notify::ErrorKind::Io(source) if source.kind() == std::io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{CreateKind, DataChange, Flag};

    fn inbox(limit: usize) -> (Inbox, Outlet) {
        Inbox::new(Arc::from([PathBuf::from("/a/root"), PathBuf::from("/a/b/file")]), limit)
    }

    fn tell(outlet: &Outlet, kind: EventKind, path: &str) {
        outlet.tell(Ok(Event::new(kind).add_path(PathBuf::from(path))));
    }

    fn taken(inbox: &mut Inbox) -> Vec<String> {
        let render = |notice| match notice {
            Notice::Event { path, kind, .. } => format!("{kind:?} {}", path.display()),
            Notice::Lost(_) => "lost".to_owned(),
            Notice::Failed(error) => error.to_string(),
            Notice::Stop => "stop".to_owned(),
        };
        std::iter::from_fn(|| inbox.next()).map(render).collect()
    }

    #[test]
    fn only_what_concerns_a_root_comes_through() {
        let (mut inbox, outlet) = inbox(100);
        for path in ["/a", "/a/root", "/a/root/x/y", "/a/b/file", "/a/.git", "/a/rooted", "/a/b/other", "/tmp"] {
            tell(&outlet, EventKind::Create(CreateKind::Any), path);
        }
        let expected = ["/a", "/a/root", "/a/root/x/y", "/a/b/file", "/a/.git"].map(|path| format!("Created {path}"));
        assert_eq!(taken(&mut inbox), expected);
    }

    #[test]
    fn reading_is_no_event_and_a_rename_is_told_by_its_ends() {
        let (mut inbox, outlet) = inbox(100);
        let rename = |mode| EventKind::Modify(ModifyKind::Name(mode));
        let access = |kind| EventKind::Access(kind);
        for kind in [
            access(AccessKind::Open(AccessMode::Any)),
            access(AccessKind::Close(AccessMode::Read)),
            rename(RenameMode::From),
            rename(RenameMode::To),
            rename(RenameMode::Both),
            EventKind::Modify(ModifyKind::Data(DataChange::Any)),
            access(AccessKind::Close(AccessMode::Write)),
        ] {
            tell(&outlet, kind, "/a/root/x");
        }
        assert_eq!(taken(&mut inbox), ["Left", "Arrived", "Written", "Closed"].map(|kind| format!("{kind} /a/root/x")));
    }

    #[test]
    fn what_it_can_not_hold_is_lost_and_told_once() {
        let (mut inbox, outlet) = inbox(2);
        let create = |path| tell(&outlet, EventKind::Create(CreateKind::Any), path);
        ["/a/root/1", "/a/root/2", "/a/root/3", "/a/root/4"].into_iter().for_each(create);
        outlet.tell(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        assert_eq!(taken(&mut inbox), ["Created /a/root/1", "Created /a/root/2", "lost"]);
        create("/a/root/5");
        outlet.tell(Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan)));
        assert_eq!(taken(&mut inbox), ["Created /a/root/5", "lost"], "there is room again");
    }

    #[test]
    fn waiting_takes_nothing_away() {
        let (mut inbox, outlet) = inbox(1);
        inbox.wait(Some(Duration::ZERO));
        assert_eq!(taken(&mut inbox), [""; 0]);
        outlet.tell(Err(notify::Error::io(std::io::ErrorKind::Interrupted.into())));
        outlet.tell(Err(notify::Error::generic("broken")));
        inbox.wait(None);
        inbox.wait(None);
        assert_eq!(taken(&mut inbox), ["broken"]);
    }

    #[test]
    fn stopping_comes_before_what_waits() {
        let (mut inbox, outlet) = inbox(1);
        tell(&outlet, EventKind::Create(CreateKind::Any), "/a/root/1");
        outlet.stop();
        inbox.wait(None);
        assert!(matches!(inbox.next(), Some(Notice::Stop)));
    }
}
