//! Keeps what is known in step with the disk: an event, a scan or a poll names
//! a path, the disk says what is there now, and what is news goes on to settle.
//!
//! No event is trusted to tell what a path is: by the time that it is read the
//! path may have been moved, replaced, or be on its way back.

use super::git::Locks;
use super::ignores::Ignores;
use super::inbox::{Kind, Outlet};
use super::index::Index;
use super::kernel::Limits;
use super::names::{decides_about_others, is_repository};
use super::settle::{Settling, Sign};
use super::signature::Signature;
use super::watches::{Watched, Watches};
use super::{Change, ChangeKind, WatchError, WatchRoot};
use std::collections::HashSet;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

/// What to do with the files that a scan finds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Find {
    /// They are as they were: remember them.
    Baseline,
    /// They are new, or nobody was told of what happened to them.
    Doubtful(Instant),
    /// Those that were ignored so far are as they were.
    Unignored(Instant),
}

/// Which folders a scan lists although they were watched all along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    None,
    First,
    All,
}

#[derive(Debug)]
struct Root {
    path: PathBuf,
    ignores: Ignores,
    /// The rules before an ignore file changed, until folders were read again.
    former: Option<Ignores>,
}

#[derive(Debug)]
pub(super) struct View {
    roots: Vec<Root>,
    pub(super) watches: Watches,
    pub(super) index: Index,
    pub(super) settling: Settling,
    pub(super) locks: Locks,
    /// Whether a root could be replaced without an event.
    is_loose: bool,
    rules_changed: Option<Instant>,
}

impl View {
    /// Watches `roots` and has events told by `outlet`.
    pub(super) fn new(roots: Vec<WatchRoot>, limits: Limits, outlet: Outlet) -> Result<Self, WatchError> {
        let watches = Watches::open(limits, outlet).map_err(WatchError::System)?;
        let mut view = Self {
            roots: Vec::new(),
            watches,
            index: Index::default(),
            settling: Settling::default(),
            locks: Locks::default(),
            is_loose: false,
            rules_changed: None,
        };
        for WatchRoot { path, rules, ignore } in roots {
            if !path.is_absolute() {
                return Err(WatchError::Relative(path));
            }
            view.locks.mind_around(&path);
            view.roots.push(Root { ignores: Ignores::new(&path, rules, &ignore)?, former: None, path });
        }
        view.scan_roots(Find::Baseline, Again::All)?;
        view.resolve_doubts()?;
        Ok(view)
    }

    /// Takes in what is told of a path.
    pub(super) fn take(&mut self, at: Instant, path: PathBuf, kind: Kind) -> Result<(), WatchError> {
        for path in self.watches.names(&self.index, path) {
            self.look(at, &path, kind)?;
        }
        self.resolve_doubts()
    }

    /// Reads all folders again, as events were lost.
    pub(super) fn recover(&mut self, at: Instant) -> Result<(), WatchError> {
        tracing::debug!("file events were lost; reading the folders again");
        self.renew_rules();
        self.drop_ignored();
        self.scan_roots(Find::Doubtful(at), Again::All)?;
        self.forget_former_rules();
        self.resolve_doubts()
    }

    /// Reads folders again whose watches may have ended.
    fn resolve_doubts(&mut self) -> Result<(), WatchError> {
        while let Some((folder, is_for_files)) = self.watches.next_doubtful(&self.index) {
            let find = Find::Doubtful(Instant::now());
            if is_for_files {
                self.scan(folder, find, Again::First);
            } else {
                self.scan_roots(find, Again::None)?;
            }
        }
        Ok(())
    }

    /// Reads folders again if other files are ignored than before.
    pub(super) fn follow_rules(&mut self) -> Result<(), WatchError> {
        if let Some(at) = self.rules_changed.take() {
            self.drop_ignored();
            self.scan_roots(Find::Unignored(at), Again::All)?;
            self.forget_former_rules();
        }
        self.resolve_doubts()
    }

