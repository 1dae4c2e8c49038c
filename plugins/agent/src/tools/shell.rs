//! A program in the toolbox of a process, and its terminal.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::setsid;

use super::output::Output;
use super::toolbox::Toolbox;
use super::{Refusal, ShellInput, ShellOutput};
use crate::debug::SILENCE;
use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::{ByteString, Decoder, ErrorKind, ProcessId};

/// How often the end of the program is looked for, at least.
const TICK: u16 = 50;
/// How long what a program said last may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// So much may wait for a program that doesn't read.
const MOST_WAITING: usize = 1 << 20;
const PIECE: usize = 32 * 1024;

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(super) process: ProcessId,
    pub(super) toolbox: Toolbox,
    /// Columns and rows of the client's terminal, where it has one.
    pub(super) terminal: Option<(u16, u16)>,
    /// `TERM` of the client.
    pub(super) kind: String,
    /// Program and arguments.
    pub(super) command: Vec<OsString>,
}

pub(super) fn shell(proc: &Proc, order: &Order, input: File, output: File) -> io::Result<()> {
    let mut output = Output::new(output)?;
    match Running::start(proc, order) {
        Ok(running) => running.serve(input, &mut output),
        Err(Failure { kind, message }) => output.tell(&ShellOutput::Failed(Refusal { kind, message })),
    }
}

/// A program, and the ways to it.
struct Running {
    child: Child,
    /// What it reads; none once its input ended.
    to: Option<File>,
    /// What it says, and complains.
    from: File,
    complaints: Option<File>,
    has_terminal: bool,
    waiting: Vec<u8>,
    /// Whether its input ends once nothing waits any more.
    is_ending: bool,
}

