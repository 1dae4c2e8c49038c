//! The agent's loop: one client, one request at a time, until its end of file.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use crate::failure::Failure;
use crate::incoming::{Attributes, Incoming, ModeRule};
use crate::locate::{View, locate};
use crate::process::Proc;
use crate::protocol::{
    ByteString, DecodeError, Decoder, EncodeError, ErrorKind, MAX_CHUNK, Message, ProcessId, Request, Response, VERSION, encode,
};
use crate::remove::remove;
use crate::root::{ContainerPath, ContainerRoot, Owner};
use crate::swap::{Previous, Swap};

const READ_BUFFER: usize = 256 * 1024;
/// Of a new file, where the client names none.
const FILE_MODE: u32 = 0o644;

/// Why the agent ended other than by the client's wish.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The client broke the rules, and was told.
    #[error("{0}")]
    Protocol(String),
    /// Nothing can be read from, or written to, the client.
    #[error("the connection to the client failed: {0}")]
    Io(#[from] io::Error),
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
/// what it left unfinished is removed.
///
/// # Errors
/// A broken connection, or a client that does not keep to the protocol. A
/// request that fails is answered, and no error here.
pub fn serve(place: Place, input: impl Read, output: impl Write) -> Result<(), ServeError> {
    let view = match place {
        Place::Node => View::Node,
        Place::Beside => View::Beside { own_pid: std::process::id() },
    };
    serve_session(Session::new(Proc::system(), view), input, output)
}

fn serve_session(mut session: Session, mut input: impl Read, mut output: impl Write) -> Result<(), ServeError> {
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
}

#[derive(Debug)]
struct Transfer {
    id: u32,
    process: ProcessId,
    remaining: u64,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    File(Incoming),
    Swap(Swap),
}

impl Session {
    fn new(proc: Proc, view: View) -> Self {
        let previous = HashMap::new();
        Self { proc, view, greeted: false, transfer: None, ended: None, previous }
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
            Request::Data { bytes } => return self.data(id, &bytes.0),
            Request::AbortFile => return self.abort(id),
            Request::PutFile { .. } | Request::Swap { .. } => return self.open(id, request),
            Request::Locate { container_id } => {
                self.forget_the_dead();
                locate(&self.proc, self.view, &container_id).map(Response::Located)
            }
            Request::Remove { process, path } => {
                let removed = ContainerPath::parse(&path).and_then(|path| {
                    let root = ContainerRoot::of(&self.proc, process)?;
                    remove(&root, &path).map(|existed| Response::Removed { existed })
                });
                Ok(self.answer(process, removed))
            }
            Request::Rollback { process } => {
                let swapped = self.roll_back(process);
                Ok(self.answer(process, swapped))
            }
            Request::Alive { process } => {
                self.forget_the_dead();
                Ok(Response::Alive { running: self.proc.is_running(process) })
            }
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

    fn open(&mut self, id: u32, request: Request) -> Result<Option<Response>, String> {
        if let Some(open) = &self.transfer {
            return Err(format!("a transfer began while transfer {} was open", open.id));
        }
        let (process, remaining, sink) = match request {
            Request::PutFile { process, path, mode, size, modified } => {
                let mode = mode.map_or(ModeRule::KeepOr(FILE_MODE), ModeRule::Exactly);
                (process, size, self.receive_file(process, &path, mode, modified).map(Sink::File))
            }
            Request::Swap { process, executable, argv, size } => {
                let argv = argv.map(|argv| argv.into_iter().map(|word| word.0).collect());
                let path = ContainerPath::parse(&executable);
                let swap = path.and_then(|path| Swap::begin(&self.proc, process, path, argv));
                (process, size, swap.map(Sink::Swap))
            }
            _ => return Err("not the beginning of a transfer".into()),
        };
        Ok(match sink {
            Ok(sink) => self.proceed(Transfer { id, process, remaining, sink }),
            Err(failure) => Some(self.end(id, process, Err(failure))),
        })
    }

    fn receive_file(
        &self,
        process: ProcessId,
        path: &ByteString,
        mode: ModeRule,
        modified: Option<(i64, u32)>,
    ) -> Result<Incoming, Failure> {
        let path = ContainerPath::parse(path)?;
        let root = ContainerRoot::of(&self.proc, process)?;
        let owner = Owner::of(&self.proc, process.pid)?;
        Incoming::create(&root, path, Attributes { owner, mode, modified })
    }

    fn data(&mut self, id: u32, bytes: &[u8]) -> Result<Option<Response>, String> {
        let Some(mut transfer) = self.take_transfer(id)? else { return Ok(None) };
        if bytes.len() > MAX_CHUNK {
            return Err(format!("{} bytes of data in one message", bytes.len()));
        }
        let Some(remaining) = transfer.remaining.checked_sub(bytes.len() as u64) else {
            return Err("more data than was announced".into());
        };
        transfer.remaining = remaining;
        Ok(match transfer.write(bytes) {
            Ok(()) => self.proceed(transfer),
            Err(failure) => Some(self.end(id, transfer.process, Err(failure))),
        })
    }

    fn abort(&mut self, id: u32) -> Result<Option<Response>, String> {
        let transfer = self.take_transfer(id)?;
        Ok(transfer.map(|transfer| self.end(id, transfer.process, Ok(Response::Aborted))))
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
        if transfer.remaining > 0 {
            self.transfer = Some(transfer);
            return None;
        }
        let Transfer { id, process, sink, .. } = transfer;
        let done = match sink {
            Sink::File(incoming) => incoming.install().map(|installed| Response::Written { blake3: installed.blake3 }),
            Sink::Swap(swap) => swap.finish().map(|(swapped, previous)| {
                self.previous.insert(swapped.process, previous);
                Response::Swapped(swapped)
            }),
        };
        Some(self.end(id, process, done))
    }

    /// The one answer to a transfer.
    fn end(&mut self, id: u32, process: ProcessId, done: Result<Response, Failure>) -> Response {
        self.ended = Some(id);
        self.answer(process, done)
    }

    /// A process that ends takes its container's root with it, and any step may
    /// be the first to notice: what matters to the client is that it is gone.
    fn answer(&self, process: ProcessId, done: Result<Response, Failure>) -> Response {
        done.unwrap_or_else(|failure| {
            let symptom = matches!(failure.kind, ErrorKind::NotFound | ErrorKind::Permission | ErrorKind::Io);
            if symptom && (!self.proc.is_running(process) || self.proc.is_ending(process.pid)) {
                return Failure::vanished(process.pid).and(failure).into();
            }
            failure.into()
        })
    }

    fn roll_back(&mut self, process: ProcessId) -> Result<Response, Failure> {
        self.proc.check(process)?;
        let previous = self.previous.get(&process).ok_or_else(|| {
            let message = format!("process {} was not swapped by this agent", process.pid);
            Failure::new(ErrorKind::NotFound, message)
        })?;
        let (swapped, replaced) = previous.restore(&self.proc, process)?;
        self.previous.insert(process, replaced);
        Ok(Response::Swapped(swapped))
    }

    /// A program held open keeps a file system of its container busy.
    fn forget_the_dead(&mut self) {
        let proc = &self.proc;
        self.previous.retain(|process, _| proc.is_running(*process));
    }
}

impl Transfer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.sink {
            Sink::File(incoming) => incoming.write(bytes),
            Sink::Swap(swap) => swap.write(bytes),
        }
    }
}

fn undecodable(error: &DecodeError) -> Broken {
    Broken { id: 0, message: error.to_string() }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
