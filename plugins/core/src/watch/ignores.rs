//! Which paths below a root are nobody's business: ignore files, caches,
//! editors' temporary files.

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Folders that hold what tools made; never entered.
const NEVER_ENTERED: [&str; 3] = [".git", "target", "node_modules"];

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
            Self::Sources => &[".gitignore", ".devloopignore"],
            Self::Content => &[".gitignore", ".dockerignore", ".devloopignore"],
        }
    }
}

/// Whether a path is an ignore file itself.
pub(super) fn is_ignore_file(path: &Path) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(|name| Rules::Content.files().contains(&name))
}

/// Whether editors use such a name for a file that lives for one save.
pub(super) fn is_editor_temporary(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let is_swap = || {
        let extension = name.strip_prefix('.').and_then(|rest| rest.rsplit_once('.')).map(|(_, extension)| extension.as_bytes());
        // vim: .file.swp, then .swo, .swn, ... when taken; .swx to probe.
        extension.is_some_and(|extension| matches!(extension, [b's', b'w', b'a'..=b'z']))
    };
    name == "4913"
        || name.ends_with('~')
        || name.starts_with(".#")
        || (name.len() > 1 && name.starts_with('#') && name.ends_with('#'))
        || name.ends_with("___jb_tmp___")
        || name.ends_with("___jb_old___")
        || name.starts_with(".goutputstream-")
        || is_swap()
}

/// The ignore rules below one root. The root itself is never ignored: it was
/// asked for.
#[derive(Debug)]
pub(super) struct Ignores {
    root: PathBuf,
    rules: Rules,
    /// From folders above the root, nearest first, up to the repository's.
    above: Vec<Arc<Gitignore>>,
    by_folder: HashMap<PathBuf, Arc<Gitignore>>,
}

impl Ignores {
    pub(super) fn new(root: &Path, rules: Rules) -> Self {
        Self { root: root.to_owned(), rules, above: read_above(root, rules), by_folder: HashMap::new() }
    }

    /// Forgets what was read from ignore files, because one changed.
    pub(super) fn reload(&mut self) {
        self.above = read_above(&self.root, self.rules);
        self.by_folder.clear();
    }

    /// Whether `path`, below the root, or a folder that it is in, is ignored.
    pub(super) fn is_ignored(&mut self, path: &Path, is_folder: bool) -> bool {
        let Ok(relative) = path.strip_prefix(&self.root) else { return true };
        if !is_folder && path.file_name().is_some_and(is_editor_temporary) {
            return true;
        }
        let mut folder = self.root.clone();
        let mut matchers: Vec<Arc<Gitignore>> = self.above.clone();
        matchers.reverse();
        let mut components = relative.components().peekable();
        while let Some(component) = components.next() {
            matchers.push(self.matcher(&folder));
            folder.push(component);
            let is_folder = is_folder || components.peek().is_some();
            let never_entered = component.as_os_str().to_str().is_some_and(|name| NEVER_ENTERED.contains(&name));
            let verdict = matchers.iter().rev().map(|matcher| matcher.matched(&folder, is_folder)).find(|verdict| !verdict.is_none());
            if (is_folder && never_entered) || verdict.is_some_and(|verdict| verdict.is_ignore()) {
                return true;
            }
        }
        false
    }

    fn matcher(&mut self, folder: &Path) -> Arc<Gitignore> {
        if let Some(matcher) = self.by_folder.get(folder) {
            return Arc::clone(matcher);
        }
        let matcher = Arc::new(read(folder, self.rules));
        self.by_folder.insert(folder.to_owned(), Arc::clone(&matcher));
        matcher
    }
}

/// The rules of the folders above `root`, as far up as the repository goes.
fn read_above(root: &Path, rules: Rules) -> Vec<Arc<Gitignore>> {
    let is_repository = |folder: &Path| folder.join(".git").exists();
    let above: Vec<&Path> = root.ancestors().skip(1).collect();
    let count = if is_repository(root) { 0 } else { above.iter().position(|folder| is_repository(folder)).map_or(0, |index| index + 1) };
    above[..count].iter().map(|folder| Arc::new(read(folder, rules))).collect()
}

/// A rule that can't be read is skipped, as git does.
fn read(folder: &Path, rules: Rules) -> Gitignore {
    let mut builder = GitignoreBuilder::new(folder);
    for name in rules.files() {
        let Ok(content) = std::fs::read_to_string(folder.join(name)) else { continue };
        for line in content.lines() {
            let line = if *name == ".dockerignore" { anchored(line) } else { line.to_owned() };
            if let Err(error) = builder.add_line(None, &line) {
                tracing::debug!(folder = %folder.display(), name, line, %error, "ignore rule skipped");
            }
        }
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

/// A rule of `.dockerignore`, whose patterns start at its folder, as one of
/// `.gitignore`, whose patterns match at any depth unless they hold a slash.
fn anchored(line: &str) -> String {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return String::new();
    }
    let (negation, pattern) = line.strip_prefix('!').map_or(("", line), |pattern| ("!", pattern.trim_start()));
    format!("{negation}/{}", pattern.trim_start_matches("./").trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_of_editors_are_told_from_real_ones() {
        for name in [".index.html.swp", ".x.swx", "index.html~", "4913", ".#main.rs", "#main.rs#", "a.css___jb_tmp___"] {
            assert!(is_editor_temporary(OsStr::new(name)), "{name}");
        }
        for name in ["index.html", ".env", ".eslintrc.js", "swp", "4914", "a.swp.html", "#", ".icon.svg"] {
            assert!(!is_editor_temporary(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn rules_cascade_and_the_nearest_decides() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("app");
        std::fs::create_dir_all(root.join("sub/deep")).unwrap();
        std::fs::create_dir_all(folder.path().join(".git")).unwrap();
        std::fs::write(folder.path().join(".gitignore"), "*.log\n/app/secret.txt\n").unwrap();
        std::fs::write(root.join(".gitignore"), "build/\n").unwrap();
        std::fs::write(root.join(".dockerignore"), "# comment\n*.md\n!README.md\n").unwrap();
        std::fs::write(root.join("sub/.devloopignore"), "!keep.log\n").unwrap();
        let mut content = Ignores::new(&root, Rules::Content);
        let mut sources = Ignores::new(&root, Rules::Sources);
        let ignored = |ignores: &mut Ignores, path: &str| ignores.is_ignored(&root.join(path), false);
        for path in ["a.log", "sub/a.log", "secret.txt", "build/x", "notes.md", "target/x", "sub/node_modules/x", ".git/config", "x~"] {
            assert!(ignored(&mut content, path), "{path}");
        }
        for path in ["a.txt", "sub/keep.log", "README.md", "sub/notes.md", "target", "sub/secret.txt", ".env"] {
            assert!(!ignored(&mut content, path), "{path}");
        }
        assert!(!ignored(&mut sources, "notes.md"), "sources are not what an image holds");
        std::fs::write(root.join(".gitignore"), "").unwrap();
        content.reload();
        assert!(!ignored(&mut content, "build/x"));
    }

    #[test]
    fn a_root_inside_an_ignored_folder_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join(".git")).unwrap();
        std::fs::write(folder.path().join(".gitignore"), "dist\n").unwrap();
        let root = folder.path().join("dist");
        std::fs::create_dir_all(&root).unwrap();
        assert!(!Ignores::new(&root, Rules::Content).is_ignored(&root.join("app.js"), false));
    }
}
