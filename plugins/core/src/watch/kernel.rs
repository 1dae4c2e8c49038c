//! inotify(7): which events are asked for, and what they say.
//!
//! It is used without a library in between for three reasons: events about
//! files that are only read are not asked for (a `grep` of the tree would fill
//! the queue), a watch is told from another by its descriptor (only so a folder
//! that was moved is told from one that took its place), and nothing is watched
//! without a decision of ours.

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use nix::sys::time::TimeSpec;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::PipeReader;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// What limits the watching. The kernel has limits of its own; these are for
/// tests, but for the last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Folders that may be watched.
    pub(super) watches: usize,
    /// Whether inotify may be used at all.
    pub(super) instance: bool,
    /// Events that are kept while there is no time for them; what comes then is
    /// lost, as when the kernel's own queue is full.
    pub(super) queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { watches: usize::MAX, instance: true, queue: 262_144 }
    }
}

/// So many reads, of up to some hundred events each, are made in a row.
const DRAINED_AT_ONCE: usize = 256;

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

/// One thing that the kernel said.
#[derive(Debug)]
pub(super) enum Notice {
    /// About an entry of a watched folder, or (without a name) the folder.
    Event { at: Instant, watch: WatchDescriptor, name: Option<OsString>, kind: Kind },
    /// A watch ended by itself.
    Ended(WatchDescriptor),
    /// Events were lost.
    Lost(Instant),
}

/// What happens to the files of a folder.
pub(super) const FILES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_MODIFY)
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_ATTRIB)
    // A file without a name concerns nobody.
    .union(AddWatchFlags::from_bits_retain(libc::IN_EXCL_UNLINK));

/// What comes into a folder and leaves it.
pub(super) const NAMES: AddWatchFlags = AddWatchFlags::IN_CREATE.union(AddWatchFlags::IN_DELETE).union(AddWatchFlags::IN_MOVE);

/// Whether a folder itself is moved or removed.
pub(super) const ITSELF: AddWatchFlags = AddWatchFlags::IN_DELETE_SELF.union(AddWatchFlags::IN_MOVE_SELF);

/// An inotify instance and what it said.
#[derive(Debug)]
pub(super) struct Kernel {
    inotify: Inotify,
    queue: VecDeque<(Instant, InotifyEvent)>,
    queue_limit: usize,
    lost: Option<Instant>,
}

impl Kernel {
    pub(super) fn open(limits: Limits) -> Result<Self, Errno> {
        if !limits.instance {
            return Err(Errno::EMFILE);
        }
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        Ok(Self { inotify, queue: VecDeque::new(), queue_limit: limits.queue, lost: None })
    }

    /// Asks for events of a folder, instead of those asked for before.
    pub(super) fn watch(&self, folder: &Path, events: AddWatchFlags) -> Result<WatchDescriptor, Errno> {
        self.inotify.add_watch(folder, events | AddWatchFlags::IN_ONLYDIR)
    }

    /// Ends a watch; it may have ended by itself.
    pub(super) fn unwatch(&self, watch: WatchDescriptor) {
        if let Err(error) = self.inotify.rm_watch(watch) {
            tracing::trace!(%error, "watch had ended");
        }
    }

    /// Takes in what is there, so that the kernel's queue has room again.
    pub(super) fn drain(&mut self) -> Result<(), Errno> {
        // Who writes all the time must not keep us here.
        for _ in 0..DRAINED_AT_ONCE {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) || self.queue.len() >= self.queue_limit {
                    self.lost.get_or_insert(now);
                } else {
                    self.queue.push_back((now, event));
                }
            }
        }
        Ok(())
    }

    /// Whether something was taken in that [`Kernel::next`] has to tell.
    pub(super) fn has_more(&self) -> bool {
        !self.queue.is_empty() || self.lost.is_some()
    }

    /// What was said first and not yet taken.
    pub(super) fn next(&mut self) -> Option<Notice> {
        while let Some((at, event)) = self.queue.pop_front() {
            let InotifyEvent { wd: watch, mask, name, .. } = event;
            if mask.contains(AddWatchFlags::IN_IGNORED) {
                return Some(Notice::Ended(watch));
            }
            if let Some(kind) = kind(mask) {
                return Some(Notice::Event { at, watch, name, kind });
            }
        }
        self.lost.take().map(Notice::Lost)
    }
}

fn kind(mask: AddWatchFlags) -> Option<Kind> {
    let kinds = [
        (AddWatchFlags::IN_CREATE, Kind::Created),
        (AddWatchFlags::IN_MODIFY, Kind::Written),
        (AddWatchFlags::IN_CLOSE_WRITE, Kind::Closed),
        (AddWatchFlags::IN_MOVED_TO, Kind::Arrived),
        (AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_DELETE | ITSELF | AddWatchFlags::IN_UNMOUNT, Kind::Left),
        (AddWatchFlags::IN_ATTRIB, Kind::Attributes),
    ];
    kinds.into_iter().find(|(flags, _)| mask.intersects(*flags)).map(|(_, kind)| kind)
}

/// Waits for an event, for `timeout`, or for the writing end of `stop` to be
/// closed, which it tells by `true`.
pub(super) fn wait(kernel: Option<&Kernel>, stop: &PipeReader, timeout: Option<Duration>) -> Result<bool, Errno> {
    let mut ends = vec![PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
    ends.extend(kernel.map(|kernel| PollFd::new(kernel.inotify.as_fd(), PollFlags::POLLIN)));
    match ppoll(&mut ends, timeout.map(TimeSpec::from_duration), None) {
        Ok(_) => Ok(ends.first().is_some_and(|stop| stop.any().unwrap_or(true))),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error),
    }
}
