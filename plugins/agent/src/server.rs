//! The agent's loop: one client, one request at a time, until its end of file.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::failure::Failure;
use crate::locate::View;
use crate::process::Proc;
use crate::protocol::{Decoder, EncodeError, ErrorKind, Message, Response, encode};
use crate::restart::Programs;
use crate::session::Session;
use crate::undo::Stores;

const READ_BUFFER: usize = 256 * 1024;
/// So many bytes of answers about files wait for more of them.
const ANSWERS_HELD: usize = 1024;
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
    let mut held = Vec::new();
    loop {
        while let Some(reply) = session.next(&mut decoder) {
            let (response, fatal) = match reply {
                Ok(response) => (response, None),
                Err(broken) => (broken.response(), Some(broken.message)),
            };
            append(&response, &mut held)?;
            // Of many small files each answer would wake the client up.
            let may_wait = matches!(response.body, Response::Written { .. }) && held.len() < ANSWERS_HELD;
            if !may_wait && !send(&mut output, &mut held)? {
                return Ok(());
            }
            if let Some(message) = fatal {
                return Err(ServeError::Protocol(message));
            }
        }
        if !send(&mut output, &mut held)? {
            return Ok(());
        }
        session.rest();
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => decoder.push(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn append(response: &Message<Response>, held: &mut Vec<u8>) -> io::Result<()> {
    let before = held.len();
    match encode(response, held) {
        Ok(()) => Ok(()),
        // Arguments of a process can be longer than a frame.
        Err(EncodeError::Oversized(_) | EncodeError::Unencodable(_)) => {
            held.truncate(before);
            let failure = Failure::new(ErrorKind::Unsupported, "the answer is too long to be sent");
            let response = Message { id: response.id, body: Response::from(failure) };
            encode(&response, held).map_err(io::Error::other)
        }
    }
}

/// Sends the answers that are held; `false` when nobody takes them any more.
fn send(output: &mut impl Write, held: &mut Vec<u8>) -> io::Result<bool> {
    if held.is_empty() {
        return Ok(true);
    }
    let sent = output.write_all(held).and_then(|()| output.flush());
    held.clear();
    match sent {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        sent => sent.map(|()| true),
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
