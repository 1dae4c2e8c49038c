//! All threads of a process, held still for a moment.
//!
//! They are traced only for that long. Whatever ends the agent lets them go: the kernel
//! detaches what a process traced when that ends (ptrace(2)).

use std::collections::BTreeSet;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::{ErrorKind, ProcessId};
use crate::trace::ptrace::{self, Change, Resume};

/// For all of them to stop: microseconds, unless one is in an uninterruptible wait or
/// the container is frozen.
const LIMIT: Duration = Duration::from_secs(3);
const SHORTEST_NAP: Duration = Duration::from_micros(20);
const LONGEST_NAP: Duration = Duration::from_millis(1);

/// The stopped threads; let go when dropped.
#[derive(Debug)]
pub(super) struct Frozen {
    threads: Vec<i32>,
    since: Instant,
}

impl Frozen {
    /// Stops a process.
    pub(super) fn stop(proc: &Proc, process: ProcessId) -> Result<Self, Failure> {
        let mut frozen = Self { threads: Vec::new(), since: Instant::now() };
        let deadline = frozen.since + LIMIT;
        let mut ended = BTreeSet::new();
        loop {
            // A thread that runs may start others until it stands still.
            let known: BTreeSet<i32> = frozen.threads.iter().copied().collect();
            let new: Vec<i32> =
                threads(proc, process.pid)?.into_iter().filter(|thread| !known.contains(thread) && !ended.contains(thread)).collect();
            if new.is_empty() {
                break;
            }
            for thread in new {
                if begin(proc, process.pid, thread)? {
                    frozen.threads.push(thread);
                } else {
                    ended.insert(thread);
                }
            }
            let waiting = std::mem::take(&mut frozen.threads);
            let (held, new): (Vec<i32>, Vec<i32>) = waiting.into_iter().partition(|thread| known.contains(thread));
            frozen.threads = held;
            let mut late = None;
            for thread in new {
                match await_stop(thread, deadline) {
                    Ok(true) => frozen.threads.push(thread),
                    Ok(false) => {
                        ended.insert(thread);
                    }
                    // It is traced, and so let go with the others.
                    Err(failure) => {
                        frozen.threads.push(thread);
                        late = Some(failure);
                    }
                }
            }
            if let Some(failure) = late {
                return Err(failure);
            }
            // After they were seized, not before: a traced process keeps its pid.
            proc.check(process)?;
        }
        if frozen.threads.is_empty() { Err(Failure::vanished(process.pid)) } else { Ok(frozen) }
    }

    /// Stops one thread; `None` when it has ended.
    pub(super) fn stop_thread(proc: &Proc, pid: u32, thread: i32) -> Result<Option<Self>, Failure> {
        let mut frozen = Self { threads: Vec::new(), since: Instant::now() };
        if !begin(proc, pid, thread)? {
            return Ok(None);
        }
        frozen.threads.push(thread);
        Ok(await_stop(thread, frozen.since + LIMIT)?.then_some(frozen))
    }

    pub(super) fn threads(&self) -> &[i32] {
        &self.threads
    }

    /// Lets them go; answers how long they stood still.
    pub(super) fn release(self) -> Duration {
        let since = self.since;
        drop(self);
        since.elapsed()
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for thread in &self.threads {
            // One that was killed meanwhile is gone.
            let _ = ptrace::detach(*thread);
        }
    }
}

/// The threads of a process, the first one first.
pub(super) fn threads(proc: &Proc, pid: u32) -> Result<Vec<i32>, Failure> {
    let entries = fs::read_dir(proc.path(pid, "task")).map_err(crate::process::ended_or(pid, "list its threads"))?;
    let mut threads: Vec<i32> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    threads.sort_by_key(|thread| (*thread != pid.cast_signed(), *thread));
    Ok(threads)
}

/// Begins to stop a thread; `false` when it has ended.
fn begin(proc: &Proc, pid: u32, thread: i32) -> Result<bool, Failure> {
    match ptrace::seize(thread) {
        Ok(()) => Ok(ptrace::interrupt(thread).is_ok()),
        Err(Errno::SRCH) => Ok(false),
        // The kernel says EPERM of a thread that has ended, too.
        Err(_) if has_ended(proc, pid, thread) => Ok(false),
        Err(errno) => Err(refused(proc, pid, errno)),
    }
}

