//! The records of all containers and volumes that one agent works on.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::log::Volume;
use super::shelf::{Shelf, volume_of};
use super::store::{Store, names_of};
use super::{Recorder, volumes};
use crate::failure::Failure;
use crate::process::{Proc, container_id, container_ids, in_container, pod_uid};
use crate::protocol::ProcessId;
use crate::root::ContainerRoot;

/// Where the kubelet keeps a folder for each pod until the pod is no more.
const PODS: &str = "/var/lib/kubelet/pods";

/// Where the records are, and which are open.
#[derive(Debug)]
pub(crate) struct Stores {
    shelf: Arc<Shelf>,
    /// Which container a process belongs to.
    containers: HashMap<ProcessId, Belonging>,
    recorders: HashMap<ProcessId, Recorder>,
}

/// The name of a container's record, and that of its pod, or its own again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Belonging {
    container: String,
    pod: String,
}

impl Stores {
    pub(crate) fn at(base: impl Into<PathBuf>) -> Self {
        Self { shelf: Arc::new(Shelf::at(base.into())), containers: HashMap::new(), recorders: HashMap::new() }
    }

    /// Removes the records of containers that are no more, and of volumes whose
    /// pods are, of agents that were killed. One that can't be removed is in
    /// nobody's way.
    pub(crate) fn prune(&self, proc: &Proc) {
        let names = self.shelf.names();
        if names.is_empty() {
            return;
        }
        let present = present(proc);
        let is_of_use = |name: &String| {
            if Shelf::is_volume(name) {
                names_of(&self.shelf.peek(name)).iter().any(|name| is_present(&present, name))
            } else {
                present.contains(name)
            }
        };
        for name in names.iter().filter(|name| !is_of_use(name)) {
            if let Ok(store) = Store::open(&self.shelf.folder(name), Duration::ZERO) {
                let _ = store.discard();
            }
        }
    }

    /// Takes note of a container's processes, and takes over the records that
    /// agents that were killed left of it and of its volumes; answers whether
    /// there is such a one.
    pub(crate) fn adopt(&mut self, proc: &Proc, id: &str, process: ProcessId, main: ProcessId) -> Result<bool, Failure> {
        let belonging = Belonging { container: id.to_owned(), pod: pod_of(proc, process.pid).unwrap_or_else(|| id.to_owned()) };
        self.containers.extend([process, main].map(|process| (process, belonging.clone())));
        let mut changed = self.shelf.adopt(id)?.is_some_and(|store| store.adopted);
        for (_, store) in self.volumes_of(proc, process)? {
            changed |= store.adopted;
        }
        Ok(changed)
    }

    /// Takes down what is changed in the container of a process from now on.
    pub(crate) fn recorder(&mut self, proc: &Proc, process: ProcessId, root: &ContainerRoot) -> Result<Recorder, Failure> {
        if let Some(recorder) = self.known_recorder(process) {
            return Ok(recorder);
        }
        let Belonging { container, pod } = self.belonging(proc, process);
        self.shelf.open(&container)?;
        let recorder = Recorder::new(proc, process, root, Arc::clone(&self.shelf), (container, pod))?;
        self.recorders.insert(process, recorder.clone());
        Ok(recorder)
    }

    /// The same, if it was asked for before.
    pub(crate) fn known_recorder(&self, process: ProcessId) -> Option<Recorder> {
        self.recorders.get(&process).cloned()
    }

    /// The record of a process's container, if there is one; taken over from an
    /// agent that was killed if need be.
    pub(crate) fn get(&mut self, proc: &Proc, process: ProcessId) -> Result<Option<Arc<Store>>, Failure> {
        let Belonging { container, .. } = self.belonging(proc, process);
        if let Some(store) = self.shelf.get(&container) {
            return Ok(Some(store));
        }
        if self.shelf.is_left(&container) { self.shelf.open(&container).map(Some) } else { Ok(None) }
    }

    /// Drops the records of a process's container and of its volumes.
    pub(crate) fn discard(&mut self, proc: &Proc, process: ProcessId) -> Result<(), Failure> {
        for (name, _) in self.volumes_of(proc, process)? {
            self.shelf.discard(&name)?;
        }
        if self.get(proc, process)?.is_none() {
            return Ok(());
        }
        let Belonging { container, .. } = self.belonging(proc, process);
        self.shelf.discard(&container)
    }

    /// Puts back the volumes that a process sees, and drops their records;
    /// answers how many paths that were.
    pub(crate) fn undo_volumes(&self, proc: &Proc, process: ProcessId) -> Result<u32, Failure> {
        let mut paths = 0;
        for (name, store) in self.volumes_of(proc, process)? {
            paths += self.undo_volume(proc, &name, &store, &[process])?;
        }
        Ok(paths)
    }

    /// Puts back all volumes that were changed and neither undone nor kept;
    /// answers why that failed.
    pub(crate) fn undo_all_volumes(&self, proc: &Proc) -> Vec<Failure> {
        let known: Vec<ProcessId> = self.containers.keys().copied().filter(|process| proc.is_running(*process)).collect();
        let changed = self.shelf.open_ones().into_iter().filter(|(name, store)| Shelf::is_volume(name) && store.has_changes());
        changed.filter_map(|(name, store)| self.undo_volume(proc, &name, &store, &known).err()).collect()
    }

