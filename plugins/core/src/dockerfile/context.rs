//! The files that a build may read: the context without what is ignored, in the
//! order in which BuildKit's protocol wants them.

use super::ignore::{Fitting, Matcher};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A file, folder or link of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Relative to the context, with slashes.
    pub(super) path: String,
    /// What it is.
    pub(super) kind: Kind,
    /// Permission bits, with set-user-id and its like: `chmod(2)`.
    pub(super) mode: u32,
    /// In bytes; 0 for what is no file.
    pub(super) size: u64,
    /// When the content changed, in nanoseconds since 1970.
    pub(super) modified: i64,
    /// When anything about it changed.
    pub(super) changed: i64,
    pub(super) inode: u64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, and where it leads; it is never followed.
    Link(String),
}

/// Why a context can't be sent.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The file system said no.
    #[error("could not read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Something that a build can't be given.
    #[error("{} can't be sent to the build: {reason}", path.display())]
    Refused {
        /// It.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
}

impl ContextError {
    fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Read { path, source }
    }
}

/// Which entries are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    /// All that fits is left out.
    pub(super) exclude: Matcher,
    /// Only what fits is in; everything when there is none.
    pub(super) include: Option<Matcher>,
}

/// The entries of a folder that are selected, each after the folder that it is
/// in; names in the order of their bytes. A folder that is left out is there
/// nevertheless when something in it isn't. Sockets are passed over, for no image
/// can hold one.
///
/// # Errors
/// [`ContextError`]: also for what is selected and neither file, folder nor link,
/// and for names that are not Unicode, which BuildKit's protocol has no way to say.
pub(super) fn entries(root: &Path, selection: &Selection) -> Result<Vec<Entry>, ContextError> {
    let mut walk = Walk { selection, found: Vec::new(), pending: Vec::new() };
    walk.folder(root, "", None, None)?;
    Ok(walk.found)
}

/// A file of a folder by its name, also behind a link; `None` when there is none.
pub(super) fn file(folder: &Path, name: &str) -> Result<Option<Entry>, ContextError> {
    let path = folder.join(name);
    match std::fs::metadata(&path) {
        Ok(metadata) => entry_of(&path, name.to_owned(), true, &metadata).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ContextError::Read { path, source }),
    }
}

struct Walk<'a> {
    selection: &'a Selection,
    found: Vec<Entry>,
    /// Folders above that are not selected themselves, and not in `found` yet.
    pending: Vec<Entry>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, prefix: &str, excluded: Option<&Fitting>, included: Option<&Fitting>) -> Result<(), ContextError> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(ContextError::read(folder))? {
            names.push(entry.map_err(ContextError::read(folder))?.file_name());
        }
        names.sort();
        for name in names {
            let path = folder.join(&name);
            let metadata = match std::fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                // Gone since its folder was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(ContextError::Read { path, source }),
            };
            let relative = format!("{prefix}{}", name.to_string_lossy());
            let (is_excluded, excluded) = self.selection.exclude.fits_below(&relative, excluded);
            let (is_included, included) = match &self.selection.include {
                Some(include) => {
                    let (fits, fitting) = include.fits_below(&relative, included);
                    (fits, Some(fitting))
                }
                None => (true, None),
            };
            let is_selected = is_included && !is_excluded;
            if metadata.is_dir() {
                self.subfolder(&path, relative, &metadata, (is_selected, is_excluded, is_included), (&excluded, included.as_ref()))?;
            } else if is_selected && !metadata.file_type().is_socket() {
                let entry = entry_of(&path, relative, name.to_str().is_some(), &metadata)?;
                self.found.append(&mut self.pending);
                self.found.push(entry);
            }
        }
        Ok(())
    }

    fn subfolder(
        &mut self,
        path: &Path,
        relative: String,
        metadata: &Metadata,
        (is_selected, is_excluded, is_included): (bool, bool, bool),
        (excluded, included): (&Fitting, Option<&Fitting>),
    ) -> Result<(), ContextError> {
        let is_text = path.file_name().is_some_and(|name| name.to_str().is_some());
        let leads_nowhere = (is_excluded && !self.selection.exclude.may_take_back_below(&relative))
            || (!is_included && self.selection.include.as_ref().is_some_and(|include| !include.may_fit_below(&relative)));
        if !is_selected && leads_nowhere {
            return Ok(());
        }
        let depth = self.pending.len();
        let prefix = format!("{relative}/");
        if is_selected || is_text {
            let entry = entry_of(path, relative, is_text, metadata)?;
            if is_selected {
                self.found.append(&mut self.pending);
                self.found.push(entry);
            } else {
                self.pending.push(entry);
            }
        }
        match self.folder(path, &prefix, Some(excluded), included) {
            // What is not wanted may be closed to us.
            Err(ContextError::Read { path: closed, source })
                if !is_selected && closed == path && source.kind() == io::ErrorKind::PermissionDenied => {}
            outcome => outcome?,
        }
        self.pending.truncate(depth);
        Ok(())
    }
}

