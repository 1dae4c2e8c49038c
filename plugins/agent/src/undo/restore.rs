//! Putting back. Each path in the log is free of links and came there with what
//! it originally was, so the order of the changes doesn't matter: first what is
//! not as it was goes, from the innermost; then what is missing comes, from the
//! outermost; folders get their times last.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::Recorder;
use super::log::{Program, Record, Was, programs};
use super::store::Store;
use crate::failure::Failure;
use crate::incoming::{Attributes, Identity, Incoming, ModeRule, UTIME_OMIT};
use crate::protocol::MAX_CHUNK;
use crate::root::{ContainerPath, ContainerRoot, Owner, Parents, Place};

const PERMISSIONS: u32 = 0o7777;

/// What was put back, and what is left to do.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) paths: u32,
    /// Those that were replaced, the oldest process first.
    pub(crate) programs: Vec<Program>,
}

impl Store {
    /// Puts all paths back. The record stays until [`Store::discard`].
    ///
    /// One path that can't be put back doesn't keep the others from it.
    pub(crate) fn restore(&self, root: &ContainerRoot) -> Result<Restored, Failure> {
        let records = self.records()?;
        let mut paths: Vec<(ContainerPath, &Was)> = Vec::new();
        for record in &records {
            if let Record::Path { path, was } = record {
                paths.push((ContainerPath::recorded(path)?, was));
            }
        }
        // A path sorts before those below it.
        paths.sort_by(|(first, _), (second, _)| first.as_path().cmp(second.as_path()));
        let mut done = HashSet::new();
        let mut failures = Vec::new();
        for (path, was) in paths.iter().rev() {
            match remove_other(root, path, was) {
                Ok(true) => drop(done.insert(path.bytes())),
                Ok(false) => {}
                Err(errno) => failures.push(Failure::errno(format_args!("put back {path}"))(errno)),
            }
        }
        for (path, was) in &paths {
            match self.put_back(root, path, was) {
                Ok(true) => drop(done.insert(path.bytes())),
                Ok(false) => {}
                Err(failure) => failures.push(failure),
            }
        }
        // Each name that comes and goes changes its folder's time.
        for (path, was) in &paths {
            if let Was::Directory { modified, .. } = was
                && let Err(errno) = put_back_time(root, path, *modified)
            {
                failures.push(Failure::errno(format_args!("put back the time of {path}"))(errno));
            }
        }
        let count = failures.len();
        if let Some(first) = failures.into_iter().next() {
            return Err(if count > 1 { first.and(format_args!("{} more could not be put back", count - 1)) } else { first });
        }
        let mut programs = programs(&records);
        programs.sort_by_key(|program| program.process.start_time);
        Ok(Restored { paths: u32::try_from(done.len()).unwrap_or(u32::MAX), programs })
    }

    /// Whether that changed anything.
    fn put_back(&self, root: &ContainerRoot, path: &ContainerPath, was: &Was) -> Result<bool, Failure> {
        if *was == Was::Absent {
            return Ok(false);
        }
        let failed = || Failure::errno(format!("put back {path}"));
        let now = match root.place_without_links(path) {
            Ok(place) => place.stat().map_err(failed())?.map(|stat| (place, stat)),
            // Others removed the folder that it is in: it is made again.
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed()(errno)),
        };
        match (was, &now) {
            (_, Some((_, stat))) if is_untouched(was, stat) => Ok(false),
            (Was::Directory { owner, mode, .. }, Some((place, stat))) if is(stat, FileType::Directory) => {
                own(place, *owner, Some(*mode)).map(|()| true).map_err(failed())
            }
            _ => self.make(root, path, was).map(|()| true),
        }
    }

    fn make(&self, root: &ContainerRoot, path: &ContainerPath, was: &Was) -> Result<(), Failure> {
        let failed = || Failure::errno(format!("put back {path}"));
        let recorder = Recorder::none();
        let place = |(uid, gid): (u32, u32)| root.place_for_itself(path, Parents::Create(Owner { uid, gid }, &recorder));
        match was {
            Was::Absent => Ok(()),
            Was::File { content, owner: (uid, gid), mode, modified, .. } => {
                let attributes =
                    Attributes { owner: Owner { uid: *uid, gid: *gid }, mode: ModeRule::Original(*mode), modified: Some(*modified) };
                let mut incoming = Incoming::create(root, path.clone(), attributes, recorder)?;
                let mut kept = File::open(self.content(*content)).map_err(Failure::io(format_args!("read what {path} was")))?;
                let mut chunk = vec![0; MAX_CHUNK];
                loop {
                    match kept.read(&mut chunk).map_err(Failure::io(format_args!("read what {path} was")))? {
                        0 => return incoming.install().map(drop),
                        length => incoming.write(&chunk[..length])?,
                    }
                }
            }
            Was::Link { target, owner, modified } => {
                let place = place(*owner)?;
                rustix::fs::symlinkat(target.0.as_slice(), &place.parent, &place.name).map_err(failed())?;
                own(&place, *owner, None).map_err(failed())?;
                set_time(&place, *modified).map_err(failed())
            }
            Was::Directory { owner, mode, .. } => {
                let place = place(*owner)?;
                rustix::fs::mkdirat(&place.parent, &place.name, Mode::from_raw_mode(0o700)).map_err(failed())?;
                own(&place, *owner, Some(*mode)).map_err(failed())
            }
            Was::Special { mode, device, owner, modified } => {
                let place = place(*owner)?;
                let kind = FileType::from_raw_mode(*mode);
                rustix::fs::mknodat(&place.parent, &place.name, kind, Mode::from_raw_mode(0o600), *device).map_err(failed())?;
                own(&place, *owner, Some(*mode)).map_err(failed())?;
                set_time(&place, *modified).map_err(failed())
            }
        }
    }
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

