//! The agent's loop: one client, one request at a time, until its end of file.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::bases::Bases;
use crate::check::differing;
use crate::failure::Failure;
use crate::incoming::{Attributes, Incoming, ModeRule};
use crate::link::put_link;
use crate::locate::{View, bare_id, locate};
use crate::process::Proc;
use crate::protocol::{
    ByteString, DecodeError, Decoder, EncodeError, ErrorKind, MAX_PROCESSES, Message, ProcessId, Request, Response, Undone, VERSION,
    encode, unpack,
};
use crate::remove::remove;
use crate::restart::{self, Programs};
use crate::root::{Container, ContainerPath, ContainerRoot, Owner};
use crate::signal::send_signal;
use crate::swap::{Previous, Swap};
use crate::transfer::{Ended, Sink, Transfer, explained, vanished_or};
use crate::undo::Stores;

const READ_BUFFER: usize = 256 * 1024;
/// Of a new file, where the client names none.
const FILE_MODE: u32 = 0o644;
const DONE: Response = Response::Done { failed: Vec::new() };

/// Why the agent ended other than by the client's wish.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The client broke the rules, and was told.
    #[error("{0}")]
    Protocol(String),
    /// Nothing can be read from, or written to, the client.
    #[error("the connection to the client failed: {0}")]
    Io(#[from] io::Error),
    /// What it changed could not be put back at the end; the record stays.
    #[error("could not undo all changes: {0}")]
    Undo(String),
}

/// Where the agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On a node, among all its containers.
    Node,
    /// In a pod, beside one container whose pid namespace it shares.
    Beside,
}

/// Serves one client until it closes `input` or takes no more `output`. Then
/// what it left unfinished is removed, and what it changed is undone. Records of
/// what is changed are kept in the folder `undo`.
///
/// `told` says at the end whether the agent was told to end, rather than its
/// input ended. Beside a container that means that the pod ends.
///
/// # Errors
/// A broken connection, or a client that does not keep to the protocol. A
/// request that fails is answered, and no error here.
pub fn serve(place: Place, undo: &Path, told: &Cell<bool>, input: impl Read, output: impl Write) -> Result<(), ServeError> {
    let view = match place {
        Place::Node => View::Node,
        Place::Beside => View::Beside { own_pid: std::process::id() },
    };
    let (proc, stores) = (Proc::system(), Stores::at(undo));
    if place == Place::Node {
        stores.prune(&proc);
    }
    let programs = || if place == Place::Beside && told.get() { Programs::Leave } else { Programs::RunAgain };
    serve_session(Session::new(proc, view, stores), programs, input, output)
}

fn serve_session(mut session: Session, programs: impl Fn() -> Programs, input: impl Read, output: impl Write) -> Result<(), ServeError> {
    let served = converse(&mut session, input, output);
    let undone = session.undo_all(programs()).map_err(|failure| ServeError::Undo(failure.message));
    served.and(undone)
}

