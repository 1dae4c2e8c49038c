//! A file that is being received: invisible under its name until it is whole.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::failure::Failure;
use crate::protocol::ErrorKind;
use crate::root::{ContainerPath, ContainerRoot, Owner, Parents, Place};
use crate::spare::Spares;
use crate::undo::Recorder;

/// `UTIME_OMIT` of utimensat(2): leave this one of the two times alone.
pub(crate) const UTIME_OMIT: i64 = 0x3fff_fffe;
/// Never those that let a file run as its owner or group.
const PERMISSIONS: u32 = 0o777;
const ALL_BITS: u32 = 0o7777;

/// How the file is to look when it is in place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    /// The owner of what is new; an existing file keeps its own.
    pub(crate) owner: Owner,
    pub(crate) mode: ModeRule,
    pub(crate) modified: Option<(i64, u32)>,
}

/// Which permission bits the file gets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ModeRule {
    /// These.
    Exactly(u32),
    /// Those of the existing file, or these.
    KeepOr(u32),
    /// Those of the existing file or `0o755`, and executable in any case.
    Executable,
    /// The file as it once was: all of these bits, and its owner, too, whatever
    /// lies there now.
    Original(u32),
}

/// A name that is taken by no other unfinished file of this agent in a folder.
/// They are few, so that few names have to be taken down.
#[derive(Debug)]
pub(crate) struct TemporaryName {
    folder: Identity,
    slot: u32,
}

static SLOTS: Mutex<BTreeSet<(Identity, u32)>> = Mutex::new(BTreeSet::new());

impl TemporaryName {
    /// The folder that it is in.
    pub(crate) fn folder(&self) -> Identity {
        self.folder
    }

    pub(crate) fn take(folder: &OwnedFd) -> Result<Self, Failure> {
        let folder = Identity::of(&rustix::fs::fstat(folder).map_err(Failure::errno("identify a folder"))?);
        let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = (0..).find(|slot| !slots.contains(&(folder, *slot))).unwrap_or_default();
        slots.insert((folder, slot));
        Ok(Self { folder, slot })
    }

    /// With pid and time, for two agents that work in one directory: in two
    /// containers that share a volume, their pids can be the same.
    pub(crate) fn name(&self) -> OsString {
        static START: LazyLock<u128> =
            LazyLock::new(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos());
        OsString::from(format!(".devloop-{}-{:x}-{}.tmp", std::process::id(), *START, self.slot))
    }
}

impl Drop for TemporaryName {
    fn drop(&mut self) {
        SLOTS.lock().unwrap_or_else(PoisonError::into_inner).remove(&(self.folder, self.slot));
    }
}

/// The temporary file. Dropped before [`Incoming::install`], it is removed.
#[derive(Debug)]
pub(crate) struct Incoming {
    path: ContainerPath,
    place: Place,
    /// None once it is in place.
    temporary: Option<TemporaryName>,
    file: File,
    written: u64,
    /// Of what was there before the first byte was written.
    length: u64,
    attributes: Attributes,
    recorder: Recorder,
}

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

/// A file that is in place.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) identity: Identity,
    pub(crate) stamp: Stamp,
}

/// Differs when a file was written to, replaced, or changed otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    identity: Identity,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of_file(file: &File) -> Result<Self, Failure> {
        Ok(Self::of(&rustix::fs::fstat(file).map_err(Failure::errno("look at an open file"))?))
    }

    fn of(stat: &rustix::fs::Stat) -> Self {
        Self {
            identity: Identity::of(stat),
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }
}

impl Identity {
    pub(crate) fn of(stat: &rustix::fs::Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }

    /// Device and inode.
    pub(crate) fn numbers(self) -> (u64, u64) {
        (self.device, self.inode)
    }

    pub(crate) fn of_file(file: &File) -> Result<Self, Failure> {
        let stat = rustix::fs::fstat(file).map_err(Failure::errno("identify an open file"))?;
        Ok(Self::of(&stat))
    }
}

impl Incoming {
    pub(crate) fn create(root: &ContainerRoot, path: ContainerPath, attributes: Attributes, recorder: Recorder) -> Result<Self, Failure> {
        Self::create_from(&Spares::default(), root, path, attributes, recorder)
    }

