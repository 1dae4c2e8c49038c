//! What a container was before the first change, so that it can be again.
//!
//! One folder per container, `<undo>/<container id>/`, holds a log that only
//! grows, and the content of files that were written over. Another one per volume
//! holds what was changed there, whichever container that was for: a volume
//! outlives a container that starts again, and several may share it.
//!
//! What was at a path is in the log before the path is changed for the first time;
//! so whenever the agent dies, the log says all that is to be put back, and putting
//! it back once more changes nothing. (It outlives the agent, not the machine:
//! nothing is flushed to the disk, as the container doesn't outlive the machine
//! either.)
//!
//! A folder is locked by the agent that uses it. The next one that locates the
//! container, or one that has the volume, after the owner was killed takes it over.
//!
//! What lies at a path that was changed is taken to be the session's. Extended
//! attributes and hard links are not brought back.

mod log;
mod recorder;
mod restore;
mod shelf;
mod store;
mod stores;
mod volumes;

use std::fs::File;
use std::path::Path;

use rustix::fs::OFlags;

use crate::root::ContainerRoot;
pub(crate) use log::Program;
pub(crate) use recorder::Recorder;
pub(crate) use store::Store;
pub(crate) use stores::Stores;

/// Opens a file of a container for reading, never waiting for a FIFO's writer.
pub(crate) fn open_regular(root: &ContainerRoot, path: &Path) -> Result<File, rustix::io::Errno> {
    root.open(path, OFlags::RDONLY | OFlags::NONBLOCK).map(File::from)
}

#[cfg(test)]
#[path = "undo_tests.rs"]
mod tests;
