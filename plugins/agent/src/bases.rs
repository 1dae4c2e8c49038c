//! What this agent wrote and would know again: the base of a next version, of
//! which only what is new then needs to be sent.

use std::collections::HashMap;
use std::fs::File;

use crate::failure::Failure;
use crate::incoming::Stamp;
use crate::process::Proc;
use crate::protocol::{ErrorKind, MAX_BASES, ProcessId};
use crate::root::{ContainerPath, ContainerRoot};
use crate::undo::open_regular;

type Key = (ProcessId, Vec<u8>);

/// The files, within a bound.
#[derive(Debug, Default)]
pub(crate) struct Bases {
    files: HashMap<Key, Base>,
    clock: u64,
}

#[derive(Debug)]
struct Base {
    hash: [u8; 32],
    stamp: Stamp,
    time: u64,
}

impl Bases {
    /// Takes note of a file that was written.
    pub(crate) fn remember(&mut self, process: ProcessId, path: &ContainerPath, hash: [u8; 32], stamp: Stamp) {
        self.clock += 1;
        self.files.insert((process, path.bytes().to_vec()), Base { hash, stamp, time: self.clock });
        if self.files.len() > MAX_BASES
            && let Some(oldest) = self.files.iter().min_by_key(|(_, base)| base.time).map(|(key, _)| key.clone())
        {
            self.files.remove(&oldest);
        }
    }

    /// What the file at `path` was like when it was written.
    pub(crate) fn stamp(&self, process: ProcessId, path: &ContainerPath) -> Option<Stamp> {
        self.files.get(&(process, path.bytes().to_vec())).map(|base| base.stamp)
    }

    /// Opens the file with this hash at `path` of one of these processes; if it
    /// runs from memory only, the program of the process.
    pub(crate) fn open(&self, proc: &Proc, processes: &[ProcessId], path: &ContainerPath, hash: [u8; 32]) -> Result<File, Failure> {
        let found = processes.iter().find_map(|process| {
            let base = self.files.get(&(*process, path.bytes().to_vec())).filter(|base| base.hash == hash)?;
            let root = ContainerRoot::of(proc, *process).ok()?;
            let installed = open_regular(&root, path.as_path()).ok();
            let is_it = |file: &File| Stamp::of_file(file).is_ok_and(|stamp| stamp == base.stamp);
            installed.filter(is_it).or_else(|| proc.open_executable(process.pid).ok().filter(is_it))
        });
        found.ok_or_else(|| {
            let message = format!("{path} is not, or not any more, what the client believes it to be");
            Failure::new(ErrorKind::BaseChanged, message)
        })
    }

    /// Forgets the files of processes that ended.
    pub(crate) fn forget_the_dead(&mut self, proc: &Proc) {
        let mut running = HashMap::new();
        self.files.retain(|(process, _), _| *running.entry(*process).or_insert_with(|| proc.is_running(*process)));
    }
}
