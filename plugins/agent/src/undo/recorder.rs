//! What is about to be changed is taken down: into the record of the volume that
//! it is on, or into that of the container.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::log::{Program, Record};
use super::shelf::Shelf;
use super::store::Store;
use crate::failure::Failure;
use crate::mounts::{self, Mount};
use crate::process::Proc;
use crate::protocol::{ErrorKind, ProcessId};
use crate::root::{self, ContainerRoot};

/// Takes down what is about to be changed in one container.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    /// Without, nothing is taken down: for what puts things back.
    container: Option<Arc<Recorded>>,
}

/// A container and where its changes are taken down.
#[derive(Debug)]
struct Recorded {
    /// The name of its record, which may be dropped and begun anew meanwhile.
    container: String,
    shelf: Arc<Shelf>,
    /// Its pod, see [`Record::For`].
    name: String,
    proc: Proc,
    process: ProcessId,
    /// Where its root directory lies, as the kernel tells it.
    base: PathBuf,
    root_mount: Option<u64>,
    mounts: Mutex<Vec<Mount>>,
}

impl Recorder {
    pub(super) fn new(
        proc: &Proc,
        process: ProcessId,
        root: &ContainerRoot,
        shelf: Arc<Shelf>,
        (container, name): (String, String),
    ) -> Result<Self, Failure> {
        let root_mount = mounts::id_of(root.directory())?;
        let (base, proc, mounts) = (root.location()?, proc.clone(), Mutex::default());
        Ok(Self { container: Some(Arc::new(Recorded { container, shelf, name, proc, process, base, root_mount, mounts })) })
    }

    pub(crate) fn none() -> Self {
        Self { container: None }
    }

    /// To be called before `name` in `parent` is made, changed or removed.
    pub(crate) fn before(&self, parent: &OwnedFd, name: &OsStr) -> Result<(), Failure> {
        let Some(container) = &self.container else { return Ok(()) };
        let (store, folder) = container.place_of(parent)?;
        // Its time changes with every name in it. (Of a container's root it is
        // nobody's business; of a volume's it may be.)
        let with_folder = folder.parent().is_some() || store.volume().is_some();
        store.take_down((&folder, parent), name, with_folder)
    }

    /// To be called before the program of a process is replaced; answers whether
    /// that is for the first time.
    pub(crate) fn before_program(&self, program: Program) -> Result<bool, Failure> {
        match &self.container {
            Some(container) => container.store()?.add_program(program),
            None => Ok(false),
        }
    }

    /// That did not come about.
    pub(crate) fn not_replaced(&self, process: ProcessId) -> Result<(), Failure> {
        match &self.container {
            Some(container) => container.store()?.append(&Record::NotReplaced { process }),
            None => Ok(()),
        }
    }
}

impl Recorded {
    fn store(&self) -> Result<Arc<Store>, Failure> {
        self.shelf.open(&self.container)
    }

    /// The record that a folder belongs to, and its path there.
    fn place_of(&self, folder: &OwnedFd) -> Result<(Arc<Store>, PathBuf), Failure> {
        let location = root::location(folder)?;
        let inside = location
            .strip_prefix(&self.base)
            .map_err(|_| Failure::new(ErrorKind::Unsupported, format!("cannot tell where {} lies in the container", location.display())))?;
        let path = Path::new("/").join(inside);
        let mount = mounts::id_of(folder)?;
        if mount == self.root_mount {
            return Ok((self.store()?, path));
        }
        // One that can't be told from the rest goes with the container.
        let Some((mount, inner)) = mount.and_then(|id| self.mount(id)).and_then(|mount| Some((mount.clone(), mount.inner(&path)?))) else {
            return Ok((self.store()?, path));
        };
        let file_system = mounts::file_system_of(folder)?;
        let (store, inner) = self.shelf.volume(&mount, file_system, &inner)?;
        store.changed_for(&self.name)?;
        Ok((store, inner))
    }

    /// One that came since is found, too.
    fn mount(&self, id: u64) -> Option<Mount> {
        let mut mounts = self.mounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mount) = mounts.iter().find(|mount| mount.id == id) {
            return Some(mount.clone());
        }
        *mounts = mounts::parse(&self.proc.read_live(self.process.pid, "mountinfo").ok()?);
        mounts.iter().find(|mount| mount.id == id).cloned()
    }
}
