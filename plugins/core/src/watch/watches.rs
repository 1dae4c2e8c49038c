//! Which folders are watched, by which descriptor, and which have to be polled
//! because a limit is reached.

use super::index::{FolderId, Index};
use super::kernel::{FILES, Kernel, Limits};
use super::polling::Polling;
use super::warning::{WatchLimit, WatchWarning};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, WatchDescriptor};
use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What came of the wish to watch a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// It has been watched, or polled, all along: what is in it is known.
    Already,
    /// It is from now on: what is in it has to be looked at.
    Newly,
    /// It can't be: it is gone, no folder, or closed to us.
    Not,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    descriptor: WatchDescriptor,
    events: AddWatchFlags,
}

#[derive(Debug)]
pub(super) struct Watches {
    pub(super) kernel: Option<Kernel>,
    limits: Limits,
    watches: HashMap<FolderId, Watch>,
    /// More than one when roots lead to a folder by different paths.
    folders: HashMap<WatchDescriptor, Vec<FolderId>>,
    pub(super) polled: BTreeSet<FolderId>,
    pub(super) polling: Polling,
    warned: Vec<WatchLimit>,
}

impl Watches {
    pub(super) fn open(limits: Limits) -> Result<Self, Errno> {
        let mut watches = Self {
            kernel: None,
            limits,
            watches: HashMap::new(),
            folders: HashMap::new(),
            polled: BTreeSet::new(),
            polling: Polling::default(),
            warned: Vec::new(),
        };
        watches.reopen().map(|()| watches)
    }

    /// Makes an inotify instance, if there is none and one is to be had.
    pub(super) fn reopen(&mut self) -> Result<(), Errno> {
        if self.kernel.is_none() {
            match Kernel::open(self.limits) {
                Ok(kernel) => self.kernel = Some(kernel),
                Err(Errno::EMFILE | Errno::ENFILE) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Watches a folder for what happens to its files, or polls it.
    pub(super) fn watch(&mut self, index: &mut Index, folder: &Path, is_root: bool) -> Watched {
        // What took the place of a folder below a root may be a link.
        let events = if is_root { FILES } else { FILES | AddWatchFlags::IN_DONT_FOLLOW };
        match self.add(index, folder, events) {
            Ok(watched) => {
                if let Some(id) = index.folder(folder) {
                    self.polled.remove(&id);
                }
                watched
            }
            Err(Errno::ENOSPC | Errno::EMFILE) => {
                let id = index.pin(folder);
                // The watch that it had is of what was there before.
                self.release(id);
                if self.polled.insert(id) { Watched::Newly } else { Watched::Already }
            }
            Err(error) => {
                // Folders that can't be read are passed over, as git does.
                tracing::debug!(folder = %folder.display(), %error, "folder is not watched");
                Watched::Not
            }
        }
    }

    /// Watches a folder above a root for `events`; tells whether that works.
    pub(super) fn watch_above(&mut self, index: &mut Index, folder: &Path, events: AddWatchFlags) -> bool {
        self.add(index, folder, events).inspect_err(|error| tracing::debug!(folder = %folder.display(), %error, "not watched")).is_ok()
    }

    fn add(&mut self, index: &mut Index, folder: &Path, wanted: AddWatchFlags) -> Result<Watched, Errno> {
        let kernel = self.kernel.as_ref().ok_or(Errno::EMFILE)?;
        let before = index.folder(folder).and_then(|id| self.watches.get(&id)).copied();
        let events = before.map_or(wanted, |before| before.events | wanted);
        let descriptor = kernel.watch(folder, events)?;
        if !self.folders.contains_key(&descriptor) && self.folders.len() >= self.limits.watches {
            kernel.unwatch(descriptor);
            return Err(Errno::ENOSPC);
        }
        if before.is_some_and(|before| before.descriptor == descriptor && before.events.contains(wanted)) {
            return Ok(Watched::Already);
        }
        let id = index.pin(folder);
        if before.is_some_and(|before| before.descriptor != descriptor) {
            self.release(id);
        }
        self.watches.insert(id, Watch { descriptor, events });
        let folders = self.folders.entry(descriptor).or_default();
        let others = folders.clone();
        if !folders.contains(&id) {
            folders.push(id);
        }
        for other in others {
            if other != id && !is_same_folder(&index.path(other), folder) {
                // It was moved here, and the event that says so is still to come.
                self.drop_one(index, other);
            }
        }
        Ok(Watched::Newly)
    }

    /// The paths that a descriptor stands for.
    pub(super) fn paths(&self, index: &Index, descriptor: WatchDescriptor) -> Vec<PathBuf> {
        self.folders.get(&descriptor).into_iter().flatten().map(|folder| index.path(*folder)).collect()
    }

    /// Takes note of a watch that ended by itself.
    pub(super) fn ended(&mut self, index: &mut Index, descriptor: WatchDescriptor) {
        for folder in self.folders.remove(&descriptor).unwrap_or_default() {
            self.watches.remove(&folder);
            self.unpin(index, folder);
        }
    }

    /// Neither watches nor polls a folder, or one below it, any more.
    pub(super) fn drop_at_or_below(&mut self, index: &mut Index, path: &Path) {
        for folder in index.folders_at_or_below(path) {
            self.drop_one(index, folder);
        }
    }

    /// Neither watches nor polls the folders that are not worth it.
    pub(super) fn retain(&mut self, index: &mut Index, mut keep: impl FnMut(&Path) -> bool) {
        let for_files = self.watches.iter().filter(|(_, watch)| watch.events.contains(FILES)).map(|(folder, _)| *folder);
        for folder in for_files.chain(self.polled.iter().copied()).collect::<Vec<_>>() {
            if !keep(&index.path(folder)) {
                self.drop_one(index, folder);
            }
        }
    }

    /// What to tell the user, once per limit: `limit` by which folders are
    /// polled, if any is.
    pub(super) fn warning(&mut self, index: &Index) -> Option<WatchWarning> {
        let limit = if self.kernel.is_some() { WatchLimit::Folders } else { WatchLimit::Watchers };
        if self.polled.is_empty() || self.warned.contains(&limit) {
            return None;
        }
        self.warned.push(limit);
        let all: BTreeSet<PathBuf> = self.polled.iter().map(|folder| index.path(*folder)).collect();
        let is_topmost = |folder: &&PathBuf| !folder.ancestors().skip(1).any(|above| all.contains(above));
        Some(WatchWarning { limit, value: limit.value(), polled: all.iter().filter(is_topmost).cloned().collect() })
    }

    fn drop_one(&mut self, index: &mut Index, folder: FolderId) {
        let was_watched = self.release(folder);
        let was_polled = self.polled.remove(&folder);
        if was_watched || was_polled {
            self.unpin(index, folder);
        }
    }

    /// Ends the watch of a folder, unless another path leads to it.
    fn release(&mut self, folder: FolderId) -> bool {
        let Some(Watch { descriptor, .. }) = self.watches.remove(&folder) else { return false };
        if let Some(folders) = self.folders.get_mut(&descriptor) {
            folders.retain(|other| *other != folder);
            if folders.is_empty() {
                self.folders.remove(&descriptor);
                if let Some(kernel) = &self.kernel {
                    kernel.unwatch(descriptor);
                }
            }
        }
        true
    }

    fn unpin(&self, index: &mut Index, folder: FolderId) {
        if !self.polled.contains(&folder) && !self.watches.contains_key(&folder) {
            index.unpin(folder);
        }
    }
}

fn is_same_folder(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
    identity(one).is_some_and(|one| Some(one) == identity(other))
}
