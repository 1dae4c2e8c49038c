//! One record: a folder with a log and the content of files that were written over.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, FlockOperation};

use super::log::{self, Log, Program, Record, Volume, Was};
use super::shelf::volume_of;
use crate::failure::Failure;
use crate::incoming::Identity;
use crate::protocol::{ByteString, ErrorKind};
use crate::root::{Owner, Place};

/// How long another agent may take to undo its own changes first.
pub(super) const LOCK_PATIENCE: Duration = Duration::from_secs(3);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The record of one container or volume, locked.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    /// Given back when closed.
    _lock: File,
    inner: Mutex<Inner>,
    /// Whether it was there already, of an agent that was killed.
    pub(crate) adopted: bool,
}

#[derive(Debug)]
struct Inner {
    log: Log,
    /// Paths that are in the log.
    seen: HashSet<PathBuf>,
    /// What it is of, if not of a container.
    volume: Option<Volume>,
    /// For whom it was changed, if it is of a volume.
    names: Vec<String>,
    /// The number of the next file of content.
    next: u64,
    /// Whether this agent added to it.
    added: bool,
}

impl Store {
    /// Locks the store in `directory`, which is made if need be.
    pub(crate) fn open(directory: &Path, patience: Duration) -> Result<Self, Failure> {
        let failed = |what: &'static str| Failure::io(format!("{what} the undo record {}", directory.display()));
        let deadline = Instant::now() + patience;
        let lock = loop {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("make"))?;
            let path = directory.join("lock");
            let lock = match File::options().create(true).append(true).open(&path) {
                Ok(lock) => lock,
                // Another agent removes it just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound && Instant::now() < deadline => continue,
                Err(error) => return Err(failed("lock")(error)),
            };
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                // It may have been removed by its owner before it was ours.
                Ok(()) => {
                    let ours = lock.metadata().map_err(failed("lock"))?;
                    if fs::metadata(&path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                        break lock;
                    }
                }
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(failed("lock")(errno.into())),
            }
            if Instant::now() >= deadline {
                let message = "another devloop session changes this container, or a volume of it";
                return Err(Failure::new(ErrorKind::InUse, message));
            }
            std::thread::sleep(LOCK_PAUSE);
        };
        let (log, records) = Log::open(&directory.join("log"))?;
        let (mut seen, mut next) = (HashSet::new(), 0);
        for record in &records {
            if let Record::Path { path, was } = record {
                seen.insert(path.as_path().to_owned());
                if let Was::File { content, .. } = was {
                    next = next.max(content + 1);
                }
            }
        }
        let (volume, names) = (volume_of(&records), names_of(&records));
        let inner = Mutex::new(Inner { log, seen, volume, names, next, added: false });
        Ok(Self { directory: directory.to_owned(), _lock: lock, inner, adopted: !records.is_empty() })
    }

    /// Whether this agent changed something that is not undone.
    pub(crate) fn has_changes(&self) -> bool {
        self.lock().added
    }

    /// Which volume it is of; none for a container's.
    pub(super) fn volume(&self) -> Option<Volume> {
        self.lock().volume.clone()
    }

    /// To be called before anything else is added.
    pub(super) fn begin_volume(&self, volume: Volume) -> Result<(), Failure> {
        self.append(&Record::Volume(volume.clone()))?;
        self.lock().volume = Some(volume);
        Ok(())
    }

    /// The pods, and containers that are in none, for which it was changed.
    pub(super) fn names(&self) -> Vec<String> {
        self.lock().names.clone()
    }

    /// To be called before it is changed for one.
    pub(super) fn changed_for(&self, name: &str) -> Result<(), Failure> {
        if self.lock().names.iter().any(|known| known == name) {
            return Ok(());
        }
        self.append(&Record::For { name: name.to_owned() })?;
        self.lock().names.push(name.to_owned());
        Ok(())
    }

    /// What is to be put back, in the order in which it was taken down.
    pub(super) fn records(&self) -> Result<Vec<Record>, Failure> {
        self.lock().log.read()
    }

    /// Takes down what `name` in a folder is, and the folder itself, unless
    /// that is known. All of it under one lock: of two threads that change one
    /// path, the second one must not take down what the first one made of it.
    pub(super) fn take_down(&self, (folder, opened): (&Path, &OwnedFd), name: &OsStr, with_folder: bool) -> Result<(), Failure> {
        let mut inner = self.lock();
        if with_folder && !inner.seen.contains(folder) {
            let stat = rustix::fs::fstat(opened).map_err(Failure::errno("look at a folder"))?;
            inner.add(folder.to_owned(), Was::directory(&stat))?;
        }
        let path = folder.join(name);
        if inner.seen.contains(&path) {
            return Ok(());
        }
        let place = Place { parent: opened.try_clone().map_err(Failure::io("hold a folder open"))?, name: name.to_owned() };
        let was = self.look(&mut inner, &place)?;
        inner.add(path, was)
    }

    pub(super) fn add_program(&self, program: Program) -> Result<bool, Failure> {
        let known = log::programs(&self.records()?).iter().any(|known| known.process == program.process);
        if !known {
            self.append(&Record::Program(program))?;
        }
        Ok(!known)
    }

    pub(super) fn append(&self, record: &Record) -> Result<(), Failure> {
        self.lock().append(record)
    }

    /// What lies at a place, its content kept.
    fn look(&self, inner: &mut Inner, place: &Place) -> Result<Was, Failure> {
        let what = || format!("take down what {} was", Path::new(&place.name).display());
        let Some(stat) = place.stat().map_err(Failure::errno(what()))? else { return Ok(Was::Absent) };
        let owner = Owner { uid: stat.st_uid, gid: stat.st_gid };
        let modified = (stat.st_mtime, stat.st_mtime_nsec as u32);
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let file = place.open().map_err(Failure::errno(what()))?;
                let stat = rustix::fs::fstat(&file).map_err(Failure::errno(what()))?;
                let content = self.keep(inner, file).map_err(Failure::io(what()))?;
                Was::file(content, &stat)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&place.parent, &place.name, Vec::new()).map_err(Failure::errno(what()))?;
                Was::Link { target: ByteString(target.into_bytes()), owner: (owner.uid, owner.gid), modified }
            }
            FileType::Directory => Was::directory(&stat),
            _ => Was::Special { mode: stat.st_mode, device: stat.st_rdev, owner: (owner.uid, owner.gid), modified },
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, inner: &mut Inner, mut file: File) -> io::Result<u64> {
        let number = inner.next;
        let mut copy = File::create(self.content(number))?;
        io::copy(&mut file, &mut copy)?;
        inner.next += 1;
        Ok(number)
    }

    pub(super) fn content(&self, number: u64) -> PathBuf {
        self.directory.join(format!("content-{number}"))
    }

    /// Forgets all of it. The log goes first: without one there is nothing to undo.
    pub(crate) fn discard(&self) -> Result<(), Failure> {
        let failed = || Failure::io(format!("remove the undo record {}", self.directory.display()));
        match fs::remove_file(self.directory.join("log")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed()(error)),
            _ => {}
        }
        self.lock().added = false;
        fs::remove_dir_all(&self.directory).map_err(failed())
    }
}

