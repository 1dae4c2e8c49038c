//! Which folders are watched, and which have to be polled because a limit is
//! reached.
//!
//! The library names folders by path, the disk by device and inode. Both are
//! kept together here, for a folder may be known by two paths: roots that are
//! links, or it was moved and the event that says so is still to come. Before a
//! folder is watched, watches are ended that were set by a path that leads
//! elsewhere now; whenever one ends, those of the same folder are in doubt, and
//! have to be set again, and the folder read.

use super::inbox::Outlet;
use super::index::{FolderId, Index, TOP};
use super::kernel::{Kernel, Limits, is_out_of_watchers, is_out_of_watches};
use super::polling::Polling;
use super::warning::{WatchLimit, WatchWarning};
use std::collections::{BTreeSet, HashMap};
use std::io;
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

/// What a folder is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// What is in it.
    Files,
    /// A root below it, which may come and go.
    Root,
}

/// Which folder it is, whatever its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    device: u64,
    inode: u64,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    identity: Identity,
    purpose: Purpose,
    /// Whether the path may be a link to the folder.
    follows: bool,
}

#[derive(Debug)]
pub(super) struct Watches {
    kernel: Option<Kernel>,
    outlet: Outlet,
    limits: Limits,
    watches: HashMap<FolderId, Watch>,
    /// The same, by folder.
    identities: BTreeSet<(Identity, FolderId)>,
    /// Watched folders whose watch may have ended with that of another path.
    doubtful: BTreeSet<FolderId>,
    pub(super) polled: BTreeSet<FolderId>,
    pub(super) polling: Polling,
    warned: Vec<WatchLimit>,
}

impl Watches {
    pub(super) fn open(limits: Limits, outlet: Outlet) -> notify::Result<Self> {
        let mut watches = Self {
            kernel: None,
            outlet,
            limits,
            watches: HashMap::new(),
            identities: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            polled: BTreeSet::new(),
            polling: Polling::default(),
            warned: Vec::new(),
        };
        watches.reopen().map(|()| watches)
    }

