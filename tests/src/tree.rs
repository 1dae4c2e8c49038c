//! What lies in a folder, to compare: of this machine, or in a container.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Everything below a folder, by the path from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<PathBuf, Entry>);

/// One file, folder or link.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    content: Content,
    mode: u32,
    owner: (u32, u32),
    /// Seconds and nanoseconds; of files only.
    modified: Option<(i64, i64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Folder,
    File(Vec<u8>),
    Link(PathBuf),
    /// A pipe, a socket or a device.
    Other,
}

impl Tree {
    /// Reads a folder. What vanishes meanwhile isn't in it.
    pub fn read(folder: &Path) -> Self {
        let mut tree = Self::default();
        tree.add(folder, Path::new(""));
        tree
    }

    fn add(&mut self, folder: &Path, relative: &Path) {
        for entry in std::fs::read_dir(folder.join(relative)).into_iter().flatten().flatten() {
            let path = entry.path();
            let relative = relative.join(entry.file_name());
            let Ok(metadata) = path.symlink_metadata() else { continue };
            let kind = metadata.file_type();
            let content = if kind.is_dir() {
                Some(Content::Folder)
            } else if kind.is_file() {
                std::fs::read(&path).ok().map(Content::File)
            } else if kind.is_symlink() {
                std::fs::read_link(&path).ok().map(Content::Link)
            } else {
                Some(Content::Other)
            };
            let Some(content) = content else { continue };
            let modified = kind.is_file().then(|| (metadata.mtime(), metadata.mtime_nsec()));
            self.0.insert(relative.clone(), Entry { content, mode: metadata.mode(), owner: (metadata.uid(), metadata.gid()), modified });
            if kind.is_dir() {
                self.add(folder, &relative);
            }
        }
    }

    /// The files and links, as a sync brings them: no owners, no times, no
    /// folders without anything in them.
    #[must_use]
    pub fn files(self) -> Self {
        let plain = |entry: Entry| Entry { mode: 0, owner: (0, 0), modified: None, ..entry };
        Self(self.0.into_iter().filter(|(_, entry)| entry.content != Content::Folder).map(|(path, entry)| (path, plain(entry))).collect())
    }

    /// The same with no times.
    #[must_use]
    pub fn without_times(self) -> Self {
        Self(self.0.into_iter().map(|(path, entry)| (path, Entry { modified: None, ..entry })).collect())
    }

    /// The same without one entry: what the service itself writes.
    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        self.0.remove(Path::new(path));
        self
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is different in another, a few of it; empty for equals.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut paths: Vec<&PathBuf> = self.0.keys().chain(other.0.keys()).collect();
        paths.sort();
        paths.dedup();
        let of = |tree: &Self, path: &PathBuf| tree.0.get(path).map_or_else(|| "nothing".to_owned(), Entry::describe);
        let differs = |path: &&PathBuf| self.0.get(*path) != other.0.get(*path);
        let line = |path: &PathBuf| format!("{}: {} / {}", path.display(), of(self, path), of(other, path));
        paths.into_iter().filter(differs).take(10).map(line).collect()
    }
}

impl Entry {
    fn describe(&self) -> String {
        let content = match &self.content {
            Content::Folder => "folder".to_owned(),
            Content::File(bytes) => format!("{} bytes {:?}", bytes.len(), String::from_utf8_lossy(&bytes[..bytes.len().min(40)])),
            Content::Link(target) => format!("link to {}", target.display()),
            Content::Other => "special file".to_owned(),
        };
        let times = self.modified.map(|(seconds, nanoseconds)| format!(" at {seconds}.{nanoseconds:09}")).unwrap_or_default();
        format!("{content}, {:o} {:?}{times}", self.mode, self.owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_trees_have_no_differences_and_others_are_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        std::fs::write(folder.path().join("deep/a"), "one").unwrap();
        std::os::unix::fs::symlink("a", folder.path().join("deep/link")).unwrap();
        let before = Tree::read(folder.path());
        assert_eq!(before.len(), 3);
        assert!(before.differences(&Tree::read(folder.path())).is_empty());
        std::fs::write(folder.path().join("deep/a"), "two").unwrap();
        let after = Tree::read(folder.path());
        let found = before.differences(&after);
        assert!(found.len() == 1 && found[0].starts_with("deep/a: 3 bytes \"one\""), "{found:?}");
        // A folder alone is nothing that is brought anywhere.
        std::fs::create_dir(folder.path().join("empty")).unwrap();
        assert!(after.files().differences(&Tree::read(folder.path()).files()).is_empty());
    }
}