impl Running {
    fn start(proc: &Proc, order: &Order) -> Result<Self, Failure> {
        let (program, arguments) = order.command.split_first().ok_or_else(|| Failure::new(ErrorKind::NotFound, "there is no command"))?;
        let prepared = order.toolbox.prepare(proc, order.process)?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(prepared.environment()).env("TERM", &order.kind);
        let failed = |what: &'static str| Failure::io(what);
        let terminal = match order.terminal {
            Some((columns, rows)) => {
                let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                Some(openpty(&size, None).map_err(io::Error::from).map_err(failed("open a terminal"))?)
            }
            None => None,
        };
        let has_terminal = terminal.is_some();
        let master = match terminal {
            Some(pair) => {
                let slave = |slave: &OwnedFd| slave.try_clone().map(Stdio::from).map_err(failed("open a terminal"));
                command.stdin(slave(&pair.slave)?).stdout(slave(&pair.slave)?).stderr(slave(&pair.slave)?);
                Some(pair.master)
            }
            None => {
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                None
            }
        };
        let none = SigSet::empty();
        // SAFETY: this program has one thread, so that nothing is locked in the child.
        unsafe {
            command.pre_exec(move || {
                setsid()?;
                // The agent leaves signals of terminals to its client; this one has its own.
                none.thread_set_mask()?;
                // What started the agent may have ignored them.
                for key in [Signal::SIGINT, Signal::SIGQUIT] {
                    signal(key, SigHandler::SigDfl)?;
                }
                if has_terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) == -1 {
                    return Err(io::Error::last_os_error());
                }
                prepared.enter()
            });
        }
        let what = format!("start {}", program.display());
        let mut child = command.spawn().map_err(Failure::io(what))?;
        let missing = || Failure::new(ErrorKind::Io, "the program has no streams");
        let (to, from, complaints): (OwnedFd, OwnedFd, Option<OwnedFd>) = match master {
            Some(master) => (master.try_clone().map_err(failed("open a terminal"))?, master, None),
            None => (
                child.stdin.take().ok_or_else(missing)?.into(),
                child.stdout.take().ok_or_else(missing)?.into(),
                Some(child.stderr.take().ok_or_else(missing)?.into()),
            ),
        };
        let file = |fd: OwnedFd| never_waits(fd).map_err(failed("prepare the streams of the program"));
        Ok(Self {
            child,
            to: Some(file(to)?),
            from: file(from)?,
            complaints: complaints.map(file).transpose()?,
            has_terminal,
            waiting: Vec::new(),
            is_ending: false,
        })
    }

    fn serve(mut self, input: File, output: &mut Output) -> io::Result<()> {
        let served = self.pass_on(input, output);
        match served {
            Ok(Some(status)) => output.tell(&ShellOutput::Ended { code: code(status) }),
            Ok(None) => {
                self.end();
                Ok(())
            }
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }

    /// Answers how the program ended; `None` when the client went away before.
    fn pass_on(&mut self, mut input: File, output: &mut Output) -> io::Result<Option<ExitStatus>> {
        output.tell(&ShellOutput::Started)?;
        let (mut decoder, mut heard) = (Decoder::new(), Instant::now());
        loop {
            let [is_told, is_said] = self.wait(&input)?;
            if is_told {
                let mut piece = [0; PIECE];
                let length = input.read(&mut piece)?;
                if length == 0 {
                    return Ok(None);
                }
                heard = Instant::now();
                decoder.push(&piece[..length]);
                while let Some(message) = decoder.pop::<ShellInput>().map_err(io::Error::other)? {
                    self.hear(message);
                }
            }
            self.push();
            if is_said {
                self.say(output)?;
            }
            if let Some(status) = self.child.try_wait()? {
                // Others that it started may go on and hold its streams.
                let ended = Instant::now();
                while self.say(output)? || !self.is_silent() && ended.elapsed() < LAST_WORDS {}
                return Ok(Some(status));
            }
            if heard.elapsed() > SILENCE {
                return Ok(None);
            }
        }
    }

    /// Waits for the client or the program.
    fn wait(&self, input: &File) -> io::Result<[bool; 2]> {
        let told = if self.waiting.len() < MOST_WAITING { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut polled = vec![PollFd::new(input.as_fd(), told), PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        polled.extend(self.complaints.as_ref().map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
        if let (Some(to), false) = (&self.to, self.waiting.is_empty()) {
            polled.push(PollFd::new(to.as_fd(), PollFlags::POLLOUT));
        }
        match poll(&mut polled, PollTimeout::from(TICK)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        Ok([is_ready(&polled[0]), polled[1..].iter().any(is_ready)])
    }

    fn hear(&mut self, message: ShellInput) {
        match message {
            ShellInput::Bytes(bytes) => self.waiting.extend_from_slice(&bytes.0),
            ShellInput::Size { columns, rows } => {
                let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                // SAFETY: the kernel reads the size, which is there.
                unsafe { libc::ioctl(self.from.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
            }
            ShellInput::End => self.is_ending = true,
            ShellInput::Beat => {}
        }
    }

    /// Hands the program what waits for it, as far as it takes it.
    fn push(&mut self) {
        if let Some(to) = &mut self.to
            && !self.waiting.is_empty()
        {
            match to.write(&self.waiting) {
                Ok(length) => drop(self.waiting.drain(..length)),
                Err(error) if is_for_later(&error) => {}
                // It reads no more.
                Err(_) => self.waiting.clear(),
            }
        }
        // Of a terminal the end is a character, which the client sends itself.
        if self.is_ending && self.waiting.is_empty() && !self.has_terminal {
            self.to = None;
        }
    }

    /// Tells what the program said; whether there was anything.
    fn say(&mut self, output: &mut Output) -> io::Result<bool> {
        let mut piece = [0; PIECE];
        // A terminal that nobody has open any more fails to be read.
        let said = self.from.read(&mut piece).unwrap_or(0);
        if said > 0 {
            output.tell(&ShellOutput::Bytes(ByteString(piece[..said].to_vec())))?;
        }
        let complained = self.complaints.as_mut().map_or(0, |file| file.read(&mut piece).unwrap_or(0));
        if complained > 0 {
            output.tell(&ShellOutput::Complaint(ByteString(piece[..complained].to_vec())))?;
        }
        Ok(said > 0 || complained > 0)
    }

    /// Whether nothing more can come: all that had the streams are gone.
    fn is_silent(&self) -> bool {
        let files = std::iter::once(&self.from).chain(&self.complaints);
        files.into_iter().all(|file| {
            let mut polled = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, PollTimeout::from(1_u8)).is_ok()
                && polled[0].revents().is_some_and(|flags| flags.contains(PollFlags::POLLHUP))
        })
    }

    /// Ends the program, which leads a session of its own.
    fn end(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        // Not reaped, so its number is still its own.
        let _ = nix::sys::signal::killpg(group, Signal::SIGHUP);
        let ended = Instant::now();
        while ended.elapsed() < LAST_WORDS {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = nix::sys::signal::killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn never_waits(fd: OwnedFd) -> io::Result<File> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(fd.into())
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// As a shell has it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(u8::MAX)
}
