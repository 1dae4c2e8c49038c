//! The first process of an ephemeral container in which others are started, one
//! after another: Kubernetes can't take such a container away, so it is used again.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::process::Proc;

/// How often it is seen whether somebody is still at work, once the time is over.
const AGAIN: Duration = Duration::from_secs(60);
/// How long those at work may take to end: a debugger has to let go first.
const GRACE: Duration = Duration::from_secs(8);

/// Waits for `limit`, and for as long as others are at work in its container; or
/// until it is told to end. Then it tells them, and waits for them: its own end is
/// that of all processes of the container.
pub(crate) fn idle(proc: &Proc, limit: Duration) -> io::Result<()> {
    let mut end = SigSet::empty();
    end.add(Signal::SIGTERM);
    end.add(Signal::SIGINT);
    end.thread_block()?;
    let told = SignalFd::with_flags(&end, SfdFlags::SFD_CLOEXEC)?;
    let mut until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(told.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(1..) => break,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if Instant::now() >= until {
            if agents(proc, std::process::id()).is_empty() {
                return Ok(());
            }
            until = Instant::now() + AGAIN;
        }
    }
    let started = Instant::now();
    loop {
        let others = agents(proc, std::process::id());
        if others.is_empty() || started.elapsed() > GRACE {
            return Ok(());
        }
        for other in others {
            // One that has ended meanwhile needs no telling.
            let _ = kill(Pid::from_raw(other.cast_signed()), Signal::SIGTERM);
        }
        sleep(Duration::from_millis(50));
    }
}

/// The other processes of the same program in the same container: its mounts are
/// its own, while its processes are among those of another one.
fn agents(proc: &Proc, own: u32) -> Vec<u32> {
    let mounts = |pid: u32| fs::read_link(proc.path(pid, "ns/mnt")).ok();
    let program = |pid: u32| fs::read_link(proc.path(pid, "exe")).ok();
    let (own_mounts, own_program) = (mounts(own), program(own));
    let is_other = |pid: &u32| *pid != own && mounts(*pid) == own_mounts && program(*pid) == own_program;
    let all = proc.pids().unwrap_or_default();
    all.into_iter().filter(|pid| is_other(pid) && proc.stat(*pid).is_ok_and(|stat| !proc.is_dead(*pid, stat))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_when_its_time_is_over_and_nobody_is_there() {
        // Threads of this test are one process, and no other has its program.
        idle(&Proc::system(), Duration::from_millis(1)).unwrap();
    }
}
