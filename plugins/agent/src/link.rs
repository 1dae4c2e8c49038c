//! Symlinks, in place of what is there in one step.

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use crate::failure::Failure;
use crate::incoming::TemporaryName;
use crate::protocol::{ByteString, ErrorKind};
use crate::root::{ContainerPath, ContainerRoot, Owner, Parents, Place};
use crate::undo::Recorder;

/// Makes `path` a link that says `target`, whatever that is.
pub(crate) fn put_link(
    root: &ContainerRoot,
    path: &ContainerPath,
    target: &ByteString,
    owner: Owner,
    recorder: &Recorder,
) -> Result<(), Failure> {
    if target.0.is_empty() || target.0.contains(&0) {
        let message = format!("cannot make the link {path}: its target {target:?} is no path");
        return Err(Failure::new(ErrorKind::InvalidPath, message));
    }
    let place = root.place_for_itself(path, Parents::Create(owner, recorder))?;
    let failed = |what: &'static str| Failure::errno(format!("{what} {path}"));
    if let Some(stat) = place.stat().map_err(failed("look at"))? {
        place.refuse_mount_point().map_err(|errno| match errno {
            Errno::XDEV => Failure::new(ErrorKind::Unsupported, format!("cannot make the link {path}: it is a mount point")),
            other => failed("look at")(other),
        })?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let message = format!("cannot make the link {path}: it is a directory");
            return Err(Failure::new(ErrorKind::InvalidPath, message));
        }
    }
    let Place { parent, name } = &place;
    let temporary = TemporaryName::take(parent)?;
    recorder.before(parent, &temporary.name())?;
    rustix::fs::symlinkat(target.0.as_slice(), parent, temporary.name()).map_err(failed("make a link beside"))?;
    let (uid, gid) = owner.ids();
    let put = rustix::fs::chownat(parent, temporary.name(), uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set the owner of"))
        .and_then(|()| recorder.before(parent, name))
        .and_then(|()| rustix::fs::renameat(parent, temporary.name(), parent, name).map_err(failed("rename the new link to")));
    if put.is_err() {
        let _ = rustix::fs::unlinkat(parent, temporary.name(), AtFlags::empty());
    }
    put
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn put(root: &Path, path: &str, target: &str) -> Result<(), Failure> {
        let path = ContainerPath::parse(&ByteString::from(path)).unwrap();
        let owner = Owner { uid: 1000, gid: 1001 };
        put_link(&ContainerRoot::at(root).unwrap(), &path, &target.into(), owner, &Recorder::none())
    }

    #[test]
    fn a_link_takes_the_place_of_a_file_or_link_and_of_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::write(at("file"), "x").unwrap();
        symlink("file", at("link")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        for path in ["file", "link", "new", "deep/er/new"] {
            put(root.path(), &format!("/{path}"), "../outside").unwrap();
            assert_eq!(fs::read_link(at(path)).unwrap(), Path::new("../outside"), "{path}");
        }
        for (path, target) in [("/folder", "x"), ("/empty", ""), ("/nul", "a\0b")] {
            assert_eq!(put(root.path(), path, target).unwrap_err().kind, ErrorKind::InvalidPath, "{path}");
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 5);
    }
}
