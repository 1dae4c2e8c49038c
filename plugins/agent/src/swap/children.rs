//! The child processes of a process that is about to be replaced: they run old
//! code and may hold its sockets, and the new program would not know them.
//!
//! All that descend from it are ended, also those that were handed to it as the
//! first process of the container. A session of `kubectl exec` descends from
//! outside and is left alone. What an init such as tini took over is the init's.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Signal, pidfd_send_signal};

use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::{ErrorKind, ProcessId};
use crate::signal;

/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_millis(500);
/// What was killed ends in microseconds, unless it waits uninterruptibly.
const DEATH_LIMIT: Duration = Duration::from_secs(2);
/// Other threads of the process, which still run, may start new children when
/// they hear of the end of the old ones.
const ROUNDS: usize = 5;

/// A child, and its handle.
type Held = (ProcessId, OwnedFd);

/// Ends them all. They are left to be reaped.
pub(super) fn end(proc: &Proc, process: ProcessId) -> Result<(), Failure> {
    for round in 0..ROUNDS {
        let held: Vec<Held> = descendants(proc, process)?
            .into_iter()
            // One that can't be held has ended.
            .filter_map(|child| signal::open(proc, child).ok().map(|handle| (child, handle)))
            .collect();
        if held.is_empty() {
            return Ok(());
        }
        let left = if round == 0 {
            send(&held, Signal::TERM)?;
            await_end(held, GRACE)
        } else {
            held
        };
        send(&left, Signal::KILL)?;
        if let Some((child, _)) = await_end(left, DEATH_LIMIT).first() {
            let message = format!("process {}, a child of process {}, does not end", child.pid, process.pid);
            return Err(Failure::new(ErrorKind::TimedOut, message));
        }
    }
    let message = format!("process {} starts child processes as fast as they are ended", process.pid);
    Err(Failure::new(ErrorKind::TimedOut, message))
}

fn send(held: &[Held], signal: Signal) -> Result<(), Failure> {
    for (child, handle) in held {
        match pidfd_send_signal(handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(Failure::errno(format_args!("end process {}", child.pid))(errno)),
        }
    }
    Ok(())
}

/// Those that have not ended in time.
fn await_end(mut held: Vec<Held>, limit: Duration) -> Vec<Held> {
    let deadline = Instant::now() + limit;
    loop {
        held.retain(|(_, handle)| !has_ended(handle, PollTimeout::ZERO));
        let now = Instant::now();
        let Some((_, first)) = held.first() else { return held };
        if now >= deadline {
            return held;
        }
        let timeout = PollTimeout::try_from(deadline - now).unwrap_or(PollTimeout::ZERO);
        // At least a millisecond, which a rest of less than one is not.
        has_ended(first, timeout.max(PollTimeout::from(1_u8)));
    }
}

fn has_ended(handle: &OwnedFd, timeout: PollTimeout) -> bool {
    poll(&mut [PollFd::new(handle.as_fd(), PollFlags::POLLIN)], timeout).is_ok_and(|ready| ready > 0)
}

/// All that live, in no order.
pub(super) fn descendants(proc: &Proc, process: ProcessId) -> Result<Vec<ProcessId>, Failure> {
    let mut found = Vec::new();
    let mut left = vec![process.pid];
    while let Some(parent) = left.pop() {
        // A child may end at any moment; what it leaves is passed on.
        let children = match proc.children(parent) {
            Err(_) if parent != process.pid => continue,
            children => children?,
        };
        for pid in children {
            let Ok(stat) = proc.stat(pid) else { continue };
            // The agent is none, or its place is not what it was told.
            if pid == std::process::id() {
                continue;
            }
            left.push(pid);
            // The dead are passed on, for the sake of their children.
            if !proc.is_dead(pid, stat) {
                found.push(ProcessId { pid, start_time: stat.start_time });
            }
        }
    }
    Ok(found)
}
