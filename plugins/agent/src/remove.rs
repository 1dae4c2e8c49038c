//! Removal of a file or a tree, without leaving the container or its volumes.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::failure::Failure;
use crate::protocol::ErrorKind;
use crate::root::{ContainerPath, ContainerRoot, refuse_mount_point};
use crate::undo::Recorder;

/// One open directory each: deep enough for any project, and well below the
/// usual limit of 1024 descriptors.
const MAX_DEPTH: usize = 256;

/// Removes `path`, and up to so many of the folders above that are empty then;
/// false if there was nothing.
pub(crate) fn remove(root: &ContainerRoot, path: &ContainerPath, empty_parents: u32, recorder: &Recorder) -> Result<bool, Failure> {
    let Some(place) = root.place_itself(path)? else { return Ok(false) };
    let name = c_name(&place.name).map_err(Failure::errno(format_args!("remove {path}")))?;
    match remove_entry(&place.parent, &name, 0, recorder) {
        Ok(()) => {}
        Err(Stopped::Errno(Errno::NOENT)) => return Ok(false),
        Err(Stopped::Errno(Errno::XDEV)) => {
            let message = format!("cannot remove {path}: it is, or contains, a mount point");
            return Err(Failure::new(ErrorKind::Unsupported, message));
        }
        Err(Stopped::Errno(errno)) => return Err(Failure::errno(format_args!("remove {path}"))(errno)),
        Err(Stopped::Unrecorded(failure)) => return Err(failure),
    }
    let mut above = path.parent();
    for _ in 0..empty_parents {
        let Some(folder) = above else { break };
        if !remove_if_empty(root, &folder, recorder)? {
            break;
        }
        above = folder.parent();
    }
    Ok(true)
}

/// A folder that is in use, or a link to one, is left alone.
fn remove_if_empty(root: &ContainerRoot, folder: &ContainerPath, recorder: &Recorder) -> Result<bool, Failure> {
    let Some(place) = root.place_itself(folder)? else { return Ok(false) };
    if place.refuse_mount_point().is_err() {
        return Ok(false);
    }
    let is_empty = c_name(&place.name).and_then(|name| open_directory(&place.parent, &name)).and_then(|opened| names(&opened));
    if !is_empty.is_ok_and(|names| names.is_empty()) {
        return Ok(false);
    }
    recorder.before(&place.parent, &place.name)?;
    Ok(rustix::fs::unlinkat(&place.parent, &place.name, AtFlags::REMOVEDIR).is_ok())
}

/// Why a removal went no further.
enum Stopped {
    Errno(Errno),
    /// What is to be removed could not be taken down.
    Unrecorded(Failure),
}

impl From<Errno> for Stopped {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

fn c_name(name: &OsStr) -> Result<CString, Errno> {
    CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)
}

fn remove_entry(parent: &OwnedFd, name: &CStr, depth: usize, recorder: &Recorder) -> Result<(), Stopped> {
    refuse_mount_point(parent, name)?;
    let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let before = || recorder.before(parent, OsStr::from_bytes(name.to_bytes())).map_err(Stopped::Unrecorded);
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        before()?;
        return Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?);
    }
    if depth == MAX_DEPTH {
        return Err(Errno::NAMETOOLONG.into());
    }
    // Before what is in it goes, which changes its time.
    before()?;
    let directory = open_directory(parent, name)?;
    for name in names(&directory)? {
        match remove_entry(&directory, &name, depth + 1, recorder) {
            Ok(()) | Err(Stopped::Errno(Errno::NOENT)) => {}
            Err(stopped) => return Err(stopped),
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn names(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

/// A directory proper: no link, and nothing mounted there.
fn open_directory(parent: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;
    use crate::protocol::ByteString;

    fn remove_in(root: &Path, path: &str) -> Result<bool, Failure> {
        let path = ContainerPath::parse(&ByteString::from(path)).unwrap();
        remove(&ContainerRoot::at(root).unwrap(), &path, 0, &Recorder::none())
    }

    #[test]
    fn files_and_trees() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b/c")).unwrap();
        fs::write(root.path().join("a/b/c/f"), "x").unwrap();
        fs::write(root.path().join("a/g"), "x").unwrap();
        fs::write(root.path().join("f"), "x").unwrap();
        assert!(remove_in(root.path(), "/f").unwrap());
        assert!(remove_in(root.path(), "/a").unwrap());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn folders_that_become_empty_go_along_as_far_as_wanted() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let remove = |path: &str, parents| {
            let path = ContainerPath::parse(&ByteString::from(path)).unwrap();
            remove(&ContainerRoot::at(root.path()).unwrap(), &path, parents, &Recorder::none())
        };
        fs::create_dir_all(at("a/b/c/d")).unwrap();
        for file in ["a/b/c/d/f", "a/b/c/d/g", "a/h"] {
            fs::write(at(file), "x").unwrap();
        }
        assert!(remove("/a/b/c/d/f", 9).unwrap());
        assert!(at("a/b/c/d/g").exists());
        assert!(remove("/a/b/c/d/g", 2).unwrap());
        assert!(at("a/b").exists() && !at("a/b/c").exists());
        // What was not there is no reason to clear up.
        assert!(!remove("/a/b/f", 9).unwrap());
        assert!(at("a/b").exists());
        fs::write(at("a/b/f"), "x").unwrap();
        assert!(remove("/a/b/f", 9).unwrap());
        assert!(at("a/h").exists() && !at("a/b").exists());
        assert!(remove("/a/h", 9).unwrap());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_is_success() {
        let root = tempfile::tempdir().unwrap();
        assert!(!remove_in(root.path(), "/f").unwrap());
        assert!(!remove_in(root.path(), "/no/such/parent").unwrap());
    }

    #[test]
    fn links_are_removed_not_what_they_point_to() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("f"), "x").unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("tree")).unwrap();
        symlink(outside.path(), root.path().join("tree/out")).unwrap();
        symlink(outside.path(), root.path().join("out")).unwrap();
        assert!(remove_in(root.path(), "/tree").unwrap());
        // Through the link the path means a place inside, which is not there.
        assert!(!remove_in(root.path(), "/out/f").unwrap());
        assert!(remove_in(root.path(), "/out").unwrap());
        assert!(outside.path().join("f").exists());
    }

    #[test]
    fn endless_depth_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let mut path = root.path().to_path_buf();
        for _ in 0..MAX_DEPTH + 2 {
            path.push("d");
        }
        fs::create_dir_all(path).unwrap();
        assert_eq!(remove_in(root.path(), "/d").unwrap_err().kind, ErrorKind::Io);
    }
}
