//! The command line: too small for a parser.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde::Serialize;

use crate::copy::copy_to;
use crate::debug::connect::connect;
use crate::debug::hold::{Kind, Order, hold};
use crate::debug::idle::idle;
use crate::debug::inspect::{inspect, sources};
use crate::locate::View;
use crate::logs;
use crate::process::Proc;
use crate::protocol::{ProcessId, encode};
use crate::server::{Place, ServeError, serve};
use crate::supervise;
use crate::tools::command::{self, Tool};

const USAGE: &str = "usage: devloop-agent [serve [--beside] [--undo FOLDER] | supervise [--grace SECONDS] -- PROGRAM ARGS... | copy-to PATH | logs | inspect [--beside] CONTAINER | sources PID START | fetch PID START | hold SOCKET PID START DEBUGGER WORDS... | connect SOCKET | receive PATH | idle SECONDS | --version]";
const EXIT_USAGE: u8 = 2;
/// How long an agent in a pod waits for its client: no one else would end it if
/// the client were gone before it came to be attached.
const WAIT_FOR_CLIENT: Duration = Duration::from_secs(120);

/// Where records of what is changed are kept; in a pod, in the file system of the
/// agent's own container.
const UNDO: &str = "/var/lib/devloop/undo";

/// Runs the agent with the arguments after the program's name.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let words: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    match words.as_slice() {
        [first, rest @ ..] if *first == "supervise" => {
            return match supervise::parse(rest) {
                Ok(supervised) => supervise::supervise(&supervised),
                Err(message) => wrong(&message),
            };
        }
        [first, rest @ ..] if *first == "copy-to" => {
            return match rest {
                [path] => match copy_to(Path::new(path)) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(failure) => {
                        let _ = writeln!(io::stderr(), "Error: {failure}");
                        ExitCode::FAILURE
                    }
                },
                _ => wrong("copy-to takes one path"),
            };
        }
        _ => {}
    }
    let (words, undo) = match words.as_slice() {
        [rest @ .., option, folder] if *option == "--undo" && rest.first().is_some_and(|first| *first == "serve") => {
            (rest, Path::new(*folder))
        }
        words => (words, Path::new(UNDO)),
    };
    let words: Option<Vec<&str>> = words.iter().map(|word| word.to_str()).collect();
    match words.as_deref() {
        Some([] | ["serve"]) => serve_standard_streams(Place::Node, undo),
        Some(["serve", "--beside"]) => match await_client() {
            Ok(true) => serve_standard_streams(Place::Beside, undo),
            Ok(false) => status(Err(ServeError::Protocol(format!("no client came within {} s", WAIT_FOR_CLIENT.as_secs())))),
            Err(error) => status(Err(error.into())),
        },
        Some(["logs"]) => match logs::serve_standard_streams() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => status(Err(error.into())),
        },
        Some(["inspect", rest @ .., container]) if matches!(rest, [] | ["--beside"]) => {
            let view = if rest.is_empty() { View::Node } else { View::Beside { own_pid: std::process::id() } };
            status(answer(&[inspect(&Proc::system(), view, container)]))
        }
        Some(["sources", pid, start]) => match process(pid, start) {
            Some(process) => status(answer(&sources(&Proc::system(), process))),
            None => usage(),
        },
        Some(["fetch", pid, start]) => match process(pid, start) {
            Some(process) => status(fetch(&Proc::system(), process)),
            None => usage(),
        },
        Some(["hold", socket, pid, start, name, words @ ..]) => match (process(pid, start), Kind::parse(name, words)) {
            (Some(process), Some(kind)) => {
                let order = Order { socket: socket.into(), process, kind };
                status(streams().and_then(|(input, output)| hold(&order, input, output)).map_err(Into::into))
            }
            _ => usage(),
        },
        Some(["connect", socket]) => {
            let connected =
                ignore_terminal().and_then(|()| streams()).and_then(|(input, output)| connect(Path::new(socket), input, output));
            status(connected.map_err(Into::into))
        }
        Some(["receive", path]) => status(receive(Path::new(path)).map_err(Into::into)),
        Some(["idle", seconds]) => match seconds.parse() {
            Ok(seconds) => status(idle(&Proc::system(), Duration::from_secs(seconds)).map_err(Into::into)),
            Err(_) => usage(),
        },
        Some(["--version"]) => {
            let version = concat!("devloop-agent ", env!("CARGO_PKG_VERSION"));
            match writeln!(io::stdout(), "{version}") {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => status(Err(error.into())),
            }
        }
        Some(words) => match Tool::parse(words) {
            Some(tool) => status(streams().and_then(|(input, output)| tool.run(input, output)).map_err(Into::into)),
            None => usage(),
        },
        None => usage(),
    }
}

