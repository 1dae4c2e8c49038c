//! ptrace(2) and waitpid(2), thin and typed.
//!
//! Not nix's own wrappers, because these know no real-time signals: a thread
//! that stops for one (Go and glibc use them) would be lost.

use std::io;
use std::ptr::null_mut;

use nix::libc;
use rustix::io::Errno;

/// `PTRACE_EVENT_STOP` of `<linux/ptrace.h>`.
const EVENT_STOP: i32 = 128;
/// What `PTRACE_O_TRACESYSGOOD` adds to the signal of a system-call stop.
const SYSCALL_BIT: i32 = 0x80;

/// A set of signals as the kernel has it: bit n-1 for signal n.
pub(crate) type SignalMask = u64;

/// How to let a stopped thread run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resume {
    /// Until something happens.
    Freely,
    /// Until the entry or the exit of a system call.
    ToSystemCall,
}

/// What a traced thread came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It stands at the entry or exit of a system call.
    SystemCall,
    /// It stands because it was told to, or because the process is suspended
    /// (SIGSTOP, SIGTSTP, ...).
    Stopped,
    /// It runs a new program, and has not begun to.
    Executed,
    /// It is about to receive a signal.
    Signal(i32),
    /// It ended by itself.
    Exited,
    /// It was ended by a signal.
    Killed(i32),
}

/// Begins to trace a thread without stopping it.
pub(crate) fn seize(thread: i32) -> Result<(), Errno> {
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACEEXEC;
    request(libc::PTRACE_SEIZE, thread, 0, options as usize)
}

/// Asks a traced thread to stop; [`Change::Stopped`] follows.
pub(crate) fn interrupt(thread: i32) -> Result<(), Errno> {
    request(libc::PTRACE_INTERRUPT, thread, 0, 0)
}

/// Lets a stopped thread run, with a signal if `signal` is not 0.
pub(crate) fn resume(thread: i32, how: Resume, signal: i32) -> Result<(), Errno> {
    let how = match how {
        Resume::Freely => libc::PTRACE_CONT,
        Resume::ToSystemCall => libc::PTRACE_SYSCALL,
    };
    request(how, thread, 0, signal as usize)
}

/// Lets a stopped thread run untraced.
pub(crate) fn detach(thread: i32) -> Result<(), Errno> {
    request(libc::PTRACE_DETACH, thread, 0, 0)
}

pub(crate) fn signal_mask(thread: i32) -> Result<SignalMask, Errno> {
    let mut mask: SignalMask = 0;
    request(libc::PTRACE_GETSIGMASK, thread, size_of::<SignalMask>(), &raw mut mask as usize)?;
    Ok(mask)
}

pub(crate) fn set_signal_mask(thread: i32, mask: SignalMask) -> Result<(), Errno> {
    request(libc::PTRACE_SETSIGMASK, thread, size_of::<SignalMask>(), &raw const mask as usize)
}

/// What became of a thread, if anything did; never waits. ECHILD: this thread
/// of ours does not trace it (any more).
pub(crate) fn poll(thread: i32) -> Result<Option<Change>, Errno> {
    let mut status = 0;
    // __WNOTHREAD: what other threads of the agent trace is theirs.
    let flags = libc::__WALL | libc::WNOHANG | libc::__WNOTHREAD;
    // SAFETY: `status` is valid for the write that waitpid may do.
    match unsafe { libc::waitpid(thread, &raw mut status, flags) } {
        0 => Ok(None),
        -1 => Err(last_error()),
        _ => Ok(parse_status(status)),
    }
}

fn parse_status(status: i32) -> Option<Change> {
    if libc::WIFEXITED(status) {
        return Some(Change::Exited);
    }
    if libc::WIFSIGNALED(status) {
        return Some(Change::Killed(libc::WTERMSIG(status)));
    }
    if !libc::WIFSTOPPED(status) {
        return None;
    }
    let signal = libc::WSTOPSIG(status);
    Some(match status >> 16 {
        EVENT_STOP => Change::Stopped,
        libc::PTRACE_EVENT_EXEC => Change::Executed,
        _ if signal == libc::SIGTRAP | SYSCALL_BIT => Change::SystemCall,
        _ => Change::Signal(signal),
    })
}

fn request(request: libc::c_uint, thread: i32, address: usize, data: usize) -> Result<(), Errno> {
    let pointer = |value: usize| null_mut::<libc::c_void>().wrapping_byte_add(value);
    // SAFETY: of the requests of this module only GETSIGMASK writes to this
    // process, to `data`, which its caller points to a mask of `address` bytes;
    // SETSIGMASK reads as many from there. The others take numbers.
    match unsafe { libc::ptrace(request, thread, pointer(address), pointer(data)) } {
        -1 => Err(last_error()),
        _ => Ok(()),
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        let stopped = |signal: i32, event: i32| event << 16 | signal << 8 | 0x7f;
        assert_eq!(parse_status(stopped(libc::SIGTRAP | 0x80, 0)), Some(Change::SystemCall));
        assert_eq!(parse_status(stopped(libc::SIGTRAP, EVENT_STOP)), Some(Change::Stopped));
        assert_eq!(parse_status(stopped(libc::SIGSTOP, EVENT_STOP)), Some(Change::Stopped));
        assert_eq!(parse_status(stopped(libc::SIGTRAP, 4)), Some(Change::Executed));
        assert_eq!(parse_status(stopped(libc::SIGSTOP, 0)), Some(Change::Signal(libc::SIGSTOP)));
        assert_eq!(parse_status(stopped(40, 0)), Some(Change::Signal(40)));
        assert_eq!(parse_status(0x100), Some(Change::Exited));
        assert_eq!(parse_status(libc::SIGSYS), Some(Change::Killed(libc::SIGSYS)));
    }

    #[test]
    fn what_is_not_traced_is_echild() {
        assert_eq!(poll(1), Err(Errno::CHILD));
    }
}
