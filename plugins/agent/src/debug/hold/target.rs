//! The process that is debugged, as a debugger's keeper sees it.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::debug::repair::repair;
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
}

impl<'a> Target<'a> {
    pub(super) fn new(proc: &'a Proc, process: ProcessId, socket: &'a Path) -> Self {
        let was_stopped = proc.stat(process.pid).is_ok_and(|stat| stat.state == b'T');
        Self { proc, process, socket, was_stopped }
    }

    pub(super) fn is_running(&self) -> bool {
        self.proc.is_running(self.process)
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
