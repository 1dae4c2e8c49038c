//! The records of all containers that one agent works on.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::{LOCK_PATIENCE, Recorder, Store};
use crate::failure::Failure;
use crate::process::{Proc, container_id, container_ids, in_container};
use crate::protocol::{ErrorKind, ProcessId};
use crate::root::ContainerRoot;

/// Where the records are, and which are open.
#[derive(Debug)]
pub(crate) struct Stores {
    base: PathBuf,
    open: HashMap<String, Rc<Store>>,
    /// How long to wait for another agent: when one has not come to its end in
    /// time, the next ones in the same request are not waited for.
    patience: Duration,
    /// Which container a process belongs to.
    containers: HashMap<ProcessId, String>,
}

impl Stores {
    pub(crate) fn at(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into(), open: HashMap::new(), patience: LOCK_PATIENCE, containers: HashMap::new() }
    }

    /// Removes the records of containers that are no more, of agents that were
    /// killed. One that can't be removed is in nobody's way.
    pub(crate) fn prune(&self, proc: &Proc) {
        let Ok(entries) = fs::read_dir(&self.base) else { return };
        let names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        if names.is_empty() {
            return;
        }
        let present = present(proc);
        for name in names.into_iter().filter(|name| !present.contains(name)) {
            if let Ok(store) = Store::open(&self.base.join(&name), Duration::ZERO) {
                let _ = store.discard();
            }
        }
    }

    /// Takes note of a container's processes, and takes over the record that an
    /// agent that was killed left of it; answers whether there is such a one.
    pub(crate) fn adopt(&mut self, id: &str, processes: impl IntoIterator<Item = ProcessId>) -> Result<bool, Failure> {
        self.containers.extend(processes.into_iter().map(|process| (process, id.to_owned())));
        if !self.open.contains_key(id) && self.is_left(id) {
            match Store::open(&self.folder(id), Duration::ZERO) {
                Ok(store) => drop(self.open.insert(id.to_owned(), Rc::new(store))),
                // Of another session that goes on: no business of ours, until
                // something is to be changed.
                Err(failure) if failure.kind == ErrorKind::InUse => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(self.open.get(id).is_some_and(|store| store.adopted))
    }

    /// Takes down what is changed in the container of a process from now on.
    pub(crate) fn recorder(&mut self, proc: &Proc, process: ProcessId, root: &ContainerRoot) -> Result<Recorder, Failure> {
        let id = self.container_of(proc, process);
        let store = match self.open.get(&id) {
            Some(store) => Rc::clone(store),
            None => {
                let store = Rc::new(self.await_lock(&id)?);
                self.open.insert(id, Rc::clone(&store));
                store
            }
        };
        Recorder::new(store, root)
    }

    /// The record of a process's container, if there is one; taken over from an
    /// agent that was killed if need be.
    pub(crate) fn get(&mut self, proc: &Proc, process: ProcessId) -> Result<Option<Rc<Store>>, Failure> {
        let id = self.container_of(proc, process);
        if !self.open.contains_key(&id) && self.is_left(&id) {
            let store = self.await_lock(&id)?;
            self.open.insert(id.clone(), Rc::new(store));
        }
        Ok(self.open.get(&id).cloned())
    }

    /// Drops the record of a process's container.
    pub(crate) fn discard(&mut self, proc: &Proc, process: ProcessId) -> Result<(), Failure> {
        let Some(store) = self.get(proc, process)? else { return Ok(()) };
        let id = self.container_of(proc, process);
        store.discard()?;
        self.open.remove(&id);
        Ok(())
    }

    /// Removes what holds nothing. One that can't be removed is in nobody's way.
    pub(crate) fn discard_empty(&self) {
        for store in self.open.values().filter(|store| !store.has_changes() && !store.adopted) {
            let _ = store.discard();
        }
    }

    /// The containers that were changed and neither undone nor kept, each with a
    /// process by which it can be reached; without one it is gone.
    pub(crate) fn changed(&self, proc: &Proc) -> Vec<(Rc<Store>, Option<ProcessId>)> {
        let changed = self.open.iter().filter(|(_, store)| store.has_changes());
        changed
            .map(|(id, store)| {
                let mut known = self.containers.iter().filter(|(_, container)| *container == id).map(|(process, _)| *process);
                let process = known.find(|process| proc.is_running(*process)).or_else(|| any_process(proc, id));
                (Rc::clone(store), process)
            })
            .collect()
    }

    /// Forgets processes that ended.
    pub(crate) fn forget_the_dead(&mut self, proc: &Proc) {
        self.containers.retain(|process, _| proc.is_running(*process));
    }

    fn await_lock(&mut self, id: &str) -> Result<Store, Failure> {
        let opened = Store::open(&self.folder(id), self.patience);
        self.patience = if opened.is_ok() { LOCK_PATIENCE } else { Duration::ZERO };
        opened.map_err(|failure| match failure.kind {
            ErrorKind::InUse | ErrorKind::NoSpace => failure,
            // Of the agent's place, where another kind would be taken for the
            // container's.
            _ => Failure { kind: ErrorKind::Io, ..failure }.and("without it nothing is changed"),
        })
    }

    fn is_left(&self, id: &str) -> bool {
        fs::metadata(self.folder(id).join("log")).is_ok_and(|log| log.len() > 0)
    }

    fn folder(&self, id: &str) -> PathBuf {
        self.base.join(id)
    }

    /// A process that was not located, as by a client that was told of it, is
    /// looked up; outside of any container it stands for itself.
    fn container_of(&mut self, proc: &Proc, process: ProcessId) -> String {
        self.containers.entry(process).or_insert_with(|| id_of(proc, process.pid).unwrap_or_else(|| alone(process))).clone()
    }
}

fn id_of(proc: &Proc, pid: u32) -> Option<String> {
    let cgroup = proc.read(pid, "cgroup").ok()?;
    container_id(&String::from_utf8_lossy(&cgroup)).map(str::to_owned)
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

/// The names of all records that are of use.
fn present(proc: &Proc) -> HashSet<String> {
    let mut names = HashSet::new();
    for pid in proc.pids().unwrap_or_default() {
        let cgroup = proc.read(pid, "cgroup").unwrap_or_default();
        names.extend(container_ids(&String::from_utf8_lossy(&cgroup)).map(str::to_owned));
        if let Ok(stat) = proc.stat(pid) {
            names.insert(alone(ProcessId { pid, start_time: stat.start_time }));
        }
    }
    names
}
