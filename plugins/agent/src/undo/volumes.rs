//! Volumes outlive a container. What was changed in one is put back by way of
//! whoever sees it: the container that is there now, another one, or the node.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::log::Volume;
use crate::failure::Failure;
use crate::mounts::{self, Mount};
use crate::process::Proc;
use crate::protocol::ProcessId;
use crate::root::ContainerRoot;

/// Opens the folder of a volume by way of one of these processes, the agent, or
/// any other; `None` if nobody sees it, or not to write there.
pub(super) fn reach(proc: &Proc, volume: &Volume, first: &[ProcessId]) -> Option<ContainerRoot> {
    if let Some(root) = first.iter().find_map(|process| reach_by(proc, volume, *process)) {
        return Some(root);
    }
    let mut asked = HashSet::new();
    let others = std::iter::once(std::process::id()).chain(proc.pids().unwrap_or_default());
    for pid in others {
        // Those of one namespace see the same.
        let Ok(namespace) = fs::read_link(proc.path(pid, "ns/mnt")) else { continue };
        if asked.insert(namespace)
            && let Ok(stat) = proc.stat(pid)
            && let Some(root) = reach_by(proc, volume, ProcessId { pid, start_time: stat.start_time })
        {
            return Some(root);
        }
    }
    None
}

/// The same by way of this one.
pub(super) fn reach_by(proc: &Proc, volume: &Volume, process: ProcessId) -> Option<ContainerRoot> {
    let mounts = mounts::parse(&proc.read_live(process.pid, "mountinfo").ok()?);
    let folder = volume.folder.as_path();
    let showing = mounts.iter().filter(|mount| mount.writable && mount.device == volume.device);
    let mut found = showing.filter_map(|mount| Some((mount, mount.outer(folder)?))).peekable();
    found.peek()?;
    let root = ContainerRoot::of(proc, process).ok()?;
    found.find_map(|(mount, path)| open(&root, mount, &path, volume).ok().flatten())
}

/// `None` for what is hidden below another mount, or another file system by now.
fn open(root: &ContainerRoot, mount: &Mount, path: &Path, volume: &Volume) -> Result<Option<ContainerRoot>, Failure> {
    let opened = root.below(path).map_err(Failure::errno("open a volume"))?;
    let is_it = mounts::id_of(opened.directory())? == Some(mount.id) && mounts::file_system_of(opened.directory())? == volume.file_system;
    Ok(is_it.then_some(opened))
}
