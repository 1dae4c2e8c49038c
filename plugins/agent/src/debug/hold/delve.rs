//! Delve: attached from the start, it listens itself.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::child::{Program, Streams};
use super::release::{answers, detach};
use super::{Debugger, Refusal, Target};
use crate::debug::HoldFailure;

/// What it prints once its port is there, which is before it attaches.
const LISTENS: &str = "API server listening at";
/// A process that is traced and was not seen to stand still for so long runs.
const SURELY_RUNNING: Duration = Duration::from_millis(500);
/// How long it has to end after it was asked to.
const GRACE: Duration = Duration::from_secs(2);

pub(super) struct Delve {
    program: Program,
    first_halt: Option<Instant>,
    last_halt: Option<Instant>,
    traced_since: Option<Instant>,
}

impl Delve {
    pub(super) fn start(path: &Path, symbols: Option<&Path>, target: &Target<'_>) -> Result<Self, Refusal> {
        let mut command = Command::new(path);
        command.arg("attach").arg(target.process.pid.to_string());
        command.args(symbols);
        command
            .args(["--headless", "--accept-multiclient", "--continue", "--api-version=2", "--check-go-version=false"])
            // The way to the socket is guarded by its folder.
            .args(["--only-same-user=false", "--listen"])
            .arg(format!("unix:{}", target.socket.display()))
            .env_clear()
            // It wants to keep a configuration, and must not find one.
            .env("HOME", target.socket.parent().unwrap_or(target.socket))
            // The process stands still while Delve reads what there is to know of its
            // program, and a fifth of that was spent on collecting garbage: none before it
            // has grown to this.
            .env("GOGC", "off")
            .env("GOMEMLIMIT", "256MiB")
            .stdin(Stdio::null());
        // SIGTERM: it detaches in good order then.
        let program = Program::start(&mut command, Some(Signal::SIGTERM), Streams::Both)?;
        Ok(Self { program, first_halt: None, last_halt: None, traced_since: None })
    }
}

impl Debugger for Delve {
    fn files(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.program.words()]
    }

    fn look(&mut self, _target: &Target<'_>) -> Option<String> {
        let has_ended = self.program.has_ended();
        // What it said last is in the pipe.
        self.program.listen();
        has_ended.then(|| self.program.last_words(|line| line.contains(LISTENS)))
    }

    fn attached(&mut self, target: &Target<'_>) -> Option<Duration> {
        let listens = self.program.said().contains(LISTENS);
        let now = Instant::now();
        if target.is_halted() {
            self.first_halt = self.first_halt.or(Some(now));
            self.last_halt = Some(now);
        } else if let (true, Some(first), Some(last)) = (listens, self.first_halt, self.last_halt)
            && answers(target.socket)
        {
            return Some(last - first);
        } else if listens && target.is_traced() {
            // Too short to be seen, perhaps.
            let since = *self.traced_since.get_or_insert(now);
            if now - since > SURELY_RUNNING {
                return Some(Duration::ZERO);
            }
        }
        None
    }

    fn let_go(&mut self, target: &Target<'_>, is_asked: bool) -> u32 {
        let detached = is_asked && detach(target.socket, || target.is_trap_pending()).is_ok();
        if !detached && is_asked {
            self.program.signal(Signal::SIGTERM);
            self.program.ends_within(GRACE);
        }
        // Without a debugger a breakpoint ends the process: it must not come upon
        // one before they are taken out.
        let is_clean = detached || self.program.has_ended() && is_asked;
        if !is_clean {
            target.stop();
        }
        self.program.kill();
        let repaired = if detached { 0 } else { target.repair() };
        target.resume(!is_clean);
        repaired
    }

    fn reason_of(&self, words: &str) -> HoldFailure {
        reason_of(words)
    }
}

fn reason_of(words: &str) -> HoldFailure {
    let has = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if has(&["ptrace_scope", "operation not permitted", "permission denied"]) {
        HoldFailure::NotAllowed
    } else if has(&["could not open debug info", "debug info", "no Go build", "decoding dwarf"]) {
        HoldFailure::NoSymbols
    } else if has(&["no such process"]) {
        HoldFailure::Vanished
    } else {
        HoldFailure::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_delve_says_is_sorted_out() {
        let yama = "Could not attach to pid 1: this could be caused by a kernel security setting, try writing \"0\" to /proc/sys/kernel/yama/ptrace_scope";
        assert_eq!(reason_of(yama), HoldFailure::NotAllowed);
        assert_eq!(reason_of("could not attach to pid 1: could not open debug info - debuginfo not found"), HoldFailure::NoSymbols);
        assert_eq!(reason_of("something else"), HoldFailure::Other);
    }
}