    /// Removes what holds nothing. One that can't be removed is in nobody's way.
    pub(crate) fn discard_empty(&self) {
        for (_, store) in self.shelf.open_ones().iter().filter(|(_, store)| !store.has_changes() && !store.adopted) {
            let _ = store.discard();
        }
    }

    /// The containers that were changed and neither undone nor kept, each with a
    /// process by which it can be reached; without one it is gone.
    pub(crate) fn changed(&self, proc: &Proc) -> Vec<(Arc<Store>, Option<ProcessId>)> {
        let changed = self.shelf.open_ones().into_iter().filter(|(name, store)| !Shelf::is_volume(name) && store.has_changes());
        changed
            .map(|(name, store)| {
                let mut known = self.containers.iter().filter(|(_, of)| of.container == name).map(|(process, _)| *process);
                let process = known.find(|process| proc.is_running(*process)).or_else(|| any_process(proc, &name));
                (store, process)
            })
            .collect()
    }

    /// Forgets processes that ended.
    pub(crate) fn forget_the_dead(&mut self, proc: &Proc) {
        self.containers.retain(|process, _| proc.is_running(*process));
        self.recorders.retain(|process, _| proc.is_running(*process));
    }

    /// The records of volumes that a process sees: those of this agent, and those
    /// that one that was killed left.
    fn volumes_of(&self, proc: &Proc, process: ProcessId) -> Result<Vec<(String, Arc<Store>)>, Failure> {
        let mut found = Vec::new();
        for name in self.shelf.names().into_iter().filter(|name| Shelf::is_volume(name)) {
            let is_seen = |volume: Volume| volumes::reach_by(proc, &volume, process).is_some();
            let volume = self.shelf.get(&name).map_or_else(|| volume_of(&self.shelf.peek(&name)), |store| store.volume());
            if volume.is_some_and(is_seen)
                && let Some(store) = self.shelf.adopt(&name)?
            {
                found.push((name, store));
            }
        }
        Ok(found)
    }

    fn undo_volume(&self, proc: &Proc, name: &str, store: &Store, first: &[ProcessId]) -> Result<u32, Failure> {
        let root = store.volume().and_then(|volume| volumes::reach(proc, &volume, first));
        // Unmounted everywhere, it went with its pods.
        let restored = root.map_or(Ok(0), |root| store.restore(&root).map(|restored| restored.paths));
        let restored = restored.or_else(|failure| {
            let present = present(proc);
            let of_use = store.names().iter().any(|name| is_present(&present, name));
            if of_use { Err(failure) } else { Ok(0) }
        })?;
        self.shelf.discard(name)?;
        Ok(restored)
    }

    /// A process that was not located, as by a client that was told of it, is
    /// looked up; outside of any container it stands for itself.
    fn belonging(&mut self, proc: &Proc, process: ProcessId) -> Belonging {
        let look_up = || {
            let container = id_of(proc, process.pid).unwrap_or_else(|| alone(process));
            Belonging { pod: pod_of(proc, process.pid).unwrap_or_else(|| container.clone()), container }
        };
        self.containers.entry(process).or_insert_with(look_up).clone()
    }
}

fn id_of(proc: &Proc, pid: u32) -> Option<String> {
    let cgroup = proc.read(pid, "cgroup").ok()?;
    container_id(&String::from_utf8_lossy(&cgroup)).map(str::to_owned)
}

fn pod_of(proc: &Proc, pid: u32) -> Option<String> {
    pod_uid(&String::from_utf8_lossy(&proc.read(pid, "cgroup").ok()?))
}

fn alone(process: ProcessId) -> String {
    format!("process-{}-{}", process.pid, process.start_time)
}

fn any_process(proc: &Proc, id: &str) -> Option<ProcessId> {
    let belongs = |pid: &u32| proc.read(*pid, "cgroup").is_ok_and(|cgroup| in_container(&String::from_utf8_lossy(&cgroup), id));
    let pid = proc.pids().ok()?.into_iter().find(belongs)?;
    let process = ProcessId { pid, start_time: proc.stat(pid).ok()?.start_time };
    proc.is_running(process).then_some(process)
}

/// The names of all containers and pods that have a process.
fn present(proc: &Proc) -> HashSet<String> {
    let mut names = HashSet::new();
    for pid in proc.pids().unwrap_or_default() {
        let cgroup = proc.read(pid, "cgroup").unwrap_or_default();
        let cgroup = String::from_utf8_lossy(&cgroup);
        names.extend(container_ids(&cgroup).map(str::to_owned));
        names.extend(pod_uid(&cgroup));
        if let Ok(stat) = proc.stat(pid) {
            names.insert(alone(ProcessId { pid, start_time: stat.start_time }));
        }
    }
    names
}

/// A pod has no process for as long as one of its containers waits to be started
/// again.
fn is_present(present: &HashSet<String>, name: &str) -> bool {
    present.contains(name) || Path::new(PODS).join(name).is_dir()
}
