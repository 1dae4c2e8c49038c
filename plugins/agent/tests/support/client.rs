//! A client of the real agent binary.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use devloop_agent::protocol::{
    ByteString, Decoder, ErrorKind, Failed, MAX_CHUNK, Message, ProcessId, Request, Response, Swapped, Undone, VERSION, encode,
};

use super::container::EXECUTABLE;

pub struct Client {
    agent: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    decoder: Decoder,
    next_id: u32,
    undo: Undo,
}

/// Where the agent keeps its records.
type Undo = std::sync::Arc<tempfile::TempDir>;

impl Client {
    /// Starts an agent, without a word to it.
    pub fn silent() -> Self {
        Self::silent_with(std::sync::Arc::new(tempfile::tempdir().unwrap()))
    }

    fn silent_with(undo: Undo) -> Self {
        let mut agent = Command::new(env!("CARGO_BIN_EXE_devloop-agent"))
            .args(["serve", "--undo"])
            .arg(undo.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = agent.stdin.take();
        let output = agent.stdout.take().unwrap();
        Self { agent, input, output, decoder: Decoder::new(), next_id: 1, undo }
    }

    pub fn start() -> Self {
        Self::silent().greeted()
    }

    /// Another agent on the same node.
    pub fn beside(&self) -> Self {
        Self::silent_with(self.undo.clone()).greeted()
    }

    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.agent.id().cast_signed())
    }

    /// The records that there are.
    pub fn records(&self) -> usize {
        std::fs::read_dir(self.undo.path()).unwrap().count()
    }

    /// Puts a file where the folder of the records should be.
    pub fn spoil_records(&self) {
        std::fs::remove_dir(self.undo.path()).unwrap();
        std::fs::write(self.undo.path(), "").unwrap();
    }

    /// Kills the agent; its records stay, and their folder.
    pub fn kill(&mut self) {
        self.agent.kill().unwrap();
        self.agent.wait().unwrap();
    }

    fn greeted(self) -> Self {
        let mut client = self;
        let hello = client.ask(Request::Hello { version: VERSION });
        assert!(matches!(hello, Response::Hello { version: VERSION, .. }), "{hello:?}");
        client
    }

    pub fn id(&mut self) -> u32 {
        self.next_id += 1;
        self.next_id
    }

    pub fn send(&mut self, id: u32, body: Request) {
        let mut frame = Vec::new();
        encode(&Message { id, body }, &mut frame).unwrap();
        self.send_raw(&frame);
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// The next answer; `None` when the agent said its last.
    pub fn receive(&mut self) -> Option<Message<Response>> {
        let mut buffer = vec![0; 4096];
        loop {
            if let Some(message) = self.decoder.pop().unwrap() {
                return Some(message);
            }
            match self.output.read(&mut buffer).unwrap() {
                0 => {
                    assert_eq!(self.decoder.pending(), 0, "the agent was cut off");
                    return None;
                }
                length => self.decoder.push(&buffer[..length]),
            }
        }
    }

    pub fn ask(&mut self, request: Request) -> Response {
        let id = self.id();
        self.send(id, request);
        self.answer_to(id)
    }

    /// Announces a transfer, sends its bytes, and takes the answer.
    pub fn transfer(&mut self, announcement: Request, bytes: &[u8]) -> Response {
        let id = self.id();
        self.send(id, announcement);
        for chunk in bytes.chunks(MAX_CHUNK) {
            self.send(id, Request::Data { bytes: chunk.to_vec().into() });
        }
        self.answer_to(id)
    }

    pub fn put(&mut self, process: ProcessId, path: &str, bytes: &[u8]) -> Response {
        one(self.put_all(&[process], path, bytes))
    }

    pub fn put_all(&mut self, processes: &[ProcessId], path: &str, bytes: &[u8]) -> Response {
        let (processes, path, size) = (processes.to_vec(), ByteString::from(path), bytes.len() as u64);
        self.transfer(Request::PutFile { processes, path, mode: None, size, modified: None, base: None }, bytes)
    }

    pub fn remove(&mut self, process: ProcessId, path: &str) -> Response {
        one(self.ask(Request::Remove { processes: vec![process], path: path.into(), empty_parents: 0 }))
    }

    pub fn link(&mut self, process: ProcessId, target: &str, path: &str) -> Response {
        one(self.ask(Request::PutLink { processes: vec![process], target: target.into(), path: path.into() }))
    }

    pub fn restart(&mut self, process: ProcessId, changed: &[&str]) -> Swapped {
        let changed = changed.iter().map(|path| ByteString::from(*path)).collect();
        swapped(self.ask(Request::Restart { process, changed }))
    }

    pub fn undo(&mut self, process: ProcessId) -> Undone {
        match self.ask(Request::Undo { process }) {
            Response::Undone(undone) => undone,
            other => panic!("{other:?}"),
        }
    }

    pub fn try_swap(&mut self, process: ProcessId, argv: Option<Vec<ByteString>>, program: &[u8]) -> Response {
        let executable = EXECUTABLE.into();
        let size = program.len() as u64;
        self.transfer(Request::Swap { process, executable, argv, size, base: None }, program)
    }

    pub fn swap(&mut self, process: ProcessId, program: &[u8]) -> Swapped {
        swapped(self.try_swap(process, None, program))
    }

    pub fn is_running(&mut self, process: ProcessId) -> bool {
        match self.ask(Request::Alive { process }) {
            Response::Alive { running } => running,
            other => panic!("{other:?}"),
        }
    }

    /// Closes the agent's stdin and waits for its end.
    pub fn end(mut self) -> (ExitStatus, String) {
        drop(self.input.take());
        let mut text = String::new();
        self.agent.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (self.agent.wait().unwrap(), text)
    }

    pub fn answer_to(&mut self, id: u32) -> Response {
        let message = self.receive().unwrap();
        assert_eq!(message.id, id, "{message:?}");
        message.body
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.agent.wait();
    }
}

/// The failure of the one process that a request was for, as an error.
pub fn one(response: Response) -> Response {
    match response {
        Response::Written { failed, .. } | Response::Done { failed } if !failed.is_empty() => {
            assert_eq!(failed.len(), 1);
            let Failed { kind, message, .. } = failed[0].clone();
            Response::Error { kind, message }
        }
        other => other,
    }
}

pub fn swapped(response: Response) -> Swapped {
    match response {
        Response::Swapped(swapped) => swapped,
        other => panic!("{other:?}"),
    }
}

/// The kind and message of an answer that must be an error.
pub fn error(response: Response) -> (ErrorKind, String) {
    match response {
        Response::Error { kind, message } => {
            assert!(!message.ends_with('.'), "{message}");
            (kind, message)
        }
        other => panic!("{other:?}"),
    }
}
