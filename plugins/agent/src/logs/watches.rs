//! News of log files, from inotify(7). Where it can't be had, all is looked at
//! again and again.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A file of this log was written to.
    Written(u32),
    /// Files of this log were made, renamed or deleted.
    Renamed(u32),
    /// More than could be told.
    Everything,
}

/// The folders that are watched.
#[derive(Debug)]
pub(super) struct Watches {
    inotify: Option<OwnedFd>,
    /// A folder's number; several logs may be of one, over time.
    logs: HashMap<i32, Vec<u32>>,
    /// Some folder isn't watched.
    is_blind: bool,
}

impl Watches {
    pub(super) fn new() -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok();
        Self { is_blind: inotify.is_none(), inotify, logs: HashMap::new() }
    }

    /// Whether not all news is told.
    pub(super) fn is_blind(&self) -> bool {
        self.is_blind
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Watches the folder of a log.
    pub(super) fn add(&mut self, id: u32, folder: &Path) {
        let flags = WatchFlags::MODIFY
            | WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::ONLYDIR;
        let added = self.inotify.as_ref().map(|inotify| inotify::add_watch(inotify, folder, flags));
        match added {
            Some(Ok(number)) => self.logs.entry(number).or_default().push(id),
            // At the limit of watches, for one; or it is gone.
            _ => self.is_blind = true,
        }
    }

    /// What happened since the last time.
    pub(super) fn take(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        let Some(inotify) = &self.inotify else { return news };
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                news.push(News::Everything);
                continue;
            }
            let is_written = event.events() == ReadFlags::MODIFY;
            let ids = self.logs.get(&event.wd()).into_iter().flatten();
            news.extend(ids.map(|id| if is_written { News::Written(*id) } else { News::Renamed(*id) }));
            if event.events().contains(ReadFlags::IGNORED) {
                self.logs.remove(&event.wd());
            }
        }
        news.dedup();
        news
    }
}
