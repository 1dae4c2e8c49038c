//! The program of a debugger: what it says, and its end.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::Refusal;
use crate::debug::HoldFailure;

/// So much of what it says is kept.
const KEPT: usize = 8 * 1024;

/// A debugger that was started.
#[derive(Debug)]
pub(super) struct Program {
    child: Child,
    words: io::PipeReader,
    said: Vec<u8>,
}

impl Program {
    /// Starts it. `ends_by` is the signal that it gets should the agent be killed.
    pub(super) fn start(command: &mut Command, ends_by: Signal, streams: Streams) -> Result<Self, Refusal> {
        let started = io::pipe().and_then(|(words, pipe)| {
            if streams == Streams::Both {
                command.stdout(pipe.try_clone()?);
            }
            let none = SigSet::empty();
            command
                .stderr(pipe)
                .current_dir("/")
                // Ctrl-C in the client's terminal is the client's business.
                .process_group(0);
            // SAFETY: two system calls, no allocation.
            unsafe {
                command.pre_exec(move || {
                    set_pdeathsig(ends_by)?;
                    none.thread_set_mask().map_err(io::Error::from)
                });
            }
            Ok(Self { child: command.spawn()?, words, said: Vec::new() })
        });
        started.map_err(|error| (HoldFailure::Debugger, format!("{} can't be started: {error}", command.get_program().display())))
    }

    /// Readable when it says something.
    pub(super) fn words(&self) -> BorrowedFd<'_> {
        self.words.as_fd()
    }

    pub(super) fn said(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    /// Reads what there is, without waiting for more.
    pub(super) fn listen(&mut self) {
        let mut piece = [0; 4096];
        loop {
            let mut ready = [PollFd::new(self.words.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::ZERO) != Ok(1) {
                return;
            }
            match self.words.read(&mut piece) {
                Ok(length @ 1..) => self.said.extend_from_slice(&piece[..length]),
                _ => return,
            }
            let over = self.said.len().saturating_sub(KEPT);
            self.said.drain(..over);
        }
    }

    /// The last lines that it said, without those that `is_noise`.
    pub(super) fn last_words(&self, is_noise: impl Fn(&str) -> bool) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty() && !is_noise(line)).collect();
        let last = lines[lines.len().saturating_sub(3)..].join("; ");
        if last.is_empty() { "the debugger ended without a word".to_owned() } else { last }
    }

    pub(super) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Whether it ends within `limit`.
    pub(super) fn ends_within(&mut self, limit: Duration) -> bool {
        let started = Instant::now();
        while !self.has_ended() {
            if started.elapsed() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    pub(super) fn signal(&mut self, signal: Signal) {
        if !self.has_ended() {
            // Not reaped, so its number is still its own.
            let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
        }
    }

    /// Ends it for good.
    pub(super) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// What of a program's output are its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Streams {
    /// All of it.
    Both,
    /// That on stderr.
    Stderr,
}
