//! gdbserver: attached for as long as a client is connected, one at a time. Without
//! one it would keep the process stopped.
//!
//! It speaks on its stdin and stdout, through here: so nobody else reaches it, and
//! what it would do harm by is done another way.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::child::{Program, Streams};
use super::rsp::{Framing, Piece, Talk, packet};
use super::{Debugger, Refusal, Target};
use crate::debug::HoldFailure;

/// How long either side may take to read what it is sent.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long gdbserver says nothing once it has answered all that it was asked.
const QUIET: Duration = Duration::from_millis(100);
/// How long its client may hear that the process is gone.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The dynamic linker that is brought along, beside gdbserver and its libraries.
const LINKER: &str = "ld.so";

pub(super) struct GdbServer {
    path: PathBuf,
    listener: UnixListener,
    serving: Option<Serving>,
    /// Breakpoints that had to be taken out of the code so far.
    repaired: u32,
}

/// A client, and its gdbserver.
struct Serving {
    client: UnixStream,
    server: UnixStream,
    program: Program,
    from_client: Framing,
    from_server: Framing,
    talk: Talk,
    /// Since when the process stands still for the client, until that one first lets
    /// it run.
    stands_since: Option<Instant>,
    /// Whether it was stopped by a signal of ours.
    is_interrupted: bool,
    /// Whether gdbserver has let go of it.
    is_left: bool,
}

impl GdbServer {
    pub(super) fn start(path: &Path, target: &Target<'_>) -> Result<Self, Refusal> {
        target.try_to_trace()?;
        let listener = UnixListener::bind(target.socket).map_err(|error| (HoldFailure::Other, error.to_string()))?;
        Ok(Self { path: path.to_owned(), listener, serving: None, repaired: 0 })
    }

    /// Takes a client that waits. A second one waits until the first has gone.
    fn accept(&mut self, target: &Target<'_>) {
        if self.serving.is_none()
            && is_ready(self.listener.as_fd())
            && let Ok((client, _)) = self.listener.accept()
        {
            self.serving = Serving::start(&self.path, client, target).ok();
        }
    }

    fn end_client(&mut self, target: &Target<'_>) {
        if let Some(serving) = self.serving.take() {
            self.repaired += serving.end(target);
        }
    }
}

impl Debugger for GdbServer {
    fn files(&self) -> Vec<BorrowedFd<'_>> {
        match &self.serving {
            None => vec![self.listener.as_fd()],
            Some(serving) => vec![serving.client.as_fd(), serving.server.as_fd(), serving.program.words()],
        }
    }

    fn look(&mut self, target: &Target<'_>) -> Option<String> {
        self.accept(target);
        if let Some(serving) = &mut self.serving
            && serving.pass(target).is_err()
        {
            self.end_client(target);
        }
        None
    }

    fn attached(&mut self, _target: &Target<'_>) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn joined(&mut self) -> Option<Duration> {
        let serving = self.serving.as_mut().filter(|serving| serving.talk.is_running)?;
        serving.stands_since.take().map(|since| since.elapsed())
    }

    fn let_go(&mut self, target: &Target<'_>, is_asked: bool) -> u32 {
        let started = Instant::now();
        while !is_asked
            && started.elapsed() < LAST_WORDS
            && let Some(serving) = &mut self.serving
            && serving.pass(target).is_ok()
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.end_client(target);
        self.repaired
    }

    fn reason_of(&self, _words: &str) -> HoldFailure {
        HoldFailure::Other
    }
}

impl Serving {
    fn start(path: &Path, client: UnixStream, target: &Target<'_>) -> Result<Self, Refusal> {
        let failed = |error: io::Error| (HoldFailure::Other, error.to_string());
        let (server, theirs) = UnixStream::pair().map_err(failed)?;
        for stream in [&client, &server] {
            stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
            stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        }
        let theirs = OwnedFd::from(theirs);
        let mut command = command(path);
        command
            .args(["--once", "--attach", "-"])
            .arg(target.process.pid.to_string())
            .env_clear()
            .stdin(Stdio::from(theirs.try_clone().map_err(failed)?))
            .stdout(Stdio::from(theirs));
        // Should the agent be killed: the end of its input makes it detach.
        let program = Program::start(&mut command, None, Streams::Stderr)?;
        let (from_client, from_server) = (Framing::default(), Framing::default());
        let stands_since = Some(Instant::now());
        Ok(Self {
            client,
            server,
            program,
            from_client,
            from_server,
            talk: Talk::default(),
            stands_since,
            is_interrupted: false,
            is_left: false,
        })
    }