/// A command that was given wrong arguments.
fn wrong(message: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "Error: {message}");
    usage()
}

fn usage() -> ExitCode {
    let _ = writeln!(io::stderr(), "{USAGE}\n   or: devloop-agent [{}]", command::USAGE);
    ExitCode::from(EXIT_USAGE)
}

/// Whether a client said something, or is gone already, in time.
fn await_client() -> io::Result<bool> {
    let timeout = PollTimeout::try_from(WAIT_FOR_CLIENT).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(io::stdin().as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn serve_standard_streams(place: Place, undo: &Path) -> ExitCode {
    let told = Cell::new(false);
    status(match streams() {
        Ok((input, output)) => match UntilTold::new(input, &told) {
            Ok(input) => serve(place, undo, &told, input, output),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    })
}

/// Stdin and stdout as files: the standard library's own buffer what is a frame
/// already.
fn streams() -> io::Result<(File, File)> {
    let open = |stream: io::Result<OwnedFd>| stream.map(File::from);
    Ok((open(io::stdin().as_fd().try_clone_to_owned())?, open(io::stdout().as_fd().try_clone_to_owned())?))
}

fn process(pid: &str, start: &str) -> Option<ProcessId> {
    Some(ProcessId { pid: pid.parse().ok()?, start_time: start.parse().ok()? })
}

/// Writes messages to stdout.
fn answer<T: Serialize>(messages: &[T]) -> Result<(), ServeError> {
    let mut frames = Vec::new();
    for message in messages {
        encode(message, &mut frames).map_err(|error| ServeError::Protocol(error.to_string()))?;
    }
    Ok(io::stdout().write_all(&frames)?)
}

/// A terminal sends these to all that runs in it: the client decides what they mean.
fn ignore_terminal() -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGHUP);
    Ok(signals.thread_block()?)
}

/// Writes the program of a process to stdout.
fn fetch(proc: &Proc, process: ProcessId) -> Result<(), ServeError> {
    let opened = proc.open_executable(process.pid).and_then(|file| proc.check(process).map(|()| file));
    let mut program = opened.map_err(|failure| io::Error::other(failure.message))?;
    let (_, mut output) = streams()?;
    io::copy(&mut program, &mut output)?;
    Ok(())
}

/// Writes what comes in on stdin to a file, as a whole or not at all.
fn receive(path: &Path) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".part{}", std::process::id()));
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let (mut input, _) = streams()?;
    let written = File::create(&part).and_then(|mut file| io::copy(&mut input, &mut file)).and_then(|_| fs::rename(&part, path));
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

/// An input that ends, too, when the agent is told to: then it does all that it
/// does at the end of a session.
struct UntilTold<'a> {
    input: File,
    signals: SignalFd,
    told: &'a Cell<bool>,
}

impl<'a> UntilTold<'a> {
    fn new(input: File, told: &'a Cell<bool>) -> io::Result<Self> {
        let mut end = SigSet::empty();
        end.add(Signal::SIGTERM);
        // A terminal sends these to all that runs in it. The client decides what
        // they mean, and closes the input.
        let mut all = end;
        all.add(Signal::SIGINT);
        all.add(Signal::SIGHUP);
        all.thread_block()?;
        Ok(Self { input, signals: SignalFd::with_flags(&end, SfdFlags::SFD_CLOEXEC)?, told })
    }
}

impl Read for UntilTold<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut ready = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN), PollFd::new(self.input.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::NONE)?;
        if ready[0].any().unwrap_or(false) {
            self.told.set(true);
            return Ok(0);
        }
        self.input.read(buffer)
    }
}

fn status(served: Result<(), ServeError>) -> ExitCode {
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(ServeError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "Error: {error}");
            ExitCode::FAILURE
        }
    }
}
