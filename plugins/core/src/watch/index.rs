//! The folders and files below all roots: what the files looked like when they
//! were last reported. Tells a new file from a changed one, and finds what
//! changed when events were lost.
//!
//! A folder's name is held once and a file costs little more than its own, so
//! that a tree of some hundred thousand files stays small.

use super::signature::Signature;
use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// One folder, for as long as it is pinned or something below it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FolderId(usize);

/// The folder of all folders, which is always there.
pub(super) const TOP: FolderId = FolderId(0);

#[derive(Debug)]
struct Folder {
    parent: FolderId,
    name: Box<OsStr>,
    files: BTreeMap<Box<OsStr>, Signature>,
    folders: BTreeMap<Box<OsStr>, FolderId>,
    is_pinned: bool,
}

impl Folder {
    fn new(parent: FolderId, name: &OsStr) -> Self {
        Self { parent, name: name.into(), files: BTreeMap::new(), folders: BTreeMap::new(), is_pinned: false }
    }
}

/// The files below all roots, by path.
#[derive(Debug)]
pub(super) struct Index {
    /// By [`FolderId`]; those that are free are listed.
    folders: Vec<Folder>,
    free: Vec<FolderId>,
}

impl Default for Index {
    fn default() -> Self {
        Self { folders: vec![Folder::new(TOP, OsStr::new(""))], free: Vec::new() }
    }
}

impl Index {
    /// Whether `path` is a known file.
    pub(super) fn contains(&self, path: &Path) -> bool {
        self.signature(path).is_some()
    }

    /// Remembers what a file looks like.
    pub(super) fn record(&mut self, path: &Path, signature: Signature) {
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            let FolderId(folder) = self.enter(parent);
            self.folders[folder].files.insert(name.into(), signature);
        }
    }

    /// Forgets a file; tells whether it was known.
    pub(super) fn forget(&mut self, path: &Path) -> bool {
        let (Some(folder), Some(name)) = (path.parent().and_then(|parent| self.folder(parent)), path.file_name()) else {
            return false;
        };
        let was_known = self.folders[folder.0].files.remove(name).is_some();
        self.prune(folder);
        was_known
    }

    /// Forgets the files that are not worth keeping.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Path) -> bool) {
        for path in self.at_or_below(Path::new("/")) {
            if !keep(&path) {
                self.forget(&path);
            }
        }
    }

    /// `path`, if it is a known file, and the known files below it, ordered by
    /// component.
    pub(super) fn at_or_below(&self, path: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        if self.contains(path) {
            found.push(path.to_owned());
        }
        if let Some(folder) = self.folder(path) {
            self.collect(folder, &mut path.to_owned(), &mut found);
        }
        found
    }

    /// Whether a file looks other than it was recorded.
    pub(super) fn differs(&self, path: &Path, signature: Signature) -> bool {
        self.signature(path).is_none_or(|known| !known.same(signature))
    }

    /// Like [`Index::differs`], for when events were lost: in doubt it did.
    pub(super) fn may_differ(&self, path: &Path, signature: Signature) -> bool {
        self.signature(path).is_none_or(|known| known.is_racy() || !known.same(signature))
    }

    /// What is known in `folder` and is not among the `listed` names.
    pub(super) fn missing(&self, folder: &Path, listed: &HashSet<OsString>) -> Vec<PathBuf> {
        let Some(FolderId(id)) = self.folder(folder) else { return Vec::new() };
        let Folder { files, folders, .. } = &self.folders[id];
        files.keys().chain(folders.keys()).filter(|name| !listed.contains(&***name)).map(|name| folder.join(&**name)).collect()
    }

    /// Whether anything is known in a folder.
    pub(super) fn is_empty(&self, folder: &Path) -> bool {
        self.folder(folder).is_none_or(|FolderId(id)| self.folders[id].files.is_empty() && self.folders[id].folders.is_empty())
    }

    /// The id of a folder.
    pub(super) fn folder(&self, path: &Path) -> Option<FolderId> {
        names(path).try_fold(TOP, |FolderId(folder), name| self.folders[folder].folders.get(name).copied())
    }

    /// The folders at and below a path.
    pub(super) fn folders_at_or_below(&self, path: &Path) -> Vec<FolderId> {
        let mut found: Vec<FolderId> = self.folder(path).into_iter().collect();
        let mut next = 0;
        while let Some(FolderId(folder)) = found.get(next).copied() {
            found.extend(self.folders[folder].folders.values());
            next += 1;
        }
        found
    }

    /// The path of a folder.
    pub(super) fn path(&self, folder: FolderId) -> PathBuf {
        let mut names = Vec::new();
        let mut next = folder;
        while next != TOP {
            let Folder { parent, name, .. } = &self.folders[next.0];
            names.push(name);
            next = *parent;
        }
        let mut path = PathBuf::from("/");
        path.extend(names.into_iter().rev().map(|name| Path::new(&**name)));
        path
    }

    /// Keeps a folder's id valid until it is unpinned.
    pub(super) fn pin(&mut self, path: &Path) -> FolderId {
        let folder = self.enter(path);
        self.folders[folder.0].is_pinned = true;
        folder
    }

    /// Undoes [`Index::pin`].
    pub(super) fn unpin(&mut self, folder: FolderId) {
        self.folders[folder.0].is_pinned = false;
        self.prune(folder);
    }

    fn signature(&self, path: &Path) -> Option<Signature> {
        let FolderId(folder) = self.folder(path.parent()?)?;
        self.folders[folder].files.get(path.file_name()?).copied()
    }

    /// The id of a folder, which is made if it is new.
    fn enter(&mut self, path: &Path) -> FolderId {
        let mut current = TOP;
        for name in names(path) {
            current = match self.folders[current.0].folders.get(name) {
                Some(folder) => *folder,
                None => self.add(current, name),
            };
        }
        current
    }

    fn add(&mut self, parent: FolderId, name: &OsStr) -> FolderId {
        let folder = Folder::new(parent, name);
        let id = match self.free.pop() {
            Some(id) => {
                self.folders[id.0] = folder;
                id
            }
            None => {
                self.folders.push(folder);
                FolderId(self.folders.len() - 1)
            }
        };
        self.folders[parent.0].folders.insert(name.into(), id);
        id
    }

    /// Drops a folder of which nothing is known any more, and those above that
    /// were there for it alone.
    fn prune(&mut self, folder: FolderId) {
        let mut next = folder;
        while next != TOP {
            let Folder { parent, name, files, folders, is_pinned } = &self.folders[next.0];
            if *is_pinned || !files.is_empty() || !folders.is_empty() {
                return;
            }
            let (parent, name) = (*parent, name.clone());
            self.folders[parent.0].folders.remove(&name);
            self.free.push(next);
            next = parent;
        }
    }

    fn collect(&self, FolderId(folder): FolderId, path: &mut PathBuf, found: &mut Vec<PathBuf>) {
        let Folder { files, folders, .. } = &self.folders[folder];
        let mut files = files.keys().peekable();
        for (name, below) in folders {
            while let Some(file) = files.next_if(|file| **file <= *name) {
                found.push(path.join(&**file));
            }
            path.push(&**name);
            self.collect(*below, path, found);
            path.pop();
        }
        found.extend(files.map(|file| path.join(&**file)));
    }
}