    /// When to poll next.
    pub(super) fn polling_deadline(&self, now: Instant) -> Option<Instant> {
        self.watches.polling.deadline(now, self.is_loose || !self.watches.polled.is_empty())
    }

    /// Looks at some of what can't be watched, or watches it if it can be now.
    pub(super) fn poll(&mut self, now: Instant) -> Result<(), WatchError> {
        if self.watches.polling.begin(now, &self.watches.polled) {
            self.watches.reopen().map_err(WatchError::System)?;
            if self.is_loose {
                self.scan_roots(Find::Doubtful(now), Again::None)?;
            }
        }
        let mut seen = 0;
        while let Some(folder) = self.watches.polling.next_folder(seen) {
            if !self.watches.polled.contains(&folder) {
                continue;
            }
            let path = self.index.path(folder);
            if self.facts(&path).is_some_and(|metadata| metadata.is_dir()) {
                seen += 1 + self.scan(path, Find::Doubtful(now), Again::First);
            } else {
                self.look(now, &path, Kind::Left)?;
            }
        }
        if self.is_loose || !self.watches.polled.is_empty() {
            self.watches.polling.end(Instant::now(), seen);
        } else {
            self.watches.polling.rest();
        }
        self.resolve_doubts()
    }

    /// What the disk says about a path now; `None` if that is what it said last.
    pub(super) fn truth(&mut self, path: PathBuf) -> Option<Change> {
        match self.facts(&path) {
            Some(metadata) if is_entry(&metadata) => {
                self.index.record(&path, Signature::new(&metadata, SystemTime::now()));
                Some(Change { path, kind: ChangeKind::Modified })
            }
            _ => self.index.forget(&path).then_some(Change { path, kind: ChangeKind::Removed }),
        }
    }

    fn look(&mut self, at: Instant, path: &Path, kind: Kind) -> Result<(), WatchError> {
        if is_repository(path) {
            self.locks.mind(path);
        }
        let is_above_root = self.roots.iter().any(|root| root.path != *path && root.path.starts_with(path));
        let is_root = self.roots.iter().any(|root| root.path == *path);
        let facts = self.facts(path);
        let is_folder = facts.as_ref().is_some_and(Metadata::is_dir);
        if kind == Kind::Left {
            // Its watch, and those below, ended or are of what is elsewhere now.
            self.watches.drop_at_or_below(&mut self.index, path);
        }
        if is_folder {
            if self.index.contains(path) {
                self.settling.observe(at, path, Sign::Gone, true);
            }
            if self.is_relevant(path, true) {
                self.scan(path.to_owned(), Find::Doubtful(at), Again::None);
            }
        } else {
            self.leave(at, path);
        }
        if is_above_root || (is_root && (is_folder || facts.is_none())) {
            self.scan_roots(Find::Doubtful(at), Again::None)?;
        }
        if !is_folder && self.is_relevant(path, false) {
            self.look_at_file(at, path, kind, facts.as_ref().filter(|metadata| is_entry(metadata)));
        }
        Ok(())
    }

    fn look_at_file(&mut self, at: Instant, path: &Path, kind: Kind, entry: Option<&Metadata>) {
        let (is_known, is_pending) = (self.index.contains(path), self.settling.is_pending(path));
        if decides_about_others(path) && !matches!(kind, Kind::Created | Kind::Written) {
            self.rules_changed.get_or_insert(at);
            self.renew_rules();
        }
        let Some(metadata) = entry else {
            if is_known || is_pending {
                self.settling.observe(at, path, Sign::Gone, is_known);
            }
            return;
        };
        let signature = Signature::new(metadata, SystemTime::now());
        let sign = match kind {
            // No event will say that it is whole: it is, or has another name.
            Kind::Created if !metadata.is_file() || std::os::unix::fs::MetadataExt::nlink(metadata) > 1 => Sign::Found(at),
            Kind::Created | Kind::Written => Sign::Writing,
            // Opened to be written to, and left alone.
            Kind::Closed if !is_pending && !self.index.may_differ(path, signature) => return,
            Kind::Closed | Kind::Arrived => Sign::Whole,
            Kind::Attributes if is_pending || !self.index.differs(path, signature) => return,
            Kind::Attributes => Sign::Whole,
            Kind::Left if is_known => Sign::Gone,
            // Another took its place.
            Kind::Left => Sign::Found(at),
        };
        self.settling.observe(at, path, sign, is_known);
    }