fn entry_of(path: &Path, relative: String, is_text: bool, metadata: &Metadata) -> Result<Entry, ContextError> {
    let refused = |reason| ContextError::Refused { path: path.to_owned(), reason };
    if !is_text {
        return Err(refused("its name is not Unicode"));
    }
    let kind = metadata.file_type();
    let kind = if kind.is_dir() {
        Kind::Folder
    } else if kind.is_file() {
        Kind::File
    } else if kind.is_symlink() {
        let target = std::fs::read_link(path).map_err(ContextError::read(path))?;
        Kind::Link(target.into_os_string().into_string().map_err(|_| refused("where the link leads is not Unicode"))?)
    } else {
        return Err(refused("it is a device or a pipe"));
    };
    Ok(Entry {
        path: relative,
        mode: metadata.mode() & 0o7777,
        size: if kind == Kind::File { metadata.len() } else { 0 },
        kind,
        modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        inode: metadata.ino(),
    })
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::super::ignore;
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for path in paths {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        folder
    }

    fn matcher(text: &str) -> Matcher {
        Matcher::new(ignore::read(text).iter().map(String::as_str)).unwrap()
    }

    fn listed(root: &Path, selection: &Selection) -> Vec<String> {
        entries(root, selection).unwrap().into_iter().map(|entry| entry.path).collect()
    }

    #[test]
    fn what_is_ignored_is_not_listed_and_folders_of_exceptions_are() {
        let folder = tree(&["a/b/keep", "a/b/drop", "a-b", "c/x", "d/e/f", ".env"]);
        let without = |text: &str| listed(folder.path(), &Selection { exclude: matcher(text), include: None });
        // A folder's content comes right after it, whatever else begins like it.
        assert_eq!(without(""), [".env", "a", "a/b", "a/b/drop", "a/b/keep", "a-b", "c", "c/x", "d", "d/e", "d/e/f"]);
        assert_eq!(without("*\n!a/b/keep"), ["a", "a/b", "a/b/keep"]);
        assert_eq!(without("*\n!**/keep"), ["a", "a/b", "a/b/keep"]);
        assert_eq!(without("a/*\nd\n!d/e/g"), [".env", "a", "a-b", "c", "c/x"]);
    }

    #[test]
    fn a_builder_may_ask_for_some_of_it() {
        let folder = tree(&["a/b/keep", "a/b/drop", "c/x", "d"]);
        let only = |text: &str| listed(folder.path(), &Selection { exclude: matcher("**/drop"), include: Some(matcher(text)) });
        assert_eq!(only("a"), ["a", "a/b", "a/b/keep"]);
        assert_eq!(only("a/b/keep\nd"), ["a", "a/b", "a/b/keep", "d"]);
        assert_eq!(only("nothing"), Vec::<String>::new());
        assert_eq!(only("*/x"), ["c", "c/x"]);
    }

    #[test]
    fn links_are_not_followed_and_sockets_are_no_files() {
        let folder = tree(&["a/x"]);
        let root = folder.path();
        symlink("..", root.join("a/loop")).unwrap();
        symlink("/etc/passwd", root.join("out")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let all = entries(root, &Selection::default()).unwrap();
        assert_eq!(all.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["a", "a/loop", "a/x", "out"]);
        assert_eq!(all[3].kind, Kind::Link("/etc/passwd".to_owned()));
    }

    #[test]
    fn what_cant_be_sent_is_named_unless_it_is_ignored() {
        let folder = tree(&["a/x"]);
        let pipe = folder.path().join("a/pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = entries(folder.path(), &Selection::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("{} can't be sent to the build: it is a device or a pipe", pipe.display()));
        assert_eq!(listed(folder.path(), &Selection { exclude: matcher("**/pipe"), include: None }), ["a", "a/x"]);
        std::fs::remove_file(pipe).unwrap();
        std::fs::write(folder.path().join(OsStr::from_bytes(b"bad-\xff")), "").unwrap();
        assert!(entries(folder.path(), &Selection::default()).unwrap_err().to_string().ends_with("its name is not Unicode"));
        assert_eq!(listed(folder.path(), &Selection { exclude: matcher("bad-*"), include: None }), ["a", "a/x"]);
    }
}
