//! What is remembered between requests, and what comes of each.

mod transfers;

use std::collections::HashMap;

use crate::check::differing;
use crate::failure::Failure;
use crate::incoming::ModeRule;
use crate::link::put_link;
use crate::locate::{View, bare_id, locate};
use crate::process::Proc;
use crate::protocol::{
    ByteString, DecodeError, Decoder, ErrorKind, MAX_PROCESSES, Message, ProcessId, Request, Response, Undone, VERSION, unpack,
};
use crate::remove::remove;
use crate::restart::{self, Programs};
use crate::root::{Container, ContainerPath, ContainerRoot, Owner};
use crate::signal::send_signal;
use crate::supervise::RESTART_SIGNAL;
use crate::swap::{Previous, require_all_running};
use crate::transfer::{Memory, Transfer, explained, vanished_or};
use crate::undo::{Recorder, Stores};

/// Of a new file, where the client names none.
const FILE_MODE: u32 = 0o644;
const DONE: Response = Response::Done { failed: Vec::new() };

/// The client broke the rules; what follows can't be trusted.
#[derive(Debug)]
pub(super) struct Broken {
    id: u32,
    pub(super) message: String,
}

impl Broken {
    pub(super) fn response(&self) -> Message<Response> {
        let failure = Failure::new(ErrorKind::Protocol, &self.message);
        Message { id: self.id, body: failure.into() }
    }
}

impl From<Failure> for Response {
    fn from(failure: Failure) -> Self {
        Self::Error { kind: failure.kind, message: failure.message }
    }
}

/// What is remembered between requests.
#[derive(Debug)]
pub(super) struct Session {
    proc: Proc,
    view: View,
    greeted: bool,
    transfer: Option<Transfer>,
    /// The last transfer that ended: if early, more of it may be under way.
    ended: Option<u32>,
    previous: HashMap<ProcessId, Previous>,
    memory: Memory,
    stores: Stores,
    /// Of located processes: the first process of the container.
    mains: HashMap<ProcessId, ProcessId>,
}

impl Session {
    pub(super) fn new(proc: Proc, view: View, stores: Stores) -> Self {
        Self {
            proc,
            view,
            greeted: false,
            transfer: None,
            ended: None,
            previous: HashMap::new(),
            memory: Memory::default(),
            stores,
            mains: HashMap::new(),
        }
    }

    /// Nothing is to be done at present.
    pub(super) fn rest(&mut self) {
        self.memory.rest();
    }

    /// Handles what the decoder holds until there is something to say; `None`
    /// when it holds no more.
    pub(super) fn next(&mut self, decoder: &mut Decoder) -> Option<Result<Message<Response>, Broken>> {
        loop {
            let Message { id, body } = match decoder.pop::<Message<Request>>() {
                Ok(message) => message?,
                Err(error) => return Some(Err(undecodable(&error))),
            };
            match self.handle(id, body) {
                Ok(None) => {}
                Ok(Some(body)) => return Some(Ok(Message { id, body })),
                Err(message) => return Some(Err(Broken { id, message })),
            }
        }
    }

