//! A container's file system, seen from the node, without a way out of it.
//!
//! Every path is resolved by the kernel with `RESOLVE_IN_ROOT`, see openat2(2):
//! an absolute symlink or `..` in a container, even one that changes during the
//! look-up, leads to a place inside it. There is no weaker fallback.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::{ByteString, ErrorKind, ProcessId};
use crate::undo::Recorder;

/// As many as the kernel follows, see path_resolution(7).
const MAX_LINKS: usize = 40;
/// `RESOLVE_IN_ROOT` reports EAGAIN when a rename elsewhere raced with `..`.
const MAX_RACES: usize = 64;
const PARENT_MODE: u32 = 0o755;

/// The root directory of a container.
#[derive(Debug)]
pub(crate) struct ContainerRoot {
    directory: OwnedFd,
    /// Whether other mounts are out of bounds.
    one_mount: bool,
}

/// Where an existing or new file lies: a directory and a name in it that is no
/// symlink.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) parent: OwnedFd,
    pub(crate) name: OsString,
}

/// A container that is to be changed.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) root: ContainerRoot,
    /// Of what is new.
    pub(crate) owner: Owner,
    pub(crate) recorder: Recorder,
}

/// A path that may be used in a container: absolute, and without `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerPath(PathBuf);

/// Who owns what is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What to do about directories that are missing on the way.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Parents<'a> {
    /// Make them, after a word to who takes down what was there before.
    Create(Owner, &'a Recorder),
    MustExist,
}

impl Owner {
    pub(crate) fn of(proc: &Proc, pid: u32) -> Result<Self, Failure> {
        let status = proc.status(pid)?;
        Ok(Self { uid: status.uid, gid: status.gid })
    }

    pub(crate) fn ids(self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }
}

impl ContainerPath {
    pub(crate) fn parse(path: &ByteString) -> Result<Self, Failure> {
        let refuse = |why: &str| Failure::new(ErrorKind::InvalidPath, format!("the path {path:?} {why}"));
        if path.0.contains(&0) {
            return Err(refuse("contains NUL"));
        }
        let mut normal = PathBuf::from("/");
        let mut components = path.as_path().components();
        if components.next() != Some(Component::RootDir) {
            return Err(refuse("is not absolute"));
        }
        for component in components {
            match component {
                Component::Normal(name) => normal.push(name),
                Component::CurDir => {}
                _ => return Err(refuse("contains \"..\"")),
            }
        }
        if normal.file_name().is_none() {
            return Err(refuse("is the root directory"));
        }
        Ok(Self(normal))
    }

    /// The same for a path that the agent took down, which may be the root
    /// directory itself.
    pub(crate) fn recorded(path: &ByteString) -> Result<Self, Failure> {
        if path.0 == b"/" { Ok(Self(PathBuf::from("/"))) } else { Self::parse(path) }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_os_str().as_bytes()
    }

    pub(crate) fn as_path(&self) -> &Path {
        &self.0
    }

    /// The folder that it is in; none for what is in the root directory.
    pub(crate) fn parent(&self) -> Option<Self> {
        let parent = self.0.parent()?;
        parent.file_name().is_some().then(|| Self(parent.to_owned()))
    }
}

impl std::fmt::Display for ContainerPath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.display().fmt(formatter)
    }
}

impl ContainerRoot {
    pub(crate) fn of(proc: &Proc, process: ProcessId) -> Result<Self, Failure> {
        let root = Self::at(&proc.live_path(process.pid, "root")).map_err(|failure| match failure.kind {
            // Every process has a root until it ends.
            ErrorKind::NotFound => Failure::vanished(process.pid),
            _ => failure,
        })?;
        // After the open, not before: what is open now stays what was checked.
        proc.check(process)?;
        Ok(root)
    }

