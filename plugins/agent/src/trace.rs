//! A thread of another process that is held still and borrowed: it does system calls
//! and calls functions for us, and goes on as if nothing had happened.

#[cfg(target_arch = "aarch64")]
#[path = "trace/arch_aarch64.rs"]
mod arch;
#[cfg(target_arch = "x86_64")]
#[path = "trace/arch_x86_64.rs"]
mod arch;
pub(crate) mod memory;
pub(crate) mod ptrace;
pub(crate) mod tracee;

use nix::sys::signal::{SigSet, SigmaskHow};

use crate::failure::Failure;
use crate::protocol::ErrorKind;

/// Does what traces a process, in a thread of its own: whatever goes wrong, the
/// kernel detaches what a thread traces when that thread ends.
pub(crate) fn apart<T: Send>(work: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
    // An agent that is told to end must not do so with a process in its hands.
    let previous_mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let done = std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| Err(Failure::new(ErrorKind::Io, "the thread that traces a process panicked")))
    });
    if let Ok(mask) = previous_mask {
        let _ = mask.thread_set_mask();
    }
    done
}
