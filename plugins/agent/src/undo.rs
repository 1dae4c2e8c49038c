//! What a container was before the first change, so that it can be again.
//!
//! One folder per container, `<undo>/<container id>/`, holds a log that only
//! grows, and the content of files that were written over. What was at a path is
//! in the log before the path is changed for the first time; so whenever the
//! agent dies, the log says all that is to be put back, and putting it back once
//! more changes nothing. (It outlives the agent, not the machine: nothing is
//! flushed to the disk, as the container doesn't outlive the machine either.)
//!
//! A folder is locked by the agent that uses it. The next one that locates the
//! container after the owner was killed takes it over.
//!
//! What lies at a path that was changed is taken to be the session's. Extended
//! attributes and hard links are not brought back.

mod log;
mod restore;
mod stores;

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, FlockOperation, OFlags};

use crate::failure::Failure;
use crate::incoming::Identity;
use crate::protocol::{ByteString, ErrorKind, ProcessId};
use crate::root::{self, ContainerRoot, Owner, Place};
use log::Log;
pub(crate) use log::{Program, Record, Was};
pub(crate) use stores::Stores;

/// How long another agent may take to undo its own changes first.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The record of one container, locked.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    /// Given back when closed.
    _lock: File,
    inner: RefCell<Inner>,
    /// Whether it was there already, of an agent that was killed.
    pub(crate) adopted: bool,
}

#[derive(Debug)]
struct Inner {
    log: Log,
    /// Paths that are in the log.
    seen: HashSet<PathBuf>,
    /// The number of the next file of content.
    next: u64,
    /// Whether this agent added to it.
    added: bool,
}

/// Takes down what is about to be changed in one container.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    /// Without, nothing is taken down: for what puts things back.
    store: Option<(Rc<Store>, PathBuf)>,
}

impl Recorder {
    pub(crate) fn new(store: Rc<Store>, root: &ContainerRoot) -> Result<Self, Failure> {
        Ok(Self { store: Some((store, root.location()?)) })
    }

    pub(crate) fn none() -> Self {
        Self { store: None }
    }

    /// To be called before `name` in `parent` is made, changed or removed.
    pub(crate) fn before(&self, parent: &OwnedFd, name: &OsStr) -> Result<(), Failure> {
        let Some((store, base)) = &self.store else { return Ok(()) };
        let folder = root::location(parent)?;
        let inside = folder
            .strip_prefix(base)
            .map_err(|_| Failure::new(ErrorKind::Unsupported, format!("cannot tell where {} lies in the container", folder.display())))?;
        let folder = Path::new("/").join(inside);
        // Its time changes with every name in it.
        if folder.parent().is_some() && !store.has(&folder) {
            let stat = rustix::fs::fstat(parent).map_err(Failure::errno("look at a folder"))?;
            store.add(&folder, Was::directory(&stat))?;
        }
        let path = folder.join(name);
        if store.has(&path) {
            return Ok(());
        }
        let place = Place { parent: parent.try_clone().map_err(Failure::io("hold a folder open"))?, name: name.to_owned() };
        let was = store.look(&place)?;
        store.add(&path, was)
    }

    /// To be called before the program of a process is replaced; answers whether
    /// that is for the first time.
    pub(crate) fn before_program(&self, program: Program) -> Result<bool, Failure> {
        match &self.store {
            Some((store, _)) => store.add_program(program),
            None => Ok(false),
        }
    }

    /// That did not come about.
    pub(crate) fn not_replaced(&self, process: ProcessId) -> Result<(), Failure> {
        match &self.store {
            Some((store, _)) => store.append(&Record::NotReplaced { process }),
            None => Ok(()),
        }
    }
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
                let message = "another devloop session changes this container";
                return Err(Failure::new(ErrorKind::InUse, message));
            }
            std::thread::sleep(LOCK_PAUSE);
        };
        let (log, records) = Log::open(&directory.join("log"))?;
        let mut seen = HashSet::new();
        let mut next = 0;
        for record in &records {
            if let Record::Path { path, was } = record {
                seen.insert(path.as_path().to_owned());
                if let Was::File { content, .. } = was {
                    next = next.max(content + 1);
                }
            }
        }
        let inner = RefCell::new(Inner { log, seen, next, added: false });
        Ok(Self { directory: directory.to_owned(), _lock: lock, inner, adopted: !records.is_empty() })
    }

    /// Whether this agent changed something that is not undone.
    pub(crate) fn has_changes(&self) -> bool {
        self.inner.borrow().added
    }

    /// What is to be put back, in the order in which it was taken down.
    fn records(&self) -> Result<Vec<Record>, Failure> {
        self.inner.borrow().log.read()
    }

    fn has(&self, path: &Path) -> bool {
        self.inner.borrow().seen.contains(path)
    }

    fn add(&self, path: &Path, was: Was) -> Result<(), Failure> {
        self.append(&Record::Path { path: ByteString::from(path), was })?;
        self.inner.borrow_mut().seen.insert(path.to_owned());
        Ok(())
    }

    fn add_program(&self, program: Program) -> Result<bool, Failure> {
        let known = log::programs(&self.records()?).iter().any(|known| known.process == program.process);
        if !known {
            self.append(&Record::Program(program))?;
        }
        Ok(!known)
    }

    fn append(&self, record: &Record) -> Result<(), Failure> {
        let mut inner = self.inner.borrow_mut();
        inner.log.append(record)?;
        inner.added = true;
        Ok(())
    }

    /// What lies at a place, its content kept.
    fn look(&self, place: &Place) -> Result<Was, Failure> {
        let what = || format!("take down what {} was", Path::new(&place.name).display());
        let Some(stat) = place.stat().map_err(Failure::errno(what()))? else { return Ok(Was::Absent) };
        let owner = Owner { uid: stat.st_uid, gid: stat.st_gid };
        let modified = (stat.st_mtime, stat.st_mtime_nsec as u32);
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let file = place.open().map_err(Failure::errno(what()))?;
                let stat = rustix::fs::fstat(&file).map_err(Failure::errno(what()))?;
                let content = self.keep(file).map_err(Failure::io(what()))?;
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

    fn keep(&self, mut file: File) -> io::Result<u64> {
        let mut inner = self.inner.borrow_mut();
        let number = inner.next;
        let mut copy = File::create(self.content(number))?;
        io::copy(&mut file, &mut copy)?;
        inner.next += 1;
        Ok(number)
    }

    fn content(&self, number: u64) -> PathBuf {
        self.directory.join(format!("content-{number}"))
    }

    /// Forgets all of it. The log goes first: without one there is nothing to undo.
    pub(crate) fn discard(&self) -> Result<(), Failure> {
        let failed = || Failure::io(format!("remove the undo record {}", self.directory.display()));
        match fs::remove_file(self.directory.join("log")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed()(error)),
            _ => {}
        }
        self.inner.borrow_mut().added = false;
        fs::remove_dir_all(&self.directory).map_err(failed())
    }
}

/// Opens a file of a container for reading, never waiting for a FIFO's writer.
pub(crate) fn open_regular(root: &ContainerRoot, path: &Path) -> Result<File, rustix::io::Errno> {
    root.open(path, OFlags::RDONLY | OFlags::NONBLOCK).map(File::from)
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

#[cfg(test)]
#[path = "undo_tests.rs"]
mod tests;
