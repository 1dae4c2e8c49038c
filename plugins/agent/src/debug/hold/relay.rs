//! Clients of a debugger that is part of the process itself: what they say at the
//! agent's socket, which is guarded, is passed on into the pod's network, and no
//! connection outlives the agent.

mod halts;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::debug::connect::pass_pieces;
use crate::debug::network::{Address, Network, Stream, connect};
pub(crate) use halts::HALTED;
pub(super) use halts::Speech;
use halts::{Ear, Side, Sign};

/// How long the threads of closed connections may take to end.
const GRACE: Duration = Duration::from_secs(1);

pub(super) struct Relay {
    listener: UnixListener,
    network: Arc<Network>,
    address: Address,
    speech: Speech,
    sign: Arc<Sign>,
    clients: Vec<Client>,
}

struct Client {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

impl Relay {
    pub(super) fn start(socket: &Path, network: Network, address: Address, speech: Speech) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, network: Arc::new(network), address, speech, sign: Sign::own(), clients: Vec::new() })
    }

    /// Readable when a client comes.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Takes the clients that came.
    pub(super) fn accept(&mut self) {
        self.clients.retain(|client| !client.thread.is_finished());
        while let Ok((stream, _)) = self.listener.accept() {
            if let Ok(client) = self.serve(stream) {
                self.clients.push(client);
            }
        }
    }

    fn serve(&self, stream: UnixStream) -> io::Result<Client> {
        stream.set_nonblocking(false)?;
        let (network, address, ours) = (Arc::clone(&self.network), self.address.clone(), stream.try_clone()?);
        let ear = Ear::new(self.speech, Arc::clone(&self.sign));
        let thread = thread::Builder::new().spawn(move || {
            // Either side's end is that of both; a failure is one, too.
            let _ = network.enter().and_then(|()| connect(&address)).and_then(|theirs| exchange(&ours, theirs, ear));
            let _ = ours.shutdown(Shutdown::Both);
        })?;
        Ok(Client { stream, thread })
    }

    /// Ends all connections.
    pub(super) fn close(&mut self) {
        for client in &self.clients {
            let _ = client.stream.shutdown(Shutdown::Both);
        }
        let started = Instant::now();
        while started.elapsed() < GRACE && self.clients.iter().any(|client| !client.thread.is_finished()) {
            thread::sleep(Duration::from_millis(5));
        }
        self.clients.clear();
    }
}

/// Passes bytes on both ways until either side ends.
fn exchange(ours: &UnixStream, theirs: Stream, ear: Ear) -> io::Result<()> {
    let (theirs, close): (OwnedFd, Box<dyn Fn() + Send>) = match theirs {
        Stream::Tcp(stream) => (stream.try_clone()?.into(), Box::new(move || drop(stream.shutdown(Shutdown::Both)))),
        Stream::Unix(stream) => (stream.try_clone()?.into(), Box::new(move || drop(stream.shutdown(Shutdown::Both)))),
    };
    let theirs = File::from(theirs);
    let (from, to) = (ours.try_clone()?, theirs.try_clone()?);
    let ear = Arc::new(Mutex::new(ear));
    let heard = Arc::clone(&ear);
    let up = thread::spawn(move || {
        let _ = pass(&from, &to, Side::Client, &heard);
        close();
    });
    let down = pass(&theirs, ours, Side::Debugger, &ear);
    let _ = ours.shutdown(Shutdown::Both);
    let _ = up.join();
    down
}

fn pass(from: impl Read, mut to: impl Write, side: Side, ear: &Mutex<Ear>) -> io::Result<()> {
    pass_pieces(from, |piece| {
        ear.lock().unwrap_or_else(PoisonError::into_inner).hear(side, piece);
        to.write_all(piece)
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::process::Proc;

    #[test]
    fn clients_are_passed_on_and_end_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let debugger = TcpListener::bind("127.0.0.1:0").unwrap();
        let network = Network::of(&Proc::system(), std::process::id()).unwrap();
        let mut relay = Relay::start(&path, network, Address::Port(debugger.local_addr().unwrap()), Speech::Dap).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        relay.accept();
        let (mut server, _) = debugger.accept().unwrap();
        client.write_all(b"ask").unwrap();
        let mut heard = [0; 3];
        server.read_exact(&mut heard).unwrap();
        server.write_all(b"answer").unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).unwrap();
        assert_eq!((&heard, &answer), (b"ask", b"answer"));
        relay.close();
        assert_eq!((client.read(&mut answer).unwrap(), server.read(&mut heard).unwrap()), (0, 0));
    }
}