fn has_ended(proc: &Proc, pid: u32, thread: i32) -> bool {
    let stat = proc.read(pid, &format!("task/{thread}/stat")).ok().and_then(|text| crate::process::parse_stat(&text));
    stat.is_none_or(|stat| matches!(stat.state, b'Z' | b'X'))
}

/// Waits until a thread stands still; `false` when it ended instead.
fn await_stop(thread: i32, deadline: Instant) -> Result<bool, Failure> {
    let mut nap = SHORTEST_NAP;
    loop {
        match ptrace::poll(thread) {
            Ok(Some(Change::Stopped)) => return Ok(true),
            // Any stop takes the place of the interruption, which is asked for again.
            Ok(Some(change @ (Change::Signal(_) | Change::Executed | Change::SystemCall))) => {
                let signal = if let Change::Signal(signal) = change { signal } else { 0 };
                let _ = ptrace::interrupt(thread).and_then(|()| ptrace::resume(thread, Resume::Freely, signal));
            }
            Ok(Some(Change::Exited | Change::Killed(_))) | Err(_) => return Ok(false),
            Ok(None) if Instant::now() >= deadline => {
                let message =
                    format!("thread {thread} did not stop within {} s; is its container frozen, or its disk gone?", LIMIT.as_secs());
                return Err(Failure::new(ErrorKind::TimedOut, message));
            }
            Ok(None) => {
                sleep(nap);
                nap = (nap * 2).min(LONGEST_NAP);
            }
        }
    }
}

fn refused(proc: &Proc, pid: u32, errno: Errno) -> Failure {
    match proc.status(pid).map(|status| status.tracer) {
        Ok(tracer) if tracer != 0 => {
            Failure::new(ErrorKind::Permission, format!("process {tracer} (a debugger?) traces process {pid} already"))
        }
        _ => Failure::errno(format_args!("stop process {pid}"))(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_stands_still_and_runs_on() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let proc = Proc::system();
        let pid = child.id();
        let process = ProcessId { pid, start_time: proc.stat(pid).unwrap().start_time };
        let frozen = Frozen::stop(&proc, process).unwrap();
        assert_eq!(frozen.threads(), [pid.cast_signed()]);
        assert_eq!(proc.stat(pid).unwrap().state, b't');
        // A second one is refused, and names the first.
        let second = std::thread::spawn({
            let proc = proc.clone();
            move || Frozen::stop(&proc, process).map(drop)
        });
        assert!(second.join().unwrap().unwrap_err().message.contains("already"));
        frozen.release();
        assert_eq!(proc.status(pid).unwrap().tracer, 0);
        assert!(matches!(Frozen::stop(&proc, ProcessId { start_time: 1, ..process }), Err(Failure { kind: ErrorKind::Vanished, .. })));
        assert_eq!(proc.status(pid).unwrap().tracer, 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Frozen::stop(&proc, process).is_err());
    }

    #[test]
    fn all_threads_stand_still_while_new_ones_come() {
        // A shell that starts processes as fast as it can is one thread; Go and Java
        // are not to be had here, so this test's own program is run with threads.
        let own = std::env::current_exe().unwrap();
        let mut child = Command::new(own)
            .args(["--ignored", "--exact", "tools::freeze::tests::threads_that_come_and_go"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let proc = Proc::system();
        let pid = child.id();
        while threads(&proc, pid).unwrap().len() < 4 {
            std::thread::yield_now();
        }
        let process = ProcessId { pid, start_time: proc.stat(pid).unwrap().start_time };
        for _ in 0..20 {
            let frozen = Frozen::stop(&proc, process).unwrap();
            let states = threads(&proc, pid).unwrap();
            let running = states.iter().filter(|thread| {
                let stat = proc.read(pid, &format!("task/{thread}/stat")).ok().and_then(|text| crate::process::parse_stat(&text));
                stat.is_some_and(|stat| !matches!(stat.state, b't' | b'Z' | b'X'))
            });
            assert_eq!(running.count(), 0);
            frozen.release();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    #[ignore = "the process of another test"]
    fn threads_that_come_and_go() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        std::thread::spawn(|| std::thread::sleep(Duration::from_micros(200))).join().unwrap();
                    }
                });
            }
        });
    }
}
