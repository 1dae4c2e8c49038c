//! What changed since a revision, by git.

use crate::error::{CommandError, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// What differs between a revision and the files as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The commit that was compared with: where the history of the revision and
    /// ours part.
    pub base: String,
    /// The repository's top folder.
    pub top: PathBuf,
    /// Absolute paths of files that were added, changed or removed, committed or
    /// not, and of new ones that are not ignored.
    pub files: Vec<PathBuf>,
}

/// Asks git what changed in the repository around `root` since `revision`.
///
/// # Errors
/// When git is missing, `root` is in no repository, or there is no such revision.
pub async fn changed_since(root: &Path, revision: &str) -> Result<Changes> {
    let top = text(git(root, &["rev-parse", "--show-toplevel"]).await.map_err(|error| match error {
        Failed::Said(said) => CommandError::usage(format!("{} is in no git repository", root.display())).caused_by(said),
        Failed::NotRun(error) => error,
    })?);
    let top = PathBuf::from(top);
    let commit = format!("{revision}^{{commit}}");
    // Whatever begins with a dash is a revision that there isn't, not an option.
    let commit = git(&top, &["rev-parse", "--verify", "--quiet", "--end-of-options", &commit]).await.map_err(|error| match error {
        Failed::Said(_) => CommandError::usage(format!("no revision {revision:?} in {}", top.display())).with_hint(
            "name a commit, branch or tag, such as HEAD~1 or origin/main; a shallow clone lacks older ones (`git fetch --unshallow`)",
        ),
        Failed::NotRun(error) => error,
    })?;
    let commit = text(commit);
    // What was done on that branch meanwhile is no change of ours.
    let base = match git(&top, &["merge-base", &commit, "HEAD"]).await {
        Ok(base) => text(base),
        Err(Failed::Said(_)) => {
            tracing::info!(revision, "no common commit is known; comparing with the revision itself");
            commit
        }
        Err(Failed::NotRun(error)) => return Err(error),
    };
    let failed = |error: Failed| match error {
        Failed::Said(said) => CommandError::new("git can't tell what changed").caused_by(said),
        Failed::NotRun(error) => error,
    };
    let changed = git(&top, &["diff", "--name-status", "--no-renames", "--no-ext-diff", "-z", &base, "--"]).await.map_err(failed)?;
    let untracked = git(&top, &["ls-files", "--others", "--exclude-standard", "-z"]).await.map_err(failed)?;
    // Paths of cargo and of the project file have links resolved.
    let here = top.canonicalize().unwrap_or_else(|_| top.clone());
    let mut files: Vec<PathBuf> =
        paths_of_status(&changed).chain(split(&untracked)).map(|path| here.join(OsStr::from_bytes(path))).collect();
    files.sort();
    files.dedup();
    Ok(Changes { base, top: here, files })
}

impl Changes {
    /// What a file was at the base; nothing if it was not there, or no text.
    pub async fn before(&self, path: &Path) -> Option<String> {
        let relative = path.strip_prefix(&self.top).ok()?.to_str()?;
        let content = git(&self.top, &["cat-file", "blob", &format!("{}:{relative}", self.base)]).await.ok()?;
        String::from_utf8(content).ok()
    }
}

enum Failed {
    NotRun(CommandError),
    Said(String),
}

async fn git(folder: &Path, arguments: &[&str]) -> Result<Vec<u8>, Failed> {
    let mut command = Command::new("git");
    // Reading is not to take locks that somebody else needs.
    command.args(["--no-optional-locks", "-C"]).arg(folder).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| {
        Failed::NotRun(CommandError::new("could not run git").caused_by(error).with_hint("install git, or put it on PATH"))
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Failed::Said(String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("fatal: ").to_owned()))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned()
}

fn split(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty())
}

/// The paths of `git diff --name-status -z`: a letter, then a path.
fn paths_of_status(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    split(bytes).skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(folder: &Path, arguments: &[&str]) {
        let status = std::process::Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main", "-C"])
            .arg(folder)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{arguments:?}");
    }

    #[tokio::test]
    async fn all_kinds_of_changes_are_found_and_the_other_branchs_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().canonicalize().unwrap();
        let write = |name: &str, text: &str| std::fs::write(top.join(name), text).unwrap();
        let names = |changes: &Changes| {
            changes.files.iter().map(|file| file.strip_prefix(&top).unwrap().display().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert!(changed_since(&top, "HEAD").await.unwrap_err().to_string().contains("no git repository"));
        run(&top, &["init", "-q"]);
        write(".gitignore", "out\n");
        for name in ["kept", "edited", "gone", "moved"] {
            write(name, name);
        }
        run(&top, &["add", "."]);
        run(&top, &["commit", "-qm", "one"]);
        run(&top, &["checkout", "-qb", "mine"]);
        write("edited", "new");
        run(&top, &["rm", "-q", "gone"]);
        run(&top, &["mv", "moved", "a b\u{e4}"]);
        run(&top, &["commit", "-qam", "two"]);
        write("new", "");
        write("out", "");
        run(&top, &["checkout", "-q", "main"]);
        write("theirs", "");
        run(&top, &["add", "theirs"]);
        run(&top, &["commit", "-qm", "three"]);
        run(&top, &["checkout", "-q", "mine"]);
        let changes = changed_since(&top, "main").await.unwrap();
        assert_eq!(names(&changes), "a b\u{e4} edited gone moved new");
        assert_eq!(changes.before(&top.join("gone")).await.as_deref(), Some("gone"));
        assert_eq!(changes.before(&top.join("new")).await, None);
        for wrong in ["nothing", "--all", "-n"] {
            let error = changed_since(&top, wrong).await.unwrap_err();
            assert!(error.status().code() == 2 && error.to_string().contains("no revision"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_output_is_read(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            let _ = paths_of_status(&bytes).count();
        }
    }
}