    /// Passes on what there is; an error is the end of either side.
    fn pass(&mut self, target: &Target<'_>) -> io::Result<()> {
        self.program.listen();
        // What gdbserver says last comes before its end is seen.
        if is_ready(self.server.as_fd()) {
            receive(&mut self.server, &mut self.from_server)?;
            while let Some(piece) = self.from_server.pop() {
                let bytes = match piece {
                    Piece::Packet(content) => packet(&self.talk.for_client(content)),
                    Piece::Interrupt => continue,
                    Piece::Other(bytes) => bytes,
                };
                self.client.write_all(&bytes)?;
            }
        }
        if is_ready(self.client.as_fd()) {
            receive(&mut self.client, &mut self.from_client)?;
            while let Some(piece) = self.from_client.pop() {
                let bytes = match piece {
                    Piece::Packet(content) if Talk::is_farewell(&content) => {
                        self.is_left = self.let_go(target).is_ok();
                        self.client.write_all(&packet(b"OK"))?;
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    Piece::Packet(content) => packet(&self.talk.for_server(content)),
                    // gdbserver would interrupt the whole group of the process by a
                    // signal that ends those that it does not trace.
                    Piece::Interrupt => {
                        self.interrupt(target);
                        continue;
                    }
                    Piece::Other(bytes) => bytes,
                };
                self.server.write_all(&bytes)?;
            }
        }
        Ok(())
    }

    /// Makes gdbserver let go of the process, and end; answers how many breakpoints were
    /// left in its code.
    fn end(mut self, target: &Target<'_>) -> u32 {
        let _ = self.client.shutdown(std::net::Shutdown::Both);
        let is_left = self.is_left || self.let_go(target).is_ok();
        // Whatever else goes wrong: gdbserver may leave its breakpoints, and from then on
        // one that is hit ends the process.
        let mut repaired = if is_left { 0 } else { target.repair() };
        // The end of its input makes it let go, and not pass on what stopped the process.
        // Killed, it would leave that to the kernel, which ends the process by it.
        drop(self.server);
        let has_ended = self.program.ends_within(PATIENCE);
        if !has_ended {
            target.stop();
        }
        self.program.kill();
        if !has_ended || !is_left {
            repaired += target.repair();
        }
        target.resume(!has_ended || self.is_interrupted);
        repaired
    }

    fn interrupt(&mut self, target: &Target<'_>) {
        if self.talk.is_running {
            target.stop();
            // gdbserver passes the signal on when it detaches.
            self.is_interrupted = true;
        }
    }

    /// Does what a client does that goes in good order.
    fn let_go(&mut self, target: &Target<'_>) -> io::Result<()> {
        if !self.talk.is_settled {
            // So early there are no breakpoints, and the end of its input is enough.
            return if self.talk.removals().is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
        }
        self.interrupt(target);
        while self.talk.is_running {
            self.hear(PATIENCE)?;
        }
        // Answers to what its client asked last.
        while self.hear(QUIET).is_ok() {}
        for removal in self.talk.removals() {
            self.ask(&removal)?;
        }
        let answer = self.ask(&self.talk.detach(target.process.pid))?;
        if answer == b"OK" { Ok(()) } else { Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned())) }
    }

    fn ask(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.server.write_all(&packet(request))?;
        self.hear(PATIENCE)
    }

    /// The next packet of gdbserver.
    fn hear(&mut self, patience: Duration) -> io::Result<Vec<u8>> {
        let started = Instant::now();
        loop {
            while let Some(piece) = self.from_server.pop() {
                if let Piece::Packet(content) = piece {
                    return Ok(self.talk.for_client(content));
                }
            }
            let left = patience.saturating_sub(started.elapsed());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            match poll(&mut [PollFd::new(self.server.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(1..) => receive(&mut self.server, &mut self.from_server)?,
                Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return Err(io::ErrorKind::TimedOut.into()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// gdbserver by the dynamic linker that came with it, where one did.
fn command(path: &Path) -> Command {
    let folder = path.parent().unwrap_or(path);
    let linker = folder.join(LINKER);
    if !linker.is_file() {
        return Command::new(path);
    }
    let mut command = Command::new(linker);
    command.arg("--library-path").arg(folder).arg(path);
    command
}

fn is_ready(file: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::new(file, PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
}

fn receive(stream: &mut UnixStream, framing: &mut Framing) -> io::Result<()> {
    let mut piece = [0; 16 * 1024];
    match stream.read(&mut piece)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => {
            framing.push(&piece[..length]);
            Ok(())
        }
    }
}