    /// A path is no folder any more: what was below it is gone.
    fn leave(&mut self, at: Instant, path: &Path) {
        if self.index.folder(path).is_none() {
            return;
        }
        for file in self.index.at_or_below(path) {
            if file != *path {
                self.settling.observe(at, &file, Sign::Gone, true);
            }
        }
        self.watches.drop_at_or_below(&mut self.index, path);
    }

    /// Watches every root, and what is above it, where it may be replaced.
    fn scan_roots(&mut self, find: Find, again: Again) -> Result<(), WatchError> {
        self.is_loose = false;
        let paths: Vec<PathBuf> = self.roots.iter().map(|root| root.path.clone()).collect();
        for path in paths {
            let is_held = self.hold(&path)?;
            self.is_loose |= !is_held;
            match self.facts(&path) {
                Some(metadata) if metadata.is_dir() => _ = self.scan(path, find, again),
                Some(metadata) if is_entry(&metadata) => self.found(&path, &metadata, find),
                _ => {
                    let at = Instant::now();
                    self.leave(at, &path);
                    if self.index.contains(&path) {
                        self.settling.observe(at, &path, Sign::Gone, true);
                    }
                }
            }
        }
        Ok(())
    }

    /// Watches what is above a root; tells whether its coming and going is told.
    fn hold(&mut self, root: &Path) -> Result<bool, WatchError> {
        let nearest = |_: &Path| root.ancestors().skip(1).find(|folder| folder.is_dir());
        let mut held = nearest(root);
        loop {
            let Some(folder) = held else { return Err(WatchError::NotFound(root.to_owned())) };
            let is_held = self.watches.watch_above(&mut self.index, folder);
            for above in folder.ancestors().skip(1) {
                self.watches.watch_above(&mut self.index, above);
            }
            // One below may have come before the watch was set.
            let now = nearest(root);
            if now == held {
                return Ok(is_held);
            }
            held = now;
        }
    }

    /// Watches a folder and all below, and looks at the files that are there
    /// already: those made before the watch was set gave no event. Tells how
    /// many entries it looked at.
    fn scan(&mut self, folder: PathBuf, find: Find, again: Again) -> usize {
        let (mut folders, mut seen, mut is_first) = (vec![folder], 0, true);
        while let Some(folder) = folders.pop() {
            let is_wanted = again == Again::All || (again == Again::First && is_first);
            is_first = false;
            let is_root = self.roots.iter().any(|root| root.path == folder);
            // First watched, then listed: a file is in one of the two.
            match self.watches.watch(&mut self.index, &folder, is_root) {
                Watched::Newly => {}
                Watched::Already if is_wanted => {}
                Watched::Already | Watched::Not => continue,
            }
            seen += self.list(&folder, find, &mut folders);
        }
        seen
    }