fn names(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter(|component| !matches!(component, Component::RootDir)).map(Component::as_os_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::SystemTime;

    fn signature() -> Signature {
        Signature::new(&std::fs::metadata("/").unwrap(), SystemTime::now())
    }

    #[test]
    fn what_is_below_a_folder_is_found_and_its_name_sakes_are_not() {
        let mut index = Index::default();
        for path in ["/a", "/a.b", "/a-b/x", "/a/x", "/a/y/z", "/b"] {
            index.record(Path::new(path), signature());
        }
        assert_eq!(index.at_or_below(Path::new("/a")), ["/a", "/a/x", "/a/y/z"].map(PathBuf::from));
    }

    #[test]
    fn a_file_just_written_is_in_doubt() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "x").unwrap();
        let signature = || Signature::new(&path.metadata().unwrap(), SystemTime::now());
        let mut index = Index::default();
        index.record(&path, signature());
        assert!(!index.differs(&path, signature()));
        assert!(index.may_differ(&path, signature()));
    }

    #[test]
    fn an_id_holds_while_it_is_pinned_and_folders_without_use_are_dropped() {
        let mut index = Index::default();
        index.record(Path::new("/a/b/c"), signature());
        let pinned = index.pin(Path::new("/a/b"));
        assert!(index.forget(Path::new("/a/b/c")));
        assert!(!index.forget(Path::new("/a/b/c")) && !index.forget(Path::new("/x/y")));
        assert_eq!(index.path(pinned), Path::new("/a/b"));
        assert_eq!(index.folders_at_or_below(Path::new("/a")).len(), 2);
        index.unpin(pinned);
        assert_eq!(index.folder(Path::new("/a")), None);
        index.record(Path::new("/d/e/f"), signature());
        assert_eq!(index.folders.len(), 3, "what was dropped is used again");
    }

    #[test]
    fn what_a_listing_lacks_is_missing() {
        let mut index = Index::default();
        for path in ["/a/x", "/a/y", "/a/z/f"] {
            index.record(Path::new(path), signature());
        }
        let listed = HashSet::from([OsString::from("y")]);
        assert_eq!(index.missing(Path::new("/a"), &listed), ["/a/x", "/a/z"].map(PathBuf::from));
        assert!(index.is_empty(Path::new("/b")) && !index.is_empty(Path::new("/a")));
    }

    proptest! {
        #[test]
        fn it_is_an_ordered_set_of_paths(
            steps in proptest::collection::vec((any::<bool>(), "(/[ab.][ab-]?){1,4}"), 1..60),
            below in "(/[ab.][ab-]?){1,2}",
        ) {
            let (mut index, mut model) = (Index::default(), std::collections::BTreeSet::new());
            for (insert, path) in &steps {
                let path = PathBuf::from(path);
                if path.file_name().is_none() || path.components().any(|component| component == Component::ParentDir) {
                    continue;
                }
                if *insert {
                    index.record(&path, signature());
                    model.insert(path);
                } else {
                    prop_assert_eq!(index.forget(&path), model.remove(&path));
                }
            }
            let expected: Vec<PathBuf> = model.iter().filter(|path| path.starts_with(&below)).cloned().collect();
            prop_assert_eq!(index.at_or_below(Path::new(&below)), expected);
            prop_assert_eq!(index.at_or_below(Path::new("/")), model.into_iter().collect::<Vec<_>>());
        }
    }
}
