//! The files below a root, once.

use super::WatchRoot;
use super::ignores::Ignores;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// All files and links below a root that its rules leave, in order; the root
/// itself if it is a file, or a link that leads nowhere. Folders that can't be
/// read are passed over, and nothing is found by patterns that are none: who
/// watches the root is told of them.
///
/// One folder is open at a time, and besides the result only the names in the
/// folders above it are kept.
pub fn list(root: &WatchRoot) -> Vec<PathBuf> {
    let is_folder = match root.path.metadata().or_else(|_| root.path.symlink_metadata()) {
        Ok(metadata) if metadata.is_dir() => true,
        Ok(metadata) if metadata.is_file() || metadata.is_symlink() => false,
        _ => return Vec::new(),
    };
    if !is_folder {
        return vec![root.path.clone()];
    }
    let Ok(mut ignores) = Ignores::new(&root.path, root.rules, &root.ignore) else { return Vec::new() };
    let mut files = Vec::new();
    let mut open = vec![(root.path.clone(), entries(&root.path))];
    while let Some((folder, waiting)) = open.last_mut() {
        let Some(Entry { name, is_folder }) = waiting.next() else {
            open.pop();
            continue;
        };
        let path = folder.join(name);
        if ignores.is_ignored(&path, is_folder) {
            continue;
        }
        if is_folder {
            let entries = entries(&path);
            open.push((path, entries));
        } else {
            files.push(path);
        }
    }
    files
}

struct Entry {
    name: OsString,
    is_folder: bool,
}

/// The folders, files and links in a folder, in order.
fn entries(folder: &Path) -> std::vec::IntoIter<Entry> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if let Ok(kind) = entry.file_type()
            && (kind.is_dir() || kind.is_file() || kind.is_symlink())
        {
            found.push(Entry { name: entry.file_name(), is_folder: kind.is_dir() });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_links_that_the_rules_leave() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("sub/node_modules")).unwrap();
        for name in ["b.txt", "a.log", "sub/c.txt", "sub/node_modules/d.txt", "sub/x~"] {
            std::fs::write(root.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("b.txt", root.join("link")).unwrap();
        let found = list(&WatchRoot::content(root).ignoring(["*.log".to_owned()]));
        let names: Vec<_> = found.iter().map(|path| path.strip_prefix(root).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["b.txt", "link", "sub/c.txt"]);
        assert_eq!(list(&WatchRoot::content(root.join("b.txt"))), [root.join("b.txt")]);
        assert!(list(&WatchRoot::content(root.join("nothing"))).is_empty());
    }

    #[test]
    fn they_come_in_the_order_of_paths_and_what_is_no_file_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["a-b/x", "a/x", "a/b/c/x", "a.txt", "z"] {
            std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            std::fs::write(root.join(name), "").unwrap();
        }
        let socket = root.join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let (to_root, to_nothing) = (root.join("z-root"), root.join("z-nothing"));
        std::os::unix::fs::symlink("a", &to_root).unwrap();
        std::os::unix::fs::symlink("nothing", &to_nothing).unwrap();
        let found = list(&WatchRoot::content(root));
        assert!(found.is_sorted() && found.len() == 7, "{found:?}");
        assert_eq!(list(&WatchRoot::content(&to_root)), [to_root.join("b/c/x"), to_root.join("x")], "a root that is a link is followed");
        assert_eq!(list(&WatchRoot::content(&to_nothing)), [to_nothing]);
        assert!(list(&WatchRoot::content(&socket)).is_empty());
    }

    #[test]
    fn a_deep_tree_takes_neither_descriptors_nor_stack() {
        let folder = tempfile::tempdir().unwrap();
        let deep = (0..1_500).fold(folder.path().to_owned(), |path, _| path.join("d"));
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("f"), "").unwrap();
        assert_eq!(list(&WatchRoot::content(folder.path())), [deep.join("f")]);
    }
}