    /// Compares a folder with what is known of it; adds those in it to
    /// `folders`. Tells how many entries it has.
    fn list(&mut self, folder: &Path, find: Find, folders: &mut Vec<PathBuf>) -> usize {
        let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
        let mut listed = (!self.index.is_empty(folder)).then(HashSet::new);
        let mut count = 0;
        let at = match find {
            Find::Baseline => Instant::now(),
            Find::Doubtful(at) | Find::Unignored(at) => at,
        };
        for entry in entries.flatten() {
            count += 1;
            let (path, is_folder) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
            if is_repository(&path) {
                self.locks.mind(&path);
            }
            if self.is_relevant(&path, is_folder) {
                if is_folder {
                    if self.index.contains(&path) {
                        self.settling.observe(at, &path, Sign::Gone, true);
                    }
                    folders.push(path);
                } else {
                    self.leave(at, &path);
                    match entry.metadata() {
                        Ok(metadata) if is_entry(&metadata) => self.found(&path, &metadata, find),
                        _ if self.index.contains(&path) => self.settling.observe(at, &path, Sign::Gone, true),
                        _ => {}
                    }
                }
            }
            if let Some(listed) = &mut listed {
                listed.insert(entry.file_name());
            }
        }
        for path in listed.map(|listed| self.index.missing(folder, &listed)).unwrap_or_default() {
            self.leave(at, &path);
            if self.index.contains(&path) {
                self.settling.observe(at, &path, Sign::Gone, true);
            }
        }
        count
    }

    fn found(&mut self, path: &Path, metadata: &Metadata, find: Find) {
        // What waits will be read when it is reported.
        if self.settling.is_pending(path) {
            return;
        }
        let is_known = self.index.contains(path);
        let signature = Signature::new(metadata, SystemTime::now());
        let since = match find {
            Find::Baseline => None,
            Find::Unignored(_) if self.was_ignored(path) => None,
            Find::Unignored(at) => self.index.differs(path, signature).then_some(at),
            Find::Doubtful(at) => self.index.may_differ(path, signature).then_some(at),
        };
        match since {
            Some(since) => self.settling.observe(Instant::now(), path, Sign::Found(since), is_known),
            None if !is_known => self.index.record(path, signature),
            None => {}
        }
    }

    /// What is at a path: a link is what it is, but for a root that is one.
    /// Nothing is below a link, whatever it leads to.
    fn facts(&self, path: &Path) -> Option<Metadata> {
        let is_folder = |folder: &Path| folder.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        let mut reaching = self.roots.iter().filter(|root| path.starts_with(&root.path)).peekable();
        if reaching.peek().is_none() {
            return path.symlink_metadata().ok();
        }
        let mut is_reached = |root: &Root| path.ancestors().skip(1).take_while(|folder| *folder != root.path).all(is_folder);
        if self.roots.iter().any(|root| root.path == path)
            && let Ok(metadata) = path.metadata()
        {
            return Some(metadata);
        }
        if reaching.any(&mut is_reached) { path.symlink_metadata().ok() } else { None }
    }

    fn is_relevant(&mut self, path: &Path, is_folder: bool) -> bool {
        self.roots.iter_mut().any(|root| path.starts_with(&root.path) && !root.ignores.is_ignored(path, is_folder))
    }

    fn was_ignored(&mut self, path: &Path) -> bool {
        let covers =
            |root: &mut Root| path.starts_with(&root.path) && !root.former.as_mut().is_some_and(|former| former.is_ignored(path, false));
        !self.roots.iter_mut().any(covers)
    }

    fn renew_rules(&mut self) {
        for root in &mut self.roots {
            let renewed = root.ignores.renewed();
            let former = std::mem::replace(&mut root.ignores, renewed);
            root.former.get_or_insert(former);
        }
    }

    fn forget_former_rules(&mut self) {
        self.rules_changed = None;
        for root in &mut self.roots {
            root.former = None;
        }
    }

    fn drop_ignored(&mut self) {
        let Self { roots, watches, index, .. } = self;
        let mut is_relevant =
            |path: &Path, is_folder| roots.iter_mut().any(|root| path.starts_with(&root.path) && !root.ignores.is_ignored(path, is_folder));
        index.retain(|path| is_relevant(path, false));
        let mut is_relevant = |folder: &Path| {
            roots
                .iter_mut()
                .any(|root| root.path.starts_with(folder) || (folder.starts_with(&root.path) && !root.ignores.is_ignored(folder, true)))
        };
        watches.retain(index, &mut is_relevant);
    }
}

/// What a change is reported of: a file, or a link as itself.
fn is_entry(metadata: &Metadata) -> bool {
    metadata.is_file() || metadata.is_symlink()
}
