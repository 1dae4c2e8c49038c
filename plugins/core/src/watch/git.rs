//! Whether git is rewriting a work tree: it holds a lock while it does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A lock that is older was left behind by a git that crashed.
const STALE: Duration = Duration::from_secs(30);

/// The locks of the repositories around and below all roots.
#[derive(Debug, Default)]
pub(super) struct Locks {
    files: BTreeSet<PathBuf>,
}

impl Locks {
    /// Minds the repository that `path` is in.
    pub(super) fn mind_around(&mut self, path: &Path) {
        let dot_git = path.ancestors().map(|folder| folder.join(".git")).find(|candidate| candidate.exists());
        if let Some(dot_git) = dot_git {
            self.mind(&dot_git);
        }
    }

    /// Minds the repository of this `.git`.
    pub(super) fn mind(&mut self, dot_git: &Path) {
        self.files.extend(lock(dot_git));
    }

    /// Whether any is held.
    pub(super) fn are_held(&self) -> bool {
        self.files.iter().any(|lock| is_held(lock))
    }
}

fn lock(dot_git: &Path) -> Option<PathBuf> {
    if dot_git.is_dir() {
        return Some(dot_git.join("index.lock"));
    }
    // A linked work tree: the file names its folder (gitrepository-layout(5)).
    let content = std::fs::read_to_string(dot_git).ok()?;
    let folder = content.trim().strip_prefix("gitdir:")?.trim();
    Some(dot_git.parent()?.join(folder).join("index.lock"))
}

fn is_held(lock: &Path) -> bool {
    let Ok(modified) = lock.symlink_metadata().and_then(|metadata| metadata.modified()) else { return false };
    SystemTime::now().duration_since(modified).unwrap_or_default() < STALE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn locks_of_work_trees_and_linked_ones_are_minded() {
        let folder = tempfile::tempdir().unwrap();
        let (main, linked) = (folder.path().join("main"), folder.path().join("linked"));
        fs::create_dir_all(main.join(".git/worktrees/linked")).unwrap();
        fs::create_dir_all(linked.join("src")).unwrap();
        fs::write(linked.join(".git"), "gitdir: ../main/.git/worktrees/linked\n").unwrap();
        let mut locks = Locks::default();
        locks.mind_around(&linked.join("src"));
        fs::write(main.join(".git/index.lock"), "").unwrap();
        assert!(!locks.are_held(), "another work tree");
        let lock = main.join(".git/worktrees/linked/index.lock");
        fs::write(&lock, "").unwrap();
        assert!(locks.are_held());
        let long_ago = SystemTime::now() - Duration::from_secs(60);
        fs::File::options().write(true).open(&lock).unwrap().set_modified(long_ago).unwrap();
        assert!(!locks.are_held(), "left behind");
        locks.mind(&main.join(".git"));
        assert!(locks.are_held());
    }
}
