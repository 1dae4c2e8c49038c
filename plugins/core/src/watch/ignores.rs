//! Which paths below a root are nobody's business: what ignore files and the
//! user name, what tools made, editors' temporary files.
//!
//! What is known about a folder is kept, so that a path costs one look-up and
//! the patterns above it, however deep it is.

use super::WatchError;
use super::names::{DEVLOOP_IGNORE, DOCKER_IGNORE, GIT_IGNORE, is_editor_temporary, is_made_by_tools, is_repository};
use crate::dockerfile::ignore::read_for_git;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// So many folders are kept at most; then all are worked out anew.
const KEPT_FOLDERS: usize = 32_768;

/// Which ignore files count below a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rules {
    /// For sources: `.gitignore` and `.devloopignore`.
    Sources,
    /// For what goes into an image: `.dockerignore`, too.
    Content,
}

impl Rules {
    fn files(self) -> &'static [&'static str] {
        match self {
            // The last one decides.
            Self::Sources => &[GIT_IGNORE, DEVLOOP_IGNORE],
            Self::Content => &[GIT_IGNORE, DOCKER_IGNORE, DEVLOOP_IGNORE],
        }
    }
}

/// The patterns of one folder, and those of the folders above it.
#[derive(Debug)]
struct Link {
    matcher: Gitignore,
    above: Chain,
}

/// Patterns, nearest first; folders without any take no part.
type Chain = Option<Arc<Link>>;

/// What is known about a folder.
#[derive(Clone, Debug)]
enum Kept {
    Ignored,
    Entered(Chain),
}

/// The ignore rules below one root. The root itself is never ignored: it was
/// asked for.
#[derive(Debug)]
pub(super) struct Ignores {
    root: PathBuf,
    rules: Rules,
    /// Decides before any file does.
    by_user: Arc<Gitignore>,
    /// From folders above the root, up to the repository's.
    above: Chain,
    kept: HashMap<PathBuf, Kept>,
}

impl Ignores {
    /// Reads what lies above `root`. `patterns` are the user's, relative to it.
    pub(super) fn new(root: &Path, rules: Rules, patterns: &[String]) -> Result<Self, WatchError> {
        let mut builder = GitignoreBuilder::new(root);
        let bad = |pattern: &str, source| WatchError::BadPattern { pattern: pattern.to_owned(), source };
        for pattern in patterns {
            builder.add_line(None, pattern).map_err(|source| bad(pattern, source))?;
        }
        let by_user = Arc::new(builder.build().map_err(|source| bad(&patterns.join(", "), source))?);
        Ok(Self { root: root.to_owned(), rules, by_user, above: read_above(root, rules), kept: HashMap::new() })
    }

    /// The rules as the ignore files are now.
    pub(super) fn renewed(&self) -> Self {
        let (root, rules) = (self.root.clone(), self.rules);
        Self { above: read_above(&root, rules), root, rules, by_user: Arc::clone(&self.by_user), kept: HashMap::new() }
    }

    /// Whether `path`, below the root, or a folder that it is in, is ignored.
    pub(super) fn is_ignored(&mut self, path: &Path, is_folder: bool) -> bool {
        if path == self.root {
            return false;
        }
        if !is_folder && path.file_name().is_some_and(is_editor_temporary) {
            return true;
        }
        match path.parent().filter(|_| path.starts_with(&self.root)).map(|parent| self.folder(parent)) {
            None | Some(Kept::Ignored) => true,
            Some(Kept::Entered(chain)) => self.names(&chain, path, is_folder),
        }
    }

    /// What counts inside a folder that is the root or below it.
    fn folder(&mut self, folder: &Path) -> Kept {
        if let Some(kept) = self.kept.get(folder) {
            return kept.clone();
        }
        let outside = if folder == self.root {
            Kept::Entered(self.above.clone())
        } else {
            match folder.parent().map(|parent| self.folder(parent)) {
                Some(Kept::Entered(chain)) if !self.names(&chain, folder, true) => Kept::Entered(chain),
                _ => Kept::Ignored,
            }
        };
        let kept = match outside {
            Kept::Entered(above) => Kept::Entered(linked(folder, self.rules, above)),
            Kept::Ignored => Kept::Ignored,
        };
        if self.kept.len() >= KEPT_FOLDERS {
            self.kept.clear();
        }
        self.kept.insert(folder.to_owned(), kept.clone());
        kept
    }

    /// Whether the rules name a path in a folder that is entered.
    fn names(&self, chain: &Chain, path: &Path, is_folder: bool) -> bool {
        if is_folder && is_repository(path) {
            return true;
        }
        let links = std::iter::successors(chain.as_deref(), |link| link.above.as_deref()).map(|link| &link.matcher);
        let verdict =
            std::iter::once(&*self.by_user).chain(links).map(|matcher| matcher.matched(path, is_folder)).find(|verdict| !verdict.is_none());
        match verdict {
            Some(Match::Ignore(_)) => true,
            // Only who knows of devloop can mean to have what tools made watched.
            Some(Match::Whitelist(glob)) if glob.from().is_none_or(|file| file.file_name() == Some(OsStr::new(DEVLOOP_IGNORE))) => false,
            _ => is_folder && is_made_by_tools(path),
        }
    }
}