fn kind(was: &Was) -> Option<FileType> {
    match was {
        Was::Absent => None,
        Was::File { .. } => Some(FileType::RegularFile),
        Was::Link { .. } => Some(FileType::Symlink),
        Was::Directory { .. } => Some(FileType::Directory),
        Was::Special { mode, .. } => Some(FileType::from_raw_mode(*mode)),
    }
}

/// Whether it is the very entry that was there, and was not written to.
fn is_untouched(was: &Was, stat: &Stat) -> bool {
    let (owner_now, modified_now) = ((stat.st_uid, stat.st_gid), (stat.st_mtime, stat.st_mtime_nsec as u32));
    match was {
        Was::Absent => false,
        Was::File { identity, size, owner, mode, modified, .. } => {
            Identity::of(stat).numbers() == *identity
                && stat.st_size.cast_unsigned() == *size
                && (owner_now, stat.st_mode, modified_now) == (*owner, *mode, *modified)
        }
        // Those of another target went already.
        Was::Link { owner, modified, .. } => is(stat, FileType::Symlink) && (owner_now, modified_now) == (*owner, *modified),
        Was::Directory { owner, mode, .. } => (owner_now, stat.st_mode) == (*owner, *mode),
        Was::Special { mode, owner, modified, .. } => (owner_now, stat.st_mode, modified_now) == (*owner, *mode, *modified),
    }
}

/// Removes what was not there, or was something else. A regular file stays if one
/// takes its place, which can be done in one step.
fn remove_other(root: &ContainerRoot, path: &ContainerPath, was: &Was) -> Result<bool, Errno> {
    let place = match root.place_without_links(path) {
        Ok(place) => place,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    let Some(stat) = place.stat()? else { return Ok(false) };
    let stays = match was {
        Was::File { .. } => is(&stat, FileType::RegularFile),
        Was::Directory { .. } => is(&stat, FileType::Directory),
        Was::Link { target, .. } => {
            let now = || rustix::fs::readlinkat(&place.parent, &place.name, Vec::new());
            is_untouched(was, &stat) && now()?.as_bytes() == target.0
        }
        Was::Special { .. } => is_untouched(was, &stat) && kind(was).is_some_and(|kind| is(&stat, kind)),
        Was::Absent => false,
    };
    if stays { Ok(false) } else { clear(&place, &stat) }
}

/// A folder goes only if it is empty, for what others put into it is theirs.
fn clear(place: &Place, stat: &Stat) -> Result<bool, Errno> {
    place.refuse_mount_point()?;
    let flags = if is(stat, FileType::Directory) { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match rustix::fs::unlinkat(&place.parent, &place.name, flags) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn own(place: &Place, (uid, gid): (u32, u32), mode: Option<u32>) -> Result<(), Errno> {
    let (uid, gid) = Owner { uid, gid }.ids();
    rustix::fs::chownat(&place.parent, &place.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    let Some(mode) = mode else { return Ok(()) };
    // By a descriptor: a link that came there meanwhile must not be followed.
    let itself = rustix::fs::openat(&place.parent, &place.name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&itself);
    rustix::fs::chmod(format!("/proc/self/fd/{descriptor}"), Mode::from_raw_mode(mode & PERMISSIONS))
}

fn set_time(place: &Place, (seconds, nanoseconds): (i64, u32)) -> Result<(), Errno> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    };
    rustix::fs::utimensat(&place.parent, &place.name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// A folder that could not be put back has been reported.
fn put_back_time(root: &ContainerRoot, path: &ContainerPath, modified: (i64, u32)) -> Result<(), Errno> {
    let Ok(place) = root.place_without_links(path) else { return Ok(()) };
    match place.stat()? {
        // On a read-only file system even the same one can't be set.
        Some(stat) if (stat.st_mtime, stat.st_mtime_nsec as u32) != modified => set_time(&place, modified),
        _ => Ok(()),
    }
}