    /// The same; a spare file is taken where there is one.
    pub(crate) fn create_from(
        spares: &Spares,
        root: &ContainerRoot,
        path: ContainerPath,
        attributes: Attributes,
        recorder: Recorder,
    ) -> Result<Self, Failure> {
        let place = root.place(&path, Parents::Create(attributes.owner, &recorder))?;
        refuse_mount_point(&place, &path)?;
        if let Some((temporary, file, length)) = spares.take(&place.parent) {
            return Ok(Self { path, place, temporary: Some(temporary), file, written: 0, length, attributes, recorder });
        }
        let temporary = TemporaryName::take(&place.parent)?;
        recorder.before(&place.parent, &temporary.name())?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&place.parent, temporary.name(), flags, Mode::from_raw_mode(0o600))
            .map_err(Failure::errno(format_args!("create a file beside {path}")))?;
        let file = File::from(file);
        Ok(Self { path, place, temporary: Some(temporary), file, written: 0, length: 0, attributes, recorder })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(Failure::io(format_args!("write {}", self.path)))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// What was received so far.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Leaves the temporary file where it is, as an agent that is killed does.
    #[cfg(test)]
    pub(crate) fn abandon(mut self) {
        std::mem::forget(self.temporary.take());
    }

    /// Renames the file into place; no reader ever sees half of it.
    pub(crate) fn install(self) -> Result<Installed, Failure> {
        self.install_over(None, &Spares::default())
    }

    /// The same; what it replaces becomes a spare if it is `ours`, written by this
    /// agent and not changed since.
    pub(crate) fn install_over(mut self, ours: Option<Stamp>, spares: &Spares) -> Result<Installed, Failure> {
        let path = self.path.clone();
        let errno = |what: &'static str| Failure::errno(format!("{what} {path}"));
        // Again: it may have come to be since.
        refuse_mount_point(&self.place, &path)?;
        let existing = self.place.stat().map_err(errno("look at"))?;
        if let Some(existing) = &existing
            && FileType::from_raw_mode(existing.st_mode) == FileType::Directory
        {
            let message = format!("cannot write {path}: it is a directory");
            return Err(Failure::new(ErrorKind::InvalidPath, message));
        }
        if self.written < self.length {
            self.file.set_len(self.written).map_err(Failure::io(format_args!("set the length of {path}")))?;
        }
        let own = matches!(self.attributes.mode, ModeRule::Original(_));
        let replaced = existing.as_ref().filter(|existing| ours == Some(Stamp::of(existing))).map(Identity::of);
        let existing = existing.filter(|_| !own);
        let owner = existing.as_ref().map_or(self.attributes.owner, |existing| Owner { uid: existing.st_uid, gid: existing.st_gid });
        let kept = existing.as_ref().map(|existing| existing.st_mode & PERMISSIONS);
        let (uid, gid) = owner.ids();
        rustix::fs::fchown(&self.file, uid, gid).map_err(errno("set the owner of"))?;
        // After the owner, whose change clears the set-user-id bit.
        let mode = Mode::from_raw_mode(self.attributes.mode.apply(kept));
        rustix::fs::fchmod(&self.file, mode).map_err(errno("set the mode of"))?;
        if let Some((seconds, nanoseconds)) = self.attributes.modified {
            let times = Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
            };
            rustix::fs::futimens(&self.file, &times).map_err(errno("set the time of"))?;
        }
        let Place { parent, name } = &self.place;
        self.recorder.before(parent, name)?;
        let Some(temporary) = self.temporary.take() else { return Err(errno("rename the new file to")(Errno::NOENT)) };
        let spare = replaced.and_then(|replaced| Some((parent.try_clone().ok()?, replaced)));
        let exchange = || rustix::fs::renameat_with(parent, temporary.name(), parent, name, RenameFlags::EXCHANGE).is_ok();
        if let Some((folder, replaced)) = spare.filter(|_| exchange()) {
            spares.keep(folder, temporary, replaced);
        } else if let Err(error) = rustix::fs::renameat(parent, temporary.name(), parent, name) {
            self.temporary = Some(temporary);
            return Err(errno("rename the new file to")(error));
        }
        Ok(Installed { identity: Identity::of_file(&self.file)?, stamp: Stamp::of_file(&self.file)? })
        // Here the file is closed: the kernel runs no program that is open for
        // writing (ETXTBSY).
    }
}

fn refuse_mount_point(place: &Place, path: &ContainerPath) -> Result<(), Failure> {
    place.refuse_mount_point().map_err(|errno| match errno {
        Errno::XDEV => {
            let message = format!("cannot write {path}: it is a mount point");
            Failure::new(ErrorKind::Unsupported, message)
        }
        other => Failure::errno(format_args!("look at {path}"))(other),
    })
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // The container may be gone already; there is no one to tell.
            let _ = rustix::fs::unlinkat(&self.place.parent, temporary.name(), AtFlags::empty());
        }
    }
}