    /// Has file events told, if they are not and can be.
    pub(super) fn reopen(&mut self) -> notify::Result<()> {
        if self.kernel.is_none() {
            match Kernel::open(self.limits, self.outlet.clone()) {
                Ok(kernel) => self.kernel = Some(kernel),
                Err(error) if is_out_of_watchers(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Watches a folder for what happens to its files, or polls it.
    pub(super) fn watch(&mut self, index: &mut Index, folder: &Path, is_root: bool) -> Watched {
        // What took the place of a folder below a root may be a link.
        match self.add(index, folder, Purpose::Files, is_root) {
            Ok(watched) => {
                let is_doubtful = index.folder(folder).is_some_and(|id| {
                    self.polled.remove(&id);
                    self.doubtful.remove(&id)
                });
                if is_doubtful { Watched::Newly } else { watched }
            }
            Err(error) if is_out_of_watches(&error) || is_out_of_watchers(&error) => {
                let id = index.pin(folder);
                // The watch that it had is of what was there before.
                self.release(index, id);
                if self.polled.insert(id) { Watched::Newly } else { Watched::Already }
            }
            Err(error) => {
                // Folders that can't be read are passed over, as git does.
                tracing::debug!(folder = %folder.display(), %error, "folder is not watched");
                Watched::Not
            }
        }
    }

    /// Watches a folder above a root; tells whether that works.
    pub(super) fn watch_above(&mut self, index: &mut Index, folder: &Path) -> bool {
        match self.add(index, folder, Purpose::Root, true) {
            Ok(watched) => {
                // It may be below a root, too, and not be read on this occasion.
                if watched == Watched::Newly
                    && let Some(id) = index.folder(folder)
                    && self.watches.get(&id).is_some_and(|watch| watch.purpose == Purpose::Files)
                {
                    self.doubtful.insert(id);
                }
                true
            }
            Err(error) => {
                tracing::debug!(folder = %folder.display(), %error, "not watched");
                false
            }
        }
    }

    fn add(&mut self, index: &mut Index, folder: &Path, purpose: Purpose, follows: bool) -> notify::Result<Watched> {
        if self.kernel.is_none() {
            return Err(notify::Error::io(io::Error::from_raw_os_error(nix::libc::EMFILE)));
        }
        let identity = identify(folder, follows).map_err(notify::Error::io)?;
        let before = index.folder(folder).and_then(|id| self.watches.get(&id).map(|watch| (id, *watch)));
        let is_intact = match before {
            Some((id, watch)) if watch.identity != identity => {
                self.release(index, id);
                self.unpin(index, id);
                false
            }
            Some((_, watch)) => !self.drop_former_paths(index, identity) && (watch.purpose == Purpose::Files || watch.purpose == purpose),
            None => {
                self.drop_former_paths(index, identity);
                false
            }
        };
        if before.is_none() && self.watches.len() >= self.limits.watches {
            return Err(notify::Error::new(notify::ErrorKind::MaxFilesWatch));
        }
        if let Some(kernel) = &mut self.kernel {
            kernel.watch(folder)?;
        }
        let now = identify(folder, follows);
        if !now.as_ref().is_ok_and(|now| *now == identity) {
            self.give_up(index, folder, identity, now.is_ok());
            return now.map(|_| Watched::Not).map_err(notify::Error::io);
        }
        let id = index.pin(folder);
        let purpose = before.filter(|_| purpose == Purpose::Root).map_or(purpose, |(_, watch)| watch.purpose);
        self.watches.insert(id, Watch { identity, purpose, follows });
        self.identities.insert((identity, id));
        Ok(if is_intact { Watched::Already } else { Watched::Newly })
    }

    /// Drops the paths that don't lead to a folder any more: it was moved, and
    /// the event that says so is still to come. Tells whether there are any.
    fn drop_former_paths(&mut self, index: &mut Index, identity: Identity) -> bool {
        let leads_elsewhere = |id: &FolderId| {
            let follows = self.watches.get(id).is_some_and(|watch| watch.follows);
            !identify(&index.path(*id), follows).is_ok_and(|now| now == identity)
        };
        let former: Vec<FolderId> = self.known_as(identity).filter(leads_elsewhere).collect();
        for id in &former {
            self.drop_one(index, *id);
        }
        !former.is_empty()
    }

    /// A path came to lead elsewhere while its watch was set.
    fn give_up(&mut self, index: &mut Index, folder: &Path, identity: Identity, is_there: bool) {
        match index.folder(folder).filter(|id| self.watches.contains_key(id)) {
            Some(id) => self.drop_one(index, id),
            None => self.kernel.iter_mut().for_each(|kernel| kernel.unwatch(folder)),
        }
        let same: Vec<FolderId> = self.known_as(identity).collect();
        self.doubtful.extend(same);
        if is_there {
            // It may even have been a link: whose watch was ended nobody knows.
            self.outlet.lose();
        }
    }

    /// The paths that a path may stand for in an event: its own, and those by
    /// which the same folder is known.
    pub(super) fn names(&self, index: &Index, path: PathBuf) -> Vec<PathBuf> {
        let mut names: Vec<PathBuf> = self.other_paths(index, &path);
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            names.extend(self.other_paths(index, parent).into_iter().map(|folder| folder.join(name)));
        }
        names.push(path);
        names
    }

    fn other_paths(&self, index: &Index, folder: &Path) -> Vec<PathBuf> {
        let Some(id) = index.folder(folder) else { return Vec::new() };
        let Some(watch) = self.watches.get(&id) else { return Vec::new() };
        self.known_as(watch.identity).filter(|other| *other != id).map(|other| index.path(other)).collect()
    }

    fn known_as(&self, identity: Identity) -> impl Iterator<Item = FolderId> {
        self.identities.range((identity, TOP)..).take_while(move |(other, _)| *other == identity).map(|(_, id)| *id)
    }

    /// A folder that has to be watched again and read, and whether it is one
    /// below a root.
    pub(super) fn next_doubtful(&mut self, index: &Index) -> Option<(PathBuf, bool)> {
        let id = self.doubtful.pop_first()?;
        let is_for_files = self.watches.get(&id).is_some_and(|watch| watch.purpose == Purpose::Files);
        Some((index.path(id), is_for_files))
    }

    /// Neither watches nor polls a folder, or one below it, any more.
    pub(super) fn drop_at_or_below(&mut self, index: &mut Index, path: &Path) {
        for folder in index.folders_at_or_below(path) {
            self.drop_one(index, folder);
        }
    }

    /// Neither watches nor polls the folders that are not worth it.
    pub(super) fn retain(&mut self, index: &mut Index, mut keep: impl FnMut(&Path) -> bool) {
        let for_files = self.watches.iter().filter(|(_, watch)| watch.purpose == Purpose::Files).map(|(folder, _)| *folder);
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
        let was_watched = self.release(index, folder);
        let was_polled = self.polled.remove(&folder);
        if was_watched || was_polled {
            self.unpin(index, folder);
        }
    }

    fn unpin(&self, index: &mut Index, folder: FolderId) {
        if !self.polled.contains(&folder) && !self.watches.contains_key(&folder) {
            index.unpin(folder);
        }
    }

    /// Ends the watch of a path.
    fn release(&mut self, index: &Index, folder: FolderId) -> bool {
        let Some(Watch { identity, .. }) = self.watches.remove(&folder) else { return false };
        self.identities.remove(&(identity, folder));
        self.doubtful.remove(&folder);
        if let Some(kernel) = &mut self.kernel {
            kernel.unwatch(&index.path(folder));
        }
        let same: Vec<FolderId> = self.known_as(identity).collect();
        self.doubtful.extend(same);
        true
    }
}

/// Which folder a path leads to.
fn identify(path: &Path, follows: bool) -> io::Result<Identity> {
    let metadata = if follows { path.metadata()? } else { path.symlink_metadata()? };
    if !metadata.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(Identity { device: metadata.dev(), inode: metadata.ino() })
}