/// The rules of the folders above `root`, as far up as the repository goes.
fn read_above(root: &Path, rules: Rules) -> Chain {
    let is_work_tree = |folder: &Path| folder.join(".git").exists();
    let above: Vec<&Path> = root.ancestors().skip(1).collect();
    let count = if is_work_tree(root) { 0 } else { above.iter().position(|folder| is_work_tree(folder)).map_or(0, |index| index + 1) };
    above[..count].iter().rev().fold(None, |chain, folder| linked(folder, rules, chain))
}

fn linked(folder: &Path, rules: Rules, above: Chain) -> Chain {
    let matcher = read(folder, rules);
    if matcher.is_empty() { above } else { Some(Arc::new(Link { matcher, above })) }
}

/// A rule that can't be read is skipped, as git does.
fn read(folder: &Path, rules: Rules) -> Gitignore {
    let mut builder = GitignoreBuilder::new(folder);
    let mut is_empty = true;
    for name in rules.files() {
        let file = folder.join(name);
        let Ok(content) = std::fs::read(&file) else { continue };
        is_empty = false;
        let text = String::from_utf8_lossy(&content);
        let lines = if *name == DOCKER_IGNORE { read_for_git(&text) } else { text.lines().map(str::to_owned).collect() };
        for line in lines {
            if let Err(error) = builder.add_line(Some(file.clone()), &line) {
                tracing::debug!(file = %file.display(), line, %error, "ignore rule skipped");
            }
        }
    }
    if is_empty { Gitignore::empty() } else { builder.build().unwrap_or_else(|_| Gitignore::empty()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn rules(root: &Path, rules: Rules) -> Ignores {
        Ignores::new(root, rules, &[]).unwrap()
    }

    #[test]
    fn rules_cascade_and_the_nearest_decides() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("app");
        fs::create_dir_all(root.join("sub/deep")).unwrap();
        fs::create_dir_all(folder.path().join(".git")).unwrap();
        fs::write(folder.path().join(".gitignore"), "*.log\n/app/secret.txt\n").unwrap();
        fs::write(root.join(".gitignore"), "build/\n").unwrap();
        fs::write(root.join(".dockerignore"), "# comment\n*.md\n!README.md\n").unwrap();
        fs::write(root.join("sub/.devloopignore"), "!keep.log\n").unwrap();
        let mut content = rules(&root, Rules::Content);
        let mut sources = rules(&root, Rules::Sources);
        let ignored = |ignores: &mut Ignores, path: &str| ignores.is_ignored(&root.join(path), false);
        for path in ["a.log", "sub/a.log", "secret.txt", "build/x", "notes.md", "target/x", "sub/node_modules/x", ".git/config", "x~"] {
            assert!(ignored(&mut content, path), "{path}");
        }
        for path in ["a.txt", "sub/keep.log", "README.md", "sub/notes.md", "target", "sub/secret.txt", ".env"] {
            assert!(!ignored(&mut content, path), "{path}");
        }
        assert!(!ignored(&mut sources, "notes.md"), "sources are not what an image holds");
        assert!(content.is_ignored(folder.path(), true), "what is outside of the root");
        fs::write(root.join(".gitignore"), "").unwrap();
        assert!(ignored(&mut content, "build/x"), "as it was read");
        assert!(!ignored(&mut content.renewed(), "build/x"));
    }

    #[test]
    fn a_root_inside_an_ignored_folder_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join(".git")).unwrap();
        fs::write(folder.path().join(".gitignore"), "dist\n").unwrap();
        for name in ["dist", "target", "node_modules/kit"] {
            let root = folder.path().join(name);
            fs::create_dir_all(&root).unwrap();
            assert!(!rules(&root, Rules::Content).is_ignored(&root.join("app.js"), false), "{name}");
        }
    }

    #[test]
    fn the_user_decides_before_any_file() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join(".devloopignore"), "*.gen\n!*.tmp\n").unwrap();
        let patterns = ["*.tmp", "!keep.gen", "/only/here", "!node_modules"].map(str::to_owned);
        let mut ignores = Ignores::new(root, Rules::Sources, &patterns).unwrap();
        for path in ["a.tmp", "a.gen", "only/here/x"] {
            assert!(ignores.is_ignored(&root.join(path), false), "{path}");
        }
        for path in ["keep.gen", "sub/only/here/x", "node_modules/kit/index.js"] {
            assert!(!ignores.is_ignored(&root.join(path), false), "{path}");
        }
        let error = Ignores::new(root, Rules::Sources, &["a/{b".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("a/{b"), "{error}");
    }

    #[test]
    fn what_tools_made_is_entered_only_when_devloopignore_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join(".gitignore"), "!target\nnode_modules/\n").unwrap();
        fs::write(root.join(".devloopignore"), "!node_modules\n!.git\n").unwrap();
        let mut ignores = rules(root, Rules::Content);
        assert!(ignores.is_ignored(&root.join("target/x"), false));
        assert!(ignores.is_ignored(&root.join(".git/config"), false));
        assert!(!ignores.is_ignored(&root.join("node_modules/kit/x"), false));
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let mut ignores = rules(Path::new("/nowhere"), Rules::Content);
        for number in 0..KEPT_FOLDERS + 10 {
            assert!(!ignores.is_ignored(&Path::new("/nowhere").join(number.to_string()).join("x"), false));
        }
        assert!(ignores.kept.len() <= KEPT_FOLDERS);
    }
}
