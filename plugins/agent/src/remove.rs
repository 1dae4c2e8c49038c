//! Removal of a file or a tree, without leaving the container or its volumes.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::failure::Failure;
use crate::protocol::ErrorKind;
use crate::root::{ContainerPath, ContainerRoot, refuse_mount_point};

/// One open directory each: deep enough for any project, and well below the
/// usual limit of 1024 descriptors.
const MAX_DEPTH: usize = 256;

/// Removes `path`; false if there was nothing.
pub(crate) fn remove(root: &ContainerRoot, path: &ContainerPath) -> Result<bool, Failure> {
    let Some(place) = root.place_itself(path)? else { return Ok(false) };
    let name = std::ffi::CString::new(place.name.as_bytes()).map_err(|_| Failure::errno(format_args!("remove {path}"))(Errno::INVAL))?;
    match remove_entry(&place.parent, &name, 0) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(Errno::XDEV) => Err(Failure::new(ErrorKind::Unsupported, format!("cannot remove {path}: it is, or contains, a mount point"))),
        Err(errno) => Err(Failure::errno(format_args!("remove {path}"))(errno)),
    }
}

fn remove_entry(parent: impl AsFd, name: &CStr, depth: usize) -> Result<(), Errno> {
    let parent = parent.as_fd();
    refuse_mount_point(parent, name)?;
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        done => return done,
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        done => return done,
    }
    if depth == MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    let directory = open_directory(parent, name)?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    for name in names {
        match remove_entry(&directory, &name, depth + 1) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
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
        remove(&ContainerRoot::at(root).unwrap(), &path)
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
