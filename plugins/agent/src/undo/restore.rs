//! Putting back: the log from its end to its beginning, so that each path comes
//! to be what it was before the changes behind it in the log.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::log::{Program, Record, Was, programs};
use super::{Recorder, Store};
use crate::failure::Failure;
use crate::incoming::{Attributes, Identity, Incoming, ModeRule, UTIME_OMIT};
use crate::protocol::{ByteString, MAX_CHUNK};
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
        let mut paths = 0;
        let mut failures = Vec::new();
        let mut times: Vec<(&ByteString, (i64, u32))> = Vec::new();
        for record in records.iter().rev() {
            let Record::Path { path, was } = record else { continue };
            if let Was::Directory { modified, .. } = was {
                times.push((path, *modified));
            }
            match self.put_back(root, path, was) {
                Ok(done) => paths += u32::from(done),
                Err(failure) => failures.push(failure),
            }
        }
        // Last, since each name that comes and goes changes its folder's time.
        for (path, modified) in times {
            if let Err(failure) = set_directory_time(root, path, modified) {
                failures.push(failure);
            }
        }
        let count = failures.len();
        if let Some(first) = failures.into_iter().next() {
            return Err(if count > 1 { first.and(format_args!("{} more could not be put back", count - 1)) } else { first });
        }
        let mut programs = programs(&records);
        programs.sort_by_key(|program| program.process.start_time);
        Ok(Restored { paths, programs })
    }

    /// Whether that changed anything.
    fn put_back(&self, root: &ContainerRoot, path: &ByteString, was: &Was) -> Result<bool, Failure> {
        let path = ContainerPath::parse(path)?;
        let failed = || Failure::errno(format!("put back {path}"));
        let place = root.place_itself(&path)?;
        let now = match &place {
            Some(place) => place.stat().map_err(failed())?,
            None => None,
        };
        match (was, &now, &place) {
            (Was::Absent, None, _) => return Ok(false),
            (Was::Absent, Some(stat), Some(place)) => return clear(place, stat).map_err(failed()),
            (Was::Directory { owner, mode, .. }, Some(stat), Some(place)) if is(stat, FileType::Directory) => {
                if (stat.st_uid, stat.st_gid) == *owner && stat.st_mode == *mode {
                    return Ok(false);
                }
                return own(place, *owner, Some(*mode)).map(|()| true).map_err(failed());
            }
            (Was::File { identity, size, owner, mode, modified, .. }, Some(stat), _)
                if Identity::of(stat).numbers() == *identity
                    && stat.st_size.cast_unsigned() == *size
                    && (stat.st_uid, stat.st_gid) == *owner
                    && stat.st_mode == *mode
                    && (stat.st_mtime, stat.st_mtime_nsec as u32) == *modified =>
            {
                return Ok(false);
            }
            (Was::Link { target, owner, modified }, Some(stat), Some(place))
                if is(stat, FileType::Symlink)
                    && (stat.st_uid, stat.st_gid) == *owner
                    && (stat.st_mtime, stat.st_mtime_nsec as u32) == *modified
                    && rustix::fs::readlinkat(&place.parent, &place.name, Vec::new()).is_ok_and(|now| now.as_bytes() == target.0) =>
            {
                return Ok(false);
            }
            _ => {}
        }
        // Something else is in the way: a regular file is replaced by a regular
        // file in one step, all others can't be.
        if let (Some(stat), Some(place)) = (&now, &place)
            && !(is(stat, FileType::RegularFile) && matches!(was, Was::File { .. }))
        {
            clear(place, stat).map_err(failed())?;
        }
        self.make(root, &path, was).map(|()| true)
    }

    fn make(&self, root: &ContainerRoot, path: &ContainerPath, was: &Was) -> Result<(), Failure> {
        let failed = || Failure::errno(format!("put back {path}"));
        let recorder = Recorder::none();
        let place = |(uid, gid): (u32, u32)| root.place(path, Parents::Create(Owner { uid, gid }, &recorder));
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

fn is(stat: &rustix::fs::Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// Removes what was not there; a folder only if it is empty, for what others put
/// into it is theirs.
fn clear(place: &Place, stat: &rustix::fs::Stat) -> Result<bool, Errno> {
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

fn set_directory_time(root: &ContainerRoot, path: &ByteString, modified: (i64, u32)) -> Result<(), Failure> {
    let path = ContainerPath::parse(path)?;
    let Some(place) = root.place_itself(&path)? else { return Ok(()) };
    match set_time(&place, modified) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Failure::errno(format_args!("put back the time of {}", Path::new(path.as_path()).display()))(errno)),
    }
}
