//! The process that is debugged, as a debugger's keeper sees it.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Refusal;
use crate::debug::HoldFailure;
use crate::debug::repair::repair;
use crate::incoming::Identity;
use crate::process::Proc;
use crate::protocol::ProcessId;
use crate::signal;

/// It, and where its debugger is found.
#[derive(Clone, Debug)]
pub(super) struct Target<'a> {
    pub(super) proc: &'a Proc,
    pub(super) process: ProcessId,
    pub(super) socket: &'a Path,
    /// Whether it was stopped (as by Ctrl-Z) before.
    was_stopped: bool,
    /// What it ran then.
    program: Option<Program>,
}

/// A program as one process runs it.
#[derive(Clone, Copy, Debug)]
struct Program {
    file: Identity,
    /// See [`crate::process::Stat::stack`].
    stack: u64,
}

impl Program {
    fn is_other(self, than: Self) -> bool {
        self.file != than.file || self.stack != than.stack && self.stack != 0 && than.stack != 0
    }
}

impl<'a> Target<'a> {
    pub(super) fn new(proc: &'a Proc, process: ProcessId, socket: &'a Path) -> Self {
        let was_stopped = proc.stat(process.pid).is_ok_and(|stat| stat.state == b'T');
        Self { proc, process, socket, was_stopped, program: program(proc, process) }
    }

    pub(super) fn is_running(&self) -> bool {
        self.proc.is_running(self.process)
    }

    /// Whether it runs another program by now.
    pub(super) fn is_replaced(&self) -> bool {
        let now = program(self.proc, self.process);
        now.zip(self.program).is_some_and(|(now, before)| now.is_other(before))
    }

    /// See [`Proc::is_ending`].
    pub(super) fn is_ending(&self) -> bool {
        self.proc.is_ending(self.process.pid)
    }

    pub(super) fn is_traced(&self) -> bool {
        self.proc.status(self.process.pid).is_ok_and(|status| status.tracer != 0)
    }

    /// Whether its first thread stands still for its tracer.
    pub(super) fn is_halted(&self) -> bool {
        self.proc.stat(self.process.pid).is_ok_and(|stat| stat.state == b't')
    }

    /// Whether a SIGTRAP waits for it or for one of its threads.
    pub(super) fn is_trap_pending(&self) -> bool {
        const TRAP: u64 = 1 << (Signal::SIGTRAP as i32 - 1);
        let pid = self.process.pid;
        let threads = fs::read_dir(self.proc.path(pid, "task")).into_iter().flatten().flatten();
        threads
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|thread| self.proc.thread_status(pid, thread).ok())
            .any(|status| (status.pending | status.shared_pending) & TRAP != 0)
    }

    /// Traces it for a moment, without stopping it: what the kernel says to that, it
    /// would say to a debugger.
    pub(super) fn try_to_trace(&self) -> Result<(), Refusal> {
        let pid = Pid::from_raw(self.process.pid.cast_signed());
        // The kernel detaches when the thread ends.
        let traced = std::thread::spawn(move || ptrace::seize(pid, ptrace::Options::empty())).join();
        match traced {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Errno::EPERM)) if self.is_traced() => Err((HoldFailure::Traced, format!("process {pid} is traced already"))),
            Ok(Err(Errno::EPERM)) => Err((HoldFailure::NotAllowed, "operation not permitted".to_owned())),
            Ok(Err(Errno::ESRCH)) => Err((HoldFailure::Vanished, format!("there is no process {pid}"))),
            Ok(Err(errno)) => Err((HoldFailure::Other, errno.to_string())),
            Err(_) => Err((HoldFailure::Other, "the thread that traces ended".to_owned())),
        }
    }

    /// Keeps it from coming upon a breakpoint that is left in its code, which would end
    /// it without a debugger.
    pub(super) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Takes breakpoints out of its code that are left; answers how many.
    pub(super) fn repair(&self) -> u32 {
        if self.is_running() { repair(self.proc, self.process).unwrap_or(0) } else { 0 }
    }

    /// Makes it run after [`Self::stop`], or after a debugger that left it stopped,
    /// unless it was stopped before all of this.
    pub(super) fn resume(&self, was_stopped_here: bool) {
        let is_stopped = self.proc.stat(self.process.pid).is_ok_and(|stat| stat.state == b'T');
        if !self.was_stopped && (was_stopped_here || is_stopped) {
            self.signal(Signal::SIGCONT);
        }
    }

    fn signal(&self, signal: Signal) {
        // Fails when it is gone, which is then as it is.
        let _ = signal::send_signal(self.proc, self.process, signal as i32);
    }
}

fn program(proc: &Proc, process: ProcessId) -> Option<Program> {
    let stack = proc.stat(process.pid).ok()?.stack;
    let file = Identity::of_file(&proc.open_executable(process.pid).ok()?).ok()?;
    Some(Program { file, stack })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn another_program_is_noticed_whatever_its_file() {
        let proc = Proc::system();
        // The same shell again, at the end of its input.
        let mut child = Command::new("/bin/sh")
            .args(["-c", "read line; exec /bin/sh -c 'read line'"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id();
        let process = ProcessId { pid, start_time: proc.stat(pid).unwrap().start_time };
        while proc.arguments(pid).unwrap().first().is_none_or(|name| name != b"/bin/sh") {
            std::thread::yield_now();
        }
        let target = Target::new(&proc, process, Path::new("/nowhere"));
        assert!(!target.is_replaced());
        let mut input = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, b"go\n").unwrap();
        while proc.arguments(pid).unwrap() != [&b"/bin/sh"[..], b"-c", b"read line"] {
            std::thread::yield_now();
        }
        assert!(target.is_replaced() && target.is_running());
        drop(input);
        child.wait().unwrap();
        assert!(!target.is_replaced(), "one that is gone runs nothing");
    }
}
