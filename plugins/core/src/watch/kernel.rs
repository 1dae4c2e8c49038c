//! The library that file events come from, and what has to be known about it.
//!
//! It keeps one watch for each path, and the kernel one for each folder: a folder
//! that was moved and is watched again goes by its new path, but the watch of
//! its old path is still the same, and ends it. The library itself ends the
//! watches of a path that is moved or removed, and of all below, once it has
//! told so. That is why whoever ends a watch, or hears of a path that left, has
//! to set those of the same folder again: see [`super::watches`].
//!
//! It asks for events about files that are only read, too, which are dropped on
//! its own thread. What is mounted or unmounted below a root gives no event.

use super::inbox::Outlet;
use notify::{Config, ErrorKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::io;
use std::mem::ManuallyDrop;
use std::path::Path;

/// What limits the watching. The kernel has limits of its own; these are for
/// tests, but for the last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Folders that may be watched.
    pub(super) watches: usize,
    /// Whether file events may be had at all.
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

/// Where file events come from.
#[derive(Debug)]
pub(super) struct Kernel {
    notify: RecommendedWatcher,
}

impl Kernel {
    /// Events go to `outlet`, on a thread of the library's.
    pub(super) fn open(limits: Limits, outlet: Outlet) -> notify::Result<Self> {
        if !limits.instance {
            return Err(notify::Error::io(io::Error::from_raw_os_error(nix::libc::EMFILE)));
        }
        let notify = notify::recommended_watcher(move |event| outlet.tell(event))?;
        // The library takes for granted that its thread has started, and panics
        // on the first use otherwise, and when it is dropped; but not here.
        let mut notify = ManuallyDrop::new(notify);
        notify.configure(Config::default()).map_err(|_| notify::Error::generic("no thread for file events can be started"))?;
        Ok(Self { notify: ManuallyDrop::into_inner(notify) })
    }

    /// Has what happens in a folder told under this path, whatever it was before.
    pub(super) fn watch(&mut self, folder: &Path) -> notify::Result<()> {
        self.notify.watch(folder, RecursiveMode::NonRecursive)
    }

    /// Ends the watch that was set by this path; it may have ended by itself.
    /// The folder may be at another path by now, and be watched by that.
    pub(super) fn unwatch(&mut self, folder: &Path) {
        if let Err(error) = self.notify.unwatch(folder) {
            tracing::trace!(%error, "watch had ended");
        }
    }
}

/// Whether no more watchers are to be had at present.
pub(super) fn is_out_of_watchers(error: &notify::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE};
    matches!(&error.kind, ErrorKind::Io(source) if matches!(source.raw_os_error(), Some(EMFILE | ENFILE)))
}

/// Whether no more folders can be watched at present.
pub(super) fn is_out_of_watches(error: &notify::Error) -> bool {
    matches!(error.kind, ErrorKind::MaxFilesWatch)
}
