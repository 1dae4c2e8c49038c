//! The processes below a supervisor.

use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::set_child_subreaper;

use super::course::Ending;
use crate::process::Proc;

/// For processes that can't be killed: another user's, or stuck in the kernel.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at processes that take their time to end.
const PAUSE: Duration = Duration::from_millis(2);

/// Makes the orphans below this process its children, as they are a first
/// process's; where the pod's containers share their processes, it is not that.
pub(super) fn adopt_orphans() -> nix::Result<()> {
    set_child_subreaper(true)
}

/// What there is to learn of the children.
pub(super) enum Reaped {
    Ended(u32, Ending),
    /// Those that are left go on.
    Running,
    /// There are none.
    Childless,
}

/// Takes in the next child that ended.
pub(super) fn reap() -> Reaped {
    loop {
        let mut status = 0;
        // Not nix's: it knows no program that was ended by a real-time signal.
        // SAFETY: the status is this function's to write to.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            0 => return Reaped::Running,
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return Reaped::Childless,
            pid if libc::WIFSIGNALED(status) => return Reaped::Ended(pid.unsigned_abs(), Ending::Killed(libc::WTERMSIG(status))),
            pid => return Reaped::Ended(pid.unsigned_abs(), Ending::Exited(libc::WEXITSTATUS(status))),
        }
    }
}

/// Sends a signal to a child that was not reaped: until it is, the pid is its
/// own. One that ended, or made itself another user's, is not reached.
pub(super) fn send(child: u32, signal: i32) {
    // SAFETY: it touches no memory.
    unsafe { libc::kill(child.cast_signed(), signal) };
}

/// Kills all that is left below this process. Answers whether nothing is.
///
/// By generations: the children of one that was killed become this process's,
/// and a child's pid can't become another's before it is reaped.
pub(super) fn end_rest() -> bool {
    let (proc, this) = (Proc::system(), std::process::id());
    let began = Instant::now();
    loop {
        match reap() {
            Reaped::Childless => return true,
            Reaped::Ended(..) => continue,
            Reaped::Running if began.elapsed() > PATIENCE => return false,
            Reaped::Running => {}
        }
        for pid in proc.pids().unwrap_or_default() {
            if proc.stat(pid).is_ok_and(|stat| stat.parent == this) {
                send(pid, libc::SIGKILL);
            }
        }
        thread::sleep(PAUSE);
    }
}