impl Inner {
    fn add(&mut self, path: PathBuf, was: Was) -> Result<(), Failure> {
        self.append(&Record::Path { path: ByteString::from(path.as_path()), was })?;
        self.seen.insert(path);
        Ok(())
    }

    fn append(&mut self, record: &Record) -> Result<(), Failure> {
        self.log.append(record)?;
        self.added = true;
        Ok(())
    }
}

/// For whom a volume was changed.
pub(super) fn names_of(records: &[Record]) -> Vec<String> {
    let names = records.iter().filter_map(|record| match record {
        Record::For { name } => Some(name.clone()),
        _ => None,
    });
    names.collect()
}

impl Was {
    fn file(content: u64, stat: &rustix::fs::Stat) -> Self {
        Self::File {
            content,
            identity: Identity::of(stat).numbers(),
            size: stat.st_size.cast_unsigned(),
            owner: (stat.st_uid, stat.st_gid),
            mode: stat.st_mode,
            modified: (stat.st_mtime, stat.st_mtime_nsec as u32),
        }
    }

    fn directory(stat: &rustix::fs::Stat) -> Self {
        Self::Directory { owner: (stat.st_uid, stat.st_gid), mode: stat.st_mode, modified: (stat.st_mtime, stat.st_mtime_nsec as u32) }
    }
}