impl ModeRule {
    fn apply(self, kept: Option<u32>) -> u32 {
        match self {
            Self::Exactly(mode) => mode & PERMISSIONS,
            Self::Original(mode) => mode & ALL_BITS,
            Self::KeepOr(mode) => kept.unwrap_or(mode) & PERMISSIONS,
            Self::Executable => kept.unwrap_or(0o755) | 0o111,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    use tempfile::TempDir;

    use super::*;
    use crate::protocol::ByteString;

    const PLAIN: Attributes = Attributes { owner: Owner { uid: 1000, gid: 1001 }, mode: ModeRule::KeepOr(0o644), modified: None };

    fn create(root: &TempDir, path: &str, attributes: Attributes) -> Result<Incoming, Failure> {
        let root = ContainerRoot::at(root.path()).unwrap();
        Incoming::create(&root, ContainerPath::parse(&ByteString::from(path)).unwrap(), attributes, Recorder::none())
    }

    fn put(root: &TempDir, path: &str, text: &str, attributes: Attributes) -> Result<Installed, Failure> {
        let mut incoming = create(root, path, attributes)?;
        incoming.write(text.as_bytes())?;
        incoming.install()
    }

    fn names(root: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(root.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_new_file_belongs_to_the_process() {
        let root = tempfile::tempdir().unwrap();
        let installed = put(&root, "/a/f", "hello", PLAIN).unwrap();
        let file = fs::metadata(root.path().join("a/f")).unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (1000, 1001, 0o644));
        assert_eq!(fs::read_to_string(root.path().join("a/f")).unwrap(), "hello");
        assert_eq!(installed.identity, Identity { device: file.dev(), inode: file.ino() });
    }

    #[test]
    fn an_existing_file_keeps_its_mode_and_owner_but_runs_as_nobody_else() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("f");
        fs::write(&path, "old and longer").unwrap();
        chown(&path, Some(33), Some(34)).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o4750)).unwrap();
        put(&root, "/f", "new", PLAIN).unwrap();
        let file = fs::metadata(&path).unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (33, 34, 0o750));
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(names(&root), ["f"]);
    }

    #[test]
    fn mode_and_time_are_set_where_given() {
        let root = tempfile::tempdir().unwrap();
        let attributes = Attributes { mode: ModeRule::Exactly(0o600), modified: Some((1_700_000_000, 123_456_789)), ..PLAIN };
        put(&root, "/f", "x", attributes).unwrap();
        let file = fs::metadata(root.path().join("f")).unwrap();
        assert_eq!(file.mode() & 0o7777, 0o600);
        assert_eq!((file.mtime(), file.mtime_nsec()), (1_700_000_000, 123_456_789));
    }

    #[test]
    fn a_program_is_executable_whatever_was_there() {
        assert_eq!(ModeRule::Executable.apply(None), 0o755);
        assert_eq!(ModeRule::Executable.apply(Some(0o640)), 0o751);
        assert_eq!(ModeRule::KeepOr(0o644).apply(Some(0o640)), 0o640);
        assert_eq!(ModeRule::Exactly(0o644).apply(Some(0o640)), 0o644);
        assert_eq!(ModeRule::Exactly(0o6755).apply(None), 0o755);
        assert_eq!(ModeRule::Original(0o6755).apply(Some(0o644)), 0o6755);
    }

    #[test]
    fn a_link_stays_and_its_target_is_written() {
        let root = tempfile::tempdir().unwrap();
        symlink("/data/real", root.path().join("link")).unwrap();
        put(&root, "/link", "x", PLAIN).unwrap();
        assert!(root.path().join("link").is_symlink());
        assert_eq!(fs::read_to_string(root.path().join("data/real")).unwrap(), "x");
    }

    #[test]
    fn until_it_is_whole_the_old_file_is_there_and_dropped_nothing_is_left() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("f"), "old").unwrap();
        let mut incoming = create(&root, "/f", PLAIN).unwrap();
        incoming.write(b"half").unwrap();
        assert_eq!(fs::read_to_string(root.path().join("f")).unwrap(), "old");
        assert_eq!(names(&root).len(), 2);
        drop(incoming);
        assert_eq!(names(&root), ["f"]);
    }

    #[test]
    fn a_directory_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("d")).unwrap();
        assert_eq!(put(&root, "/d", "x", PLAIN).unwrap_err().kind, ErrorKind::InvalidPath);
        assert_eq!(names(&root), ["d"]);
    }
}