fn converse(session: &mut Session, mut input: impl Read, mut output: impl Write) -> Result<(), ServeError> {
    let mut decoder = Decoder::new();
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        while let Some(reply) = session.next(&mut decoder) {
            let (response, fatal) = match reply {
                Ok(response) => (response, None),
                Err(broken) => (broken.response(), Some(broken.message)),
            };
            match send(&mut output, &response) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                sent => sent?,
            }
            if let Some(message) = fatal {
                return Err(ServeError::Protocol(message));
            }
        }
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => decoder.push(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn send(output: &mut impl Write, response: &Message<Response>) -> io::Result<()> {
    let mut frame = Vec::new();
    match encode(response, &mut frame) {
        Ok(()) => {}
        // Arguments of a process can be longer than a frame.
        Err(EncodeError::Oversized(_) | EncodeError::Unencodable(_)) => {
            let failure = Failure::new(ErrorKind::Unsupported, "the answer is too long to be sent");
            let response = Message { id: response.id, body: Response::from(failure) };
            encode(&response, &mut frame).map_err(io::Error::other)?;
        }
    }
    output.write_all(&frame)?;
    output.flush()
}

/// The client broke the rules; what follows can't be trusted.
#[derive(Debug)]
struct Broken {
    id: u32,
    message: String,
}

impl Broken {
    fn response(&self) -> Message<Response> {
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
struct Session {
    proc: Proc,
    view: View,
    greeted: bool,
    transfer: Option<Transfer>,
    /// The last transfer that ended: if early, more of it may be under way.
    ended: Option<u32>,
    previous: HashMap<ProcessId, Previous>,
    bases: Bases,
    stores: Stores,
    /// Of located processes: the first process of the container.
    mains: HashMap<ProcessId, ProcessId>,
}

impl Session {
    fn new(proc: Proc, view: View, stores: Stores) -> Self {
        Self {
            proc,
            view,
            greeted: false,
            transfer: None,
            ended: None,
            previous: HashMap::new(),
            bases: Bases::default(),
            stores,
            mains: HashMap::new(),
        }
    }

    /// Handles what the decoder holds until there is something to say; `None`
    /// when it holds no more.
    fn next(&mut self, decoder: &mut Decoder) -> Option<Result<Message<Response>, Broken>> {
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
                let sent = send_signal(&self.proc, process, signal);
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

    fn open(&mut self, id: u32, begin: impl FnOnce(&mut Self) -> Result<Transfer, Failure>) -> Result<Option<Response>, String> {
        if let Some(open) = &self.transfer {
            return Err(format!("a transfer began while transfer {} was open", open.id));
        }
        Ok(match begin(self) {
            Ok(transfer) => self.proceed(transfer),
            Err(failure) => Some(self.end(id, failure.into())),
        })
    }

    fn receive_files(
        &mut self,
        id: u32,
        processes: &[ProcessId],
        path: &ByteString,
        (mode, modified): (ModeRule, Option<(i64, u32)>),
        size: u64,
        base: Option<[u8; 32]>,
    ) -> Result<Transfer, Failure> {
        let path = ContainerPath::parse(path)?;
        let base = base.map(|hash| self.bases.open(&self.proc, processes, &path, hash)).transpose()?;
        let (mut targets, mut failed) = (Vec::new(), Vec::new());
        for process in processes {
            let created = self.container(*process).and_then(|place| {
                let attributes = Attributes { owner: place.owner, mode, modified };
                Incoming::create(&place.root, path.clone(), attributes, place.recorder)
            });
            match created {
                Ok(incoming) => targets.push((*process, incoming)),
                Err(failure) => failed.push(explained(&self.proc, *process, failure)),
            }
        }
        Ok(Transfer::new(id, size, path, base, Sink::Files { targets, failed }))
    }

    fn receive_program(
        &mut self,
        id: u32,
        process: ProcessId,
        executable: &ByteString,
        argv: Option<Vec<ByteString>>,
        size: u64,
        base: Option<[u8; 32]>,
    ) -> Result<Transfer, Failure> {
        let path = ContainerPath::parse(executable)?;
        let begun = self.container(process).and_then(|place| {
            let base = base.map(|hash| self.bases.open(&self.proc, &[process], &path, hash)).transpose()?;
            let argv = argv.map(|argv| argv.into_iter().map(|word| word.0).collect());
            let swap = Swap::begin(&self.proc, process, path.clone(), argv, place)?;
            Ok(Transfer::new(id, size, path, base, Sink::Swap(process, Box::new(swap))))
        });
        begun.map_err(|failure| vanished_or(&self.proc, process, failure))
    }

    /// Gives the next bytes to the open transfer.
    fn feed(
        &mut self,
        id: u32,
        give: impl FnOnce(&mut Transfer, &Proc) -> Result<Result<(), Failure>, String>,
    ) -> Result<Option<Response>, String> {
        let Some(mut transfer) = self.take_transfer(id)? else { return Ok(None) };
        Ok(match give(&mut transfer, &self.proc)? {
            Ok(()) => self.proceed(transfer),
            Err(failure) => Some(self.fail(&transfer, failure)),
        })
    }

    /// The open transfer `id`; `None` if it ended, without the client knowing yet.
    fn take_transfer(&mut self, id: u32) -> Result<Option<Transfer>, String> {
        match self.transfer.take() {
            Some(transfer) if transfer.id == id => Ok(Some(transfer)),
            open => {
                self.transfer = open;
                if self.ended == Some(id) { Ok(None) } else { Err(format!("no transfer {id} is open")) }
            }
        }
    }

    /// Waits for more, or finishes the transfer after its last byte.
    fn proceed(&mut self, transfer: Transfer) -> Option<Response> {
        if !transfer.is_complete() {
            self.transfer = Some(transfer);
            return None;
        }
        let (id, process) = (transfer.id, transfer.process());
        let response = match transfer.finish(&self.proc, &mut self.bases) {
            Ok(Ended { response, previous }) => {
                self.previous.extend(previous);
                response
            }
            Err(failure) => self.explain(process, failure),
        };
        Some(self.end(id, response))
    }

    fn fail(&mut self, transfer: &Transfer, failure: Failure) -> Response {
        let response = self.explain(transfer.process(), failure);
        self.end(transfer.id, response)
    }

    fn explain(&self, process: Option<ProcessId>, failure: Failure) -> Response {
        match process {
            Some(process) => vanished_or(&self.proc, process, failure).into(),
            None => failure.into(),
        }
    }

    /// The one answer to a transfer.
    fn end(&mut self, id: u32, response: Response) -> Response {
        self.ended = Some(id);
        response
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
    fn undo_all(&mut self, programs: Programs) -> Result<(), Failure> {
        // Its temporary files are in the containers.
        self.transfer = None;
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
        self.bases.forget_the_dead(proc);
        self.stores.forget_the_dead(proc);
    }
}

fn bounded(processes: &[ProcessId]) -> Result<(), String> {
    if processes.len() <= MAX_PROCESSES { Ok(()) } else { Err(format!("{} processes in one request", processes.len())) }
}

fn undecodable(error: &DecodeError) -> Broken {
    Broken { id: 0, message: error.to_string() }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
