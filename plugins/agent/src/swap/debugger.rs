//! A debugger that `hold` keeps attached makes way for a new program: the kernel
//! allows a process one tracer at a time (ptrace(2)), and what the debugger knows is
//! of the old program. Who is to be asked follows from the kernel's list: the one
//! that started the tracer.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::debug::hold::{MAKE_WAY, MAKE_WAY_AT_ONCE};
use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::{ErrorKind, ProcessId};
use crate::signal;

/// For a debugger to take its breakpoints out and let go.
const PATIENCE: Duration = Duration::from_secs(8);
const NAP: Duration = Duration::from_millis(1);
/// Debuggers stop a process for moments of their own.
const MOMENT: Duration = Duration::from_millis(200);

/// What becomes of a process that stands still for its debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// It stays so, and the new program has to wait.
    Stays,
    /// It ends: what is to be undone is.
    Ends,
}

/// Fails while the process stands still for its debugger.
pub(super) fn require_running(proc: &Proc, process: ProcessId) -> Result<(), Failure> {
    let started = Instant::now();
    let tracer = loop {
        let tracer = proc.status(process.pid)?.tracer;
        if tracer == 0 || proc.stat(process.pid)?.state != b't' {
            return Ok(());
        }
        if started.elapsed() > MOMENT {
            break tracer;
        }
        sleep(NAP);
    };
    let name = String::from_utf8_lossy(&proc.read(tracer, "comm").unwrap_or_default()).trim().to_owned();
    Err(Failure::new(ErrorKind::Halted, format!("process {} stands still for its debugger (process {tracer}, {name})", process.pid)))
}

/// Has a debugger let go, unless it is one that can't be asked, which the kernel will
/// tell.
pub(super) fn make_way(proc: &Proc, process: ProcessId, halt: Halt) -> Result<(), Failure> {
    let signal = match halt {
        Halt::Stays => {
            require_running(proc, process)?;
            MAKE_WAY
        }
        Halt::Ends => MAKE_WAY_AT_ONCE,
    };
    let started = Instant::now();
    let mut asked: Option<Instant> = None;
    while proc.status(process.pid)?.tracer != 0 {
        if asked.is_none_or(|asked| asked.elapsed() > MOMENT) {
            if asked.is_some() && halt == Halt::Stays {
                // It came upon a breakpoint in the last moment.
                require_running(proc, process)?;
            }
            let Some(keeper) = keeper(proc, process) else { return Ok(()) };
            // Again: it doesn't listen while the process stands still, be it for the moment
            // of a step. It may be gone by now, as it should.
            let _ = signal::send_signal(proc, keeper, signal as i32);
            asked = Some(Instant::now());
        }
        if started.elapsed() > PATIENCE {
            return Ok(());
        }
        sleep(NAP);
    }
    Ok(())
}

/// The `hold` that started the process's tracer.
fn keeper(proc: &Proc, process: ProcessId) -> Option<ProcessId> {
    let tracer = proc.status(process.pid).ok()?.tracer;
    let start_time = proc.stat(tracer).ok()?.start_time;
    let keeper = proc.parent(ProcessId { pid: tracer, start_time })?;
    is_keeper(&proc.arguments(keeper.pid).ok()?, process.pid).then_some(keeper)
}

/// Whether these are the arguments of a `hold` for this process:
/// `devloop-agent hold SOCKET PID …`.
fn is_keeper(arguments: &[Vec<u8>], pid: u32) -> bool {
    let word = |index: usize| arguments.get(index).map(Vec::as_slice);
    word(1) == Some(b"hold") && word(3) == Some(pid.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_keeper_of_its_debugger_is_asked() {
        let words = |text: &str| text.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        assert!(is_keeper(&words("/x/devloop-agent hold /x/12.sock 12 345 delve /x/dlv"), 12));
        assert!(!is_keeper(&words("/x/devloop-agent hold /x/12.sock 12 345 delve /x/dlv"), 13));
        assert!(!is_keeper(&words("/x/devloop-agent connect /x/12.sock 12"), 12) && !is_keeper(&words("bash"), 12));
    }

    #[test]
    fn a_process_without_a_debugger_needs_nobody_asked() {
        let proc = Proc::system();
        let pid = std::process::id();
        let own = ProcessId { pid, start_time: proc.stat(pid).unwrap().start_time };
        require_running(&proc, own).unwrap();
        make_way(&proc, own, Halt::Stays).unwrap();
        make_way(&proc, own, Halt::Ends).unwrap();
    }
}