    /// The answer, if this request has one; `Err` when it breaks the rules.
    fn handle(&mut self, id: u32, request: Request) -> Result<Option<Response>, String> {
        if !self.greeted {
            return self.greet(request).map(Some);
        }
        let answer = match request {
            Request::Hello { .. } => return Err("hello was said before".into()),
            Request::Data { bytes } => return self.feed(id, |transfer, proc| transfer.data(proc, &bytes.0)),
            Request::Packed { length, bytes } => {
                let bytes = unpack(&bytes.0, length).ok_or("compressed data that is none")?;
                return self.feed(id, |transfer, proc| transfer.data(proc, &bytes));
            }
            Request::Copy { offset, length } => return self.feed(id, |transfer, proc| transfer.copy(proc, offset, length)),
            Request::AbortFile => return Ok(self.take_transfer(id)?.map(|_| self.end(id, Response::Aborted))),
            Request::PutFile { processes, path, mode, size, modified, base } => {
                bounded(&processes)?;
                let mode = mode.map_or(ModeRule::KeepOr(FILE_MODE), ModeRule::Exactly);
                return self.open(id, |session| session.receive_files(id, &processes, &path, (mode, modified), size, base));
            }
            Request::Swap { process, executable, argv, size, base } => {
                return self.open(id, |session| session.receive_program(id, process, &executable, argv, size, base));
            }
            Request::PutLink { processes, target, path } => {
                bounded(&processes)?;
                self.for_each(&processes, &path, |place, path| put_link(&place.root, path, &target, place.owner, &place.recorder))
            }
            Request::Remove { processes, path, empty_parents } => {
                bounded(&processes)?;
                self.for_each(&processes, &path, |place, path| remove(&place.root, path, empty_parents, &place.recorder).map(drop))
            }
            Request::Locate { container_id } => self.locate(&container_id),
            Request::Check { process, entries } => {
                let checked = ContainerRoot::of(&self.proc, process).and_then(|root| differing(&root, &entries));
                self.about(process, checked.map(|indices| Response::Differing { indices }))
            }
            Request::Signal { process, signal } => {
                // Only a supervisor knows it, and ends what it supervises.
                let running = if signal == RESTART_SIGNAL { require_all_running(&self.proc, process) } else { Ok(()) };
                let sent = running.and_then(|()| send_signal(&self.proc, process, signal));
                self.about(process, sent.map(|()| DONE))
            }
            Request::Restart { process, changed } => {
                let restarted = self.restart(process, &changed);
                self.about(process, restarted)
            }
            Request::Rollback { process } => {
                let swapped = self.roll_back(process);
                self.about(process, swapped)
            }
            Request::Alive { process } => {
                self.forget_the_dead();
                Ok(Response::Alive { running: self.proc.is_running(process) })
            }
            Request::Undo { process } => self.undo(process).map(Response::Undone),
            Request::Keep { process } => self.stores.discard(&self.proc, process).map(|()| DONE),
        };
        Ok(Some(answer.unwrap_or_else(Response::from)))
    }

    fn greet(&mut self, request: Request) -> Result<Response, String> {
        match request {
            Request::Hello { version: VERSION } => {
                self.greeted = true;
                Ok(Response::Hello { version: VERSION, build: env!("CARGO_PKG_VERSION").into(), arch: std::env::consts::ARCH.into() })
            }
            Request::Hello { version } => Err(format!("the client speaks protocol version {version}, this agent {VERSION}")),
            _ => Err("the first request is not hello".into()),
        }
    }

    fn locate(&mut self, container_id: &str) -> Result<Response, Failure> {
        self.forget_the_dead();
        let id = bare_id(container_id)?;
        let mut located = locate(&self.proc, self.view, id)?;
        located.changed = self.stores.adopt(&self.proc, id, located.process, located.main)?;
        self.mains.insert(located.process, located.main);
        Ok(Response::Located(located))
    }

    fn about(&self, process: ProcessId, done: Result<Response, Failure>) -> Result<Response, Failure> {
        done.map_err(|failure| vanished_or(&self.proc, process, failure))
    }

    /// Changes each container, whatever becomes of the others.
    fn for_each(
        &mut self,
        processes: &[ProcessId],
        path: &ByteString,
        change: impl Fn(&Container, &ContainerPath) -> Result<(), Failure>,
    ) -> Result<Response, Failure> {
        let path = ContainerPath::parse(path)?;
        let mut failed = Vec::new();
        for process in processes {
            let changed = self.container(*process).and_then(|place| change(&place, &path));
            failed.extend(changed.err().map(|failure| explained(&self.proc, *process, failure)));
        }
        Ok(Response::Done { failed })
    }

