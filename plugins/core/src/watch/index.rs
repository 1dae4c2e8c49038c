//! What the files looked like when they were last reported: tells a new file
//! from a changed one, and finds what changed when events were lost.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Two writes closer than this may leave the same modification time.
const CLOCK_GRAIN: Duration = Duration::from_millis(20);

/// What a change of content or permissions leaves different.
#[derive(Clone, Copy, Debug)]
struct Signature {
    modified: (i64, i64),
    size: u64,
    mode: u32,
    inode: u64,
    recorded: SystemTime,
}

impl Signature {
    fn new(metadata: &Metadata) -> Self {
        Self {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.size(),
            mode: metadata.mode(),
            inode: metadata.ino(),
            recorded: SystemTime::now(),
        }
    }

    fn same(&self, other: &Self) -> bool {
        (self.modified, self.size, self.mode, self.inode) == (other.modified, other.size, other.mode, other.inode)
    }

    /// Whether the file could have been written again, unseen, with the same
    /// modification time (git calls such an entry racy).
    fn is_racy(&self) -> bool {
        let modified = SystemTime::UNIX_EPOCH
            + Duration::new(u64::try_from(self.modified.0).unwrap_or_default(), u32::try_from(self.modified.1).unwrap_or_default());
        modified + CLOCK_GRAIN >= self.recorded
    }
}

/// The files below all roots, by path.
#[derive(Debug, Default)]
pub(super) struct Index {
    files: BTreeMap<PathBuf, Signature>,
}

impl Index {
    pub(super) fn contains(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    pub(super) fn record(&mut self, path: &Path, metadata: &Metadata) {
        self.files.insert(path.to_owned(), Signature::new(metadata));
    }

    /// Forgets a path; tells whether it was there.
    pub(super) fn forget(&mut self, path: &Path) -> bool {
        self.files.remove(path).is_some()
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Path) -> bool) {
        self.files.retain(|path, _| keep(path));
    }

    /// `path`, if it is a known file, and the known files below it.
    pub(super) fn at_or_below(&self, path: &Path) -> Vec<PathBuf> {
        // Paths are ordered by component: what is below follows at once.
        self.files.range(path.to_owned()..).map(|(file, _)| file).take_while(|file| file.starts_with(path)).cloned().collect()
    }

    /// Whether a file looks other than it was recorded.
    pub(super) fn differs(&self, path: &Path, metadata: &Metadata) -> bool {
        self.files.get(path).is_none_or(|known| !known.same(&Signature::new(metadata)))
    }

    /// Like [`Index::differs`], for when events were lost: in doubt it did.
    pub(super) fn may_differ(&self, path: &Path, metadata: &Metadata) -> bool {
        self.files.get(path).is_none_or(|known| known.is_racy() || !known.same(&Signature::new(metadata)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_folder_is_found_and_its_name_sakes_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = folder.path().metadata().unwrap();
        let mut index = Index::default();
        for path in ["/a", "/a.b", "/a-b/x", "/a/x", "/a/y/z", "/b"] {
            index.record(Path::new(path), &metadata);
        }
        let below: Vec<_> = index.at_or_below(Path::new("/a")).into_iter().map(|path| path.display().to_string()).collect();
        assert_eq!(below, ["/a", "/a/x", "/a/y/z"]);
    }

    #[test]
    fn a_file_just_written_is_in_doubt() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "x").unwrap();
        let mut index = Index::default();
        index.record(&path, &path.metadata().unwrap());
        assert!(!index.differs(&path, &path.metadata().unwrap()));
        assert!(index.may_differ(&path, &path.metadata().unwrap()));
    }
}