    pub(crate) fn at(directory: &Path) -> Result<Self, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(directory, flags, Mode::empty()).map_err(Failure::errno(format_args!("open {}", directory.display())))?;
        Ok(Self { directory, one_mount: false })
    }

    /// A folder in it as a root of its own that ends where another mount begins;
    /// no link leads there.
    pub(crate) fn below(&self, path: &Path) -> Result<Self, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let directory = self.open_by(path, OFlags::PATH | OFlags::DIRECTORY, resolve)?;
        Ok(Self { directory, one_mount: true })
    }

    pub(crate) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Opens what `path` names, symlinks followed, inside this root.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open_by(path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    fn open_by(&self, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        let resolve = if self.one_mount { resolve | ResolveFlags::NO_XDEV } else { resolve };
        for _ in 0..MAX_RACES {
            match rustix::fs::openat2(&self.directory, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return opened,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Where to write `path`: symlinks are followed to the end, so that the
    /// link stays and what it points to is written.
    pub(crate) fn place(&self, path: &ContainerPath, parents: Parents<'_>) -> Result<Place, Failure> {
        let mut current = path.0.clone();
        for _ in 0..MAX_LINKS {
            let (Some(parent_path), Some(name)) = (current.parent(), current.file_name()) else {
                let message = format!("{path} is a link to a directory");
                return Err(Failure::new(ErrorKind::InvalidPath, message));
            };
            let parent = self.folder(parent_path, parents, path)?;
            match rustix::fs::readlinkat(&parent, name, Vec::new()) {
                // A relative target starts at the link's directory; `..` in it
                // is left to the kernel, which stops at the root.
                Ok(target) => {
                    current = parent_path.join(OsString::from_vec(target.into_bytes()));
                }
                Err(Errno::INVAL | Errno::NOENT) => {
                    return Ok(Place { parent, name: name.to_owned() });
                }
                Err(errno) => return Err(Failure::errno(format_args!("look up {path}"))(errno)),
            }
        }
        Err(Failure::errno(format_args!("look up {path}"))(Errno::LOOP))
    }

    /// Where to make `path` itself, even if it is a symlink now.
    pub(crate) fn place_for_itself(&self, path: &ContainerPath, parents: Parents<'_>) -> Result<Place, Failure> {
        let (Some(parent_path), Some(name)) = (path.0.parent(), path.0.file_name()) else {
            return Err(Failure::errno(format_args!("look up {path}"))(Errno::INVAL));
        };
        Ok(Place { parent: self.folder(parent_path, parents, path)?, name: name.to_owned() })
    }

    /// Where `path` itself lies, even if it is a symlink; `None` when a
    /// directory on the way is missing.
    pub(crate) fn place_itself(&self, path: &ContainerPath) -> Result<Option<Place>, Failure> {
        let (Some(parent_path), Some(name)) = (path.0.parent(), path.0.file_name()) else {
            return Ok(None);
        };
        match self.open(parent_path, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(parent) => Ok(Some(Place { parent, name: name.to_owned() })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(Failure::errno(format_args!("look up {path}"))(errno)),
        }
    }

    /// Where this root lies, as the kernel tells it; the beginning of what it
    /// tells of all that is below.
    pub(crate) fn location(&self) -> Result<PathBuf, Failure> {
        location(&self.directory)
    }

    /// Where `path` itself lies if no link leads there: as [`location`] has it.
    pub(crate) fn place_without_links(&self, path: &ContainerPath) -> Result<Place, Errno> {
        let itself = (Path::new("/"), OsStr::new("."));
        let (parent_path, name) = path.0.parent().zip(path.0.file_name()).unwrap_or(itself);
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        // NOFOLLOW as well, or the kernel answers EACCES for a link in a folder
        // for all, see proc_sys_fs(5), before it says that there is a link.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let parent = self.open_by(parent_path, flags, resolve)?;
        Ok(Place { parent, name: name.to_owned() })
    }

    fn folder(&self, directory: &Path, parents: Parents<'_>, path: &ContainerPath) -> Result<OwnedFd, Failure> {
        let opened = self.open(directory, OFlags::PATH | OFlags::DIRECTORY);
        match (opened, parents) {
            (Ok(opened), _) => return Ok(opened),
            (Err(Errno::NOENT), Parents::Create(owner, recorder)) => {
                self.create_directory(directory, owner, recorder, path)?;
            }
            // openat2(2) came with Linux 5.6.
            (Err(Errno::NOSYS), _) => {
                let message = "the node's kernel is older than 5.6 and has no openat2";
                return Err(Failure::new(ErrorKind::Unsupported, message));
            }
            (Err(errno), _) => {
                let what = format!("open the directory {} for {path}", directory.display());
                return Err(Failure::errno(what)(errno));
            }
        }
        self.open(directory, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(Failure::errno(format_args!("open the directory {} for {path}", directory.display())))
    }

    fn create_directory(&self, directory: &Path, owner: Owner, recorder: &Recorder, path: &ContainerPath) -> Result<(), Failure> {
        let what = format!("create the directory {} for {path}", directory.display());
        let (Some(above), Some(name)) = (directory.parent(), directory.file_name()) else {
            return Err(Failure::errno(what)(Errno::NOENT));
        };
        let above = self.folder(above, Parents::Create(owner, recorder), path)?;
        recorder.before(&above, name)?;
        match rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(PARENT_MODE)) {
            Ok(()) => {}
            // Someone else was first; a dangling link shows up at the next open.
            Err(Errno::EXIST) => return Ok(()),
            Err(errno) => return Err(Failure::errno(what)(errno)),
        }
        let (uid, gid) = owner.ids();
        rustix::fs::chownat(&above, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            // The umask of the agent is not the container's business.
            .and_then(|()| {
                let mode = Mode::from_raw_mode(PARENT_MODE);
                let made = open_child(&above, name, OFlags::DIRECTORY)?;
                rustix::fs::fchmod(made, mode)
            })
            .map_err(Failure::errno(what))
    }
}

impl Place {
    /// What lies there, if anything.
    pub(crate) fn stat(&self) -> Result<Option<rustix::fs::Stat>, Errno> {
        match rustix::fs::statat(&self.parent, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Fails if something is mounted there: a volume, or one file such as a
    /// ConfigMap's subPath or `/etc/hosts`.
    ///
    /// The kernel does not refuse this by itself (EBUSY) as one might expect: it
    /// does so only for mounts of one's own namespace. Those of another one are
    /// silently *unmounted* when their mount point is renamed over or removed.
    pub(crate) fn refuse_mount_point(&self) -> Result<(), Errno> {
        refuse_mount_point(&self.parent, &self.name)
    }

    /// Opens what lies there for reading; never blocks on a FIFO.
    pub(crate) fn open(&self) -> Result<File, Errno> {
        open_child(&self.parent, &self.name, OFlags::NONBLOCK).map(File::from)
    }
}

/// The one path of a directory, whichever links led to it: from the root of the
/// mount namespace that it is in.
pub(crate) fn location(directory: impl AsFd) -> Result<PathBuf, Failure> {
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&directory.as_fd()));
    std::fs::read_link(link).map_err(Failure::io("tell where a directory lies"))
}

/// See [`Place::refuse_mount_point`]; EXDEV for a mount point.
pub(crate) fn refuse_mount_point(parent: impl AsFd, name: impl rustix::path::Arg) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn open_child(parent: impl AsFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

#[cfg(test)]
#[path = "root_tests.rs"]
mod tests;