    /// What it takes to change something in the container of a process.
    fn container(&mut self, process: ProcessId) -> Result<Container, Failure> {
        let root = ContainerRoot::of(&self.proc, process)?;
        let owner = Owner::of(&self.proc, process.pid)?;
        let recorder = self.stores.recorder(&self.proc, process, &root)?;
        Ok(Container { root, owner, recorder })
    }

    /// As part of [`Session::container`]: what can't be done by several threads.
    fn known_recorder(&mut self, process: ProcessId) -> Result<Recorder, Failure> {
        match self.stores.known_recorder(process) {
            Some(recorder) => Ok(recorder),
            None => self.container(process).map(|container| container.recorder),
        }
    }

    fn roll_back(&mut self, process: ProcessId) -> Result<Response, Failure> {
        self.proc.check(process)?;
        let container = self.container(process)?;
        let previous = self.previous.get(&process).ok_or_else(|| {
            let message = format!("process {} was not swapped by this agent", process.pid);
            Failure::new(ErrorKind::NotFound, message)
        })?;
        let (swapped, replaced) = previous.restore(&self.proc, process, container)?;
        self.previous.insert(process, replaced);
        Ok(Response::Swapped(swapped))
    }

    fn restart(&mut self, process: ProcessId, changed: &[ByteString]) -> Result<Response, Failure> {
        self.proc.check(process)?;
        let main = self.mains.get(&process).copied().unwrap_or(process);
        let process = restart::target(&self.proc, process, main, changed);
        let container = self.container(process)?;
        let previous_kept = self.previous.contains_key(&process);
        restart::restart(&self.proc, process, &container, previous_kept).map(Response::Swapped)
    }

    fn undo(&mut self, process: ProcessId) -> Result<Undone, Failure> {
        if let Some(open) = &mut self.transfer {
            open.undone(process);
        }
        let store = self.stores.get(&self.proc, process)?;
        // First: a program that runs again reads what is there.
        let restored = self.stores.undo_volumes(&self.proc, process)?;
        let mut undone = Undone { restored, restarted: false, process };
        let Some(store) = store else { return Ok(undone) };
        undone = restart::undo(&self.proc, &store, process, Programs::RunAgain)?;
        undone.restored = undone.restored.saturating_add(restored);
        self.stores.discard(&self.proc, process)?;
        self.previous.remove(&undone.process);
        Ok(undone)
    }

    /// At the end of the agent: all that was neither undone nor kept.
    pub(super) fn undo_all(&mut self, programs: Programs) -> Result<(), Failure> {
        // Its temporary files are in the containers.
        self.transfer = None;
        self.rest();
        let mut failures = self.stores.undo_all_volumes(&self.proc);
        for (store, process) in self.stores.changed(&self.proc) {
            let undone = match process {
                Some(process) => restart::undo(&self.proc, &store, process, programs).map(drop).or_else(|failure| {
                    // A container that ends takes what was changed along.
                    if self.proc.is_running(process) { Err(failure) } else { Ok(()) }
                }),
                None => Ok(()),
            };
            failures.extend(undone.and_then(|()| store.discard()).err());
        }
        self.stores.discard_empty();
        failures.into_iter().next().map_or(Ok(()), Err)
    }

    /// A program held open keeps a file system of its container busy.
    fn forget_the_dead(&mut self) {
        let proc = &self.proc;
        self.previous.retain(|process, _| proc.is_running(*process));
        self.mains.retain(|process, _| proc.is_running(*process));
        self.memory.bases.forget_the_dead(proc);
        self.stores.forget_the_dead(proc);
    }
}

fn bounded(processes: &[ProcessId]) -> Result<(), String> {
    if processes.len() <= MAX_PROCESSES { Ok(()) } else { Err(format!("{} processes in one request", processes.len())) }
}

fn undecodable(error: &DecodeError) -> Broken {
    Broken { id: 0, message: error.to_string() }
}
