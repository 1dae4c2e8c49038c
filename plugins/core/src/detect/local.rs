//! What a project's folder holds, as plain values: which files there are, what
//! those that describe it say, which programs cargo and go can build.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// What there is on this machine. All paths are relative to the root, unless
/// they are said to be absolute; the root itself is the empty path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// The project's folder, absolute: where a devloop.yaml would be.
    pub root: PathBuf,
    /// Where the search began: it decides between equals.
    pub start: PathBuf,
    /// Files that are not ignored, and ignored ones that a Dockerfile copies.
    pub files: BTreeSet<PathBuf>,
    /// Folders that a Dockerfile copies, beside those that have files.
    pub folders: BTreeSet<PathBuf>,
    /// Texts of the files that say how the project is built, run and served.
    pub texts: BTreeMap<PathBuf, String>,
    /// What cargo can build.
    pub cargo: Vec<CargoBinary>,
    /// What go can build.
    pub go: Vec<GoMain>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
}

/// A binary target of a cargo package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CargoBinary {
    /// The package.
    pub package: String,
    /// The target.
    pub binary: String,
    /// The Cargo.toml that cargo is to begin with; the root's when absent.
    pub manifest: Option<PathBuf>,
}

/// A main package of a Go module.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoMain {
    /// The module's path.
    pub module: String,
    /// The module's folder.
    pub folder: PathBuf,
    /// The package's folder, below the module's.
    pub package: PathBuf,
}

impl GoMain {
    /// The name that `go build` gives it: the last part of its import path, or
    /// the one before where that is a version such as `v2`.
    pub fn name(&self) -> &str {
        if let Some(name) = self.package.file_name() {
            return name.to_str().unwrap_or_default();
        }
        let mut parts = self.module.rsplit('/');
        let last = parts.next().unwrap_or_default();
        let is_version =
            last.strip_prefix('v').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
        if is_version { parts.next().unwrap_or(last) } else { last }
    }

    /// As `go build` takes it.
    pub fn argument(&self) -> String {
        if self.package.as_os_str().is_empty() { ".".to_owned() } else { format!("./{}", self.package.display()) }
    }
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    File,
    Folder,
}

impl Local {
    /// What is at a path that is relative to the root.
    pub(super) fn entry(&self, path: &Path) -> Option<Entry> {
        if self.files.contains(path) {
            return Some(Entry::File);
        }
        let has_files = self.files.range(path.to_owned()..).next().is_some_and(|file| file.starts_with(path));
        (has_files || self.folders.contains(path)).then_some(Entry::Folder)
    }

    /// Names of what is directly in a folder.
    pub(super) fn children(&self, folder: &Path) -> BTreeMap<String, Entry> {
        let within = |path: &'_ PathBuf| path.starts_with(folder) && path != folder;
        let mut children = BTreeMap::new();
        let files = self.files.range(folder.to_owned()..).take_while(|path| path.starts_with(folder)).map(|path| (path, Entry::File));
        let folders = self.folders.iter().filter(|path| within(path)).map(|path| (path, Entry::Folder));
        for (path, entry) in files.chain(folders) {
            let mut parts = path.strip_prefix(folder).unwrap_or(path).components();
            let Some(Component::Normal(name)) = parts.next() else { continue };
            let entry = if parts.next().is_some() { Entry::Folder } else { entry };
            children.insert(name.to_string_lossy().into_owned(), entry);
        }
        children
    }

    /// Files of this name, in any folder.
    pub(super) fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a PathBuf> {
        self.files.iter().filter(move |file| file.file_name().is_some_and(|own| own == name))
    }

    /// Those in the folder where the search began, if there are any; else all.
    pub(super) fn nearest<T: Clone>(&self, candidates: Vec<T>, folder: impl Fn(&T) -> &Path) -> Vec<T> {
        let here: Vec<T> = candidates.iter().filter(|candidate| folder(candidate) == self.start).cloned().collect();
        if here.is_empty() { candidates } else { here }
    }
}

/// A path that was written by people: relative to `folder`, without `.` and
/// `..`; `None` where it leads out of the root.
pub(super) fn inside(folder: &Path, written: &str) -> Option<PathBuf> {
    let mut path = folder.to_owned();
    for component in Path::new(written.trim_start_matches('/')).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir if path.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(path)
}

/// For messages: the root is `.`.
pub(super) fn shown(path: &Path) -> String {
    if path.as_os_str().is_empty() { ".".to_owned() } else { path.display().to_string() }
}

/// For a rule: the root is `.`.
pub(super) fn rule_path(path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() }
}

#[cfg(test)]
impl Local {
    /// Files with their texts, as if they had been found.
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let mut local = Self { root: "/home/me/project".into(), ..Self::default() };
        for (path, text) in files {
            local.files.insert(path.into());
            local.texts.insert(path.into(), (*text).to_owned());
        }
        local
    }

    pub(super) fn with_cargo(mut self, package: &str, binary: &str) -> Self {
        self.cargo.push(CargoBinary { package: package.to_owned(), binary: binary.to_owned(), manifest: None });
        self
    }

    pub(super) fn with_go(mut self, module: &str, package: &str) -> Self {
        self.go.push(GoMain { module: module.to_owned(), folder: PathBuf::new(), package: package.into() });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_known_by_their_files() {
        let local = Local::of(&[("web/index.html", ""), ("web/css/a.css", ""), ("webs", "")]);
        assert_eq!(local.entry(Path::new("web")), Some(Entry::Folder));
        assert_eq!(local.entry(Path::new("webs")), Some(Entry::File));
        assert_eq!(local.entry(Path::new("we")), None);
        assert_eq!(local.entry(Path::new("")), Some(Entry::Folder));
        let names = |folder: &str| local.children(Path::new(folder)).into_iter().collect::<Vec<_>>();
        assert_eq!(names("web"), [("css".to_owned(), Entry::Folder), ("index.html".to_owned(), Entry::File)]);
        assert_eq!(names(""), [("web".to_owned(), Entry::Folder), ("webs".to_owned(), Entry::File)]);
    }

    #[test]
    fn written_paths_stay_inside() {
        assert_eq!(inside(Path::new("a"), "./b/../c"), Some("a/c".into()));
        assert_eq!(inside(Path::new("a"), "../x"), Some("x".into()));
        assert_eq!(inside(Path::new("a"), "/x"), Some("a/x".into()));
        assert_eq!(inside(Path::new(""), "../x"), None);
    }

    #[test]
    fn a_go_package_is_named_by_its_folder_or_module() {
        let name =
            |module: &str, package: &str| GoMain { module: module.into(), folder: "".into(), package: package.into() }.name().to_owned();
        assert_eq!(
            [name("example.com/shop", "cmd/web"), name("example.com/shop", ""), name("example.com/shop/v2", "")],
            ["web", "shop", "shop"]
        );
    }
}
