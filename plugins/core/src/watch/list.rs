//! The files below a root, once.

use super::WatchRoot;
use super::ignores::Ignores;
use std::path::{Path, PathBuf};

/// All files and links below a root that its rules leave, in order; the root
/// itself if it is a file. Folders that can't be read are passed over.
pub fn list(root: &WatchRoot) -> Vec<PathBuf> {
    let Ok(metadata) = root.path.metadata() else { return Vec::new() };
    if !metadata.is_dir() {
        return vec![root.path.clone()];
    }
    // A pattern that can't be read was refused when watching began.
    let Ok(mut ignores) = Ignores::new(&root.path, root.rules, &root.ignore) else { return Vec::new() };
    let mut files = Vec::new();
    walk(&root.path, &mut ignores, &mut files);
    files
}

fn walk(folder: &Path, ignores: &mut Ignores, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if ignores.is_ignored(&path, kind.is_dir()) {
            continue;
        }
        if kind.is_dir() {
            walk(&path, ignores, files);
        } else if kind.is_file() || kind.is_symlink() {
            files.push(path);
        }
    }
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
}
