//! The replacement itself: one thread of the process is stopped, borrows a few
//! system calls, and the last of these is execve(2).
//!
//! Why this leaves nothing behind: the kernel ends the other threads, drops the
//! memory and keeps the pid, the namespaces, the user, the working directory,
//! the limits and the cgroup. Descriptors are marked to be closed, the signal
//! mask is emptied; ignored signals stay ignored, as after any exec. Children
//! of the process are ended and reaped. Until the kernel has accepted the new
//! program all of it but that is undone on a failure, and the old program goes
//! on (as after the end of its children by any other hand), having noticed nothing but, where it sat in
//! epoll_wait(2) or one of the few calls like it, an EINTR (signal(7)).

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::time::Instant;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::io::Errno;

use super::children;
use super::debugger::{self, Halt};
use crate::failure::Failure;
use crate::incoming::Identity;
use crate::process::Proc;
use crate::protocol::{ErrorKind, ProcessId};
use crate::trace::apart;
use crate::trace::memory::{ExecBlock, Memory, PlacedBlock};
use crate::trace::tracee::{Outcome, Tracee};

/// Descriptors 0 to 2 are the container's log and stay open.
const FIRST_TO_CLOSE: u32 = 3;
/// The name of a memfd may have 249 bytes, see memfd_create(2).
const MAX_NAME: usize = 249;
/// `MFD_EXEC` of `<linux/memfd.h>`, Linux 6.3.
const MFD_EXEC: u64 = 0x10;
const PAGE: u64 = 4096;
/// A process can't have had more children at once than there are pids by default.
const MOST_REAPED: usize = 32_768;

/// What the process is to run.
#[derive(Debug)]
pub(super) struct Program<'a> {
    /// The path in the container; for a program in memory, what it is called.
    pub(super) path: &'a [u8],
    pub(super) arguments: &'a [Vec<u8>],
    pub(super) source: Source<'a>,
}

/// Where the program is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    /// At its path, and this is the file that is expected there.
    Installed(Identity),
    /// In this file of the agent, to be copied into the memory of the process.
    Memory(&'a File),
}

/// When the two halves were done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) stopped: Instant,
    pub(super) executed: Instant,
}

/// Replaces the program of `process`; on an error the old one still runs,
/// unless the error says that the process is gone.
pub(super) fn replace(proc: &Proc, process: ProcessId, program: &Program<'_>, halt: Halt) -> Result<Times, Failure> {
    debugger::make_way(proc, process, halt)?;
    apart(|| trace(proc, process, program))
}

fn trace(proc: &Proc, process: ProcessId, program: &Program<'_>) -> Result<Times, Failure> {
    // All that can be read beforehand is, to keep the process stopped for less.
    let environment = proc.environment(process.pid)?;
    let block = ExecBlock::new(program.path, program.arguments, &environment);
    let memory = Memory::open(proc, process.pid)?;
    let inheritable = inheritable_descriptors(proc, process.pid);
    let suspended = proc.stat(process.pid)?.state == b'T';

    let tracee = Tracee::stop(proc, process, &memory)?;
    let stopped = Instant::now();
    let mut borrowed = Borrowed { proc, process, memory, tracee, block: None, descriptor: None };
    if let Err(failure) = borrowed.execute(program, &block, &inheritable) {
        return Err(borrowed.undo(&inheritable, failure));
    }
    // Stopped at its very beginning, so this is what it will run.
    let verified = borrowed.verify(program);
    borrowed.tracee.begin()?;
    if suspended {
        // The suspension was the old program's; the new one is to answer.
        let _ = kill(Pid::from_raw(process.pid.cast_signed()), Signal::SIGCONT);
    }
    verified?;
    Ok(Times { stopped, executed: Instant::now() })
}

/// A stopped process, and what was made in it on the way.
struct Borrowed<'a> {
    proc: &'a Proc,
    process: ProcessId,
    memory: Memory,
    tracee: Tracee,
    /// Address and length.
    block: Option<(u64, u64)>,
    descriptor: Option<u64>,
}

impl Borrowed<'_> {
    fn execute(&mut self, program: &Program<'_>, block: &ExecBlock, inheritable: &[u32]) -> Result<(), Failure> {
        let block = self.place(block)?;
        if let Source::Memory(file) = program.source {
            self.load(program.path, file)?;
        }
        // Last of what may fail for a reason that lies in the process: when its
        // children are gone, it is not any more what it was.
        self.close_descriptors(inheritable)?;
        children::end(self.proc, self.process)?;
        self.reap()?;
        let outcome = match self.descriptor {
            None => {
                let arguments = [block.path, block.argv, block.envp, 0, 0, 0];
                self.tracee.execute(self.proc, libc::SYS_execve, arguments)?
            }
            Some(descriptor) => {
                let flags = libc::AT_EMPTY_PATH as u64;
                let arguments = [descriptor, block.empty, block.argv, block.envp, flags, 0];
                self.tracee.execute(self.proc, libc::SYS_execveat, arguments)?
            }
        };
        match outcome {
            Outcome::Executed => Ok(()),
            Outcome::Failed(errno) => {
                let path = String::from_utf8_lossy(program.path);
                Err(Failure::errno(format_args!("execute {path}"))(errno))
            }
            Outcome::Returned(_) => Err(self.strange("execute")),
        }
    }

    /// Puts the strings into a new piece of the process's memory.
    fn place(&mut self, block: &ExecBlock) -> Result<PlacedBlock, Failure> {
        let length = block.length() as u64;
        let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let no_file = u64::MAX;
        let outcome = self.call(libc::SYS_mmap, [0, length, protection, flags, no_file, 0])?;
        let address = self.value("map memory", outcome)?;
        // What a seccomp filter makes of it need be neither.
        if address == 0 || address % PAGE != 0 {
            return Err(self.strange("map memory"));
        }
        self.block = Some((address, length));
        let placed = block.at(address);
        self.memory.write(address, &placed.bytes)?;
        Ok(placed)
    }

    /// Copies the program into a file in memory that the process holds.
    fn load(&mut self, path: &[u8], mut source: &File) -> Result<(), Failure> {
        let Some((address, _)) = self.block else { return Err(self.strange("map memory")) };
        // The block begins with the path, which is longer than a name may be at
        // worst; its end says more than its beginning.
        let name = address + path.len().saturating_sub(MAX_NAME) as u64;
        let close = u64::from(libc::MFD_CLOEXEC);
        let mut outcome = self.call(libc::SYS_memfd_create, [name, close | MFD_EXEC, 0, 0, 0, 0])?;
        if outcome == Outcome::Failed(Errno::INVAL) {
            outcome = self.call(libc::SYS_memfd_create, [name, close, 0, 0, 0, 0])?;
        }
        let descriptor = self.value("create a file in memory", outcome)?;
        self.descriptor = Some(descriptor);
        let target = self.proc.live_path(self.process.pid, &format!("fd/{descriptor}"));
        let mut copy = || -> io::Result<()> {
            let mut target = File::options().write(true).open(&target)?;
            source.seek(SeekFrom::Start(0))?;
            io::copy(&mut source, &mut target)?;
            // Closed here: what is open for writing can't be executed.
            Ok(())
        };
        copy().map_err(Failure::io("copy the program into memory"))
    }

    /// Marks all descriptors but the first three: the new program would not know
    /// them, and a listening socket among them would keep its port taken.
    fn close_descriptors(&mut self, inheritable: &[u32]) -> Result<(), Failure> {
        let first = u64::from(FIRST_TO_CLOSE);
        let last = u64::from(u32::MAX);
        let flags = u64::from(libc::CLOSE_RANGE_CLOEXEC);
        let outcome = self.call(libc::SYS_close_range, [first, last, flags, 0, 0, 0])?;
        // Linux before 5.11, or a seccomp profile that is older than the call:
        // one by one, at the risk to miss what another thread opens just now.
        if let Outcome::Failed(_) = outcome {
            self.set_descriptor_flags(inheritable, libc::FD_CLOEXEC)?;
        }
        Ok(())
    }

    fn set_descriptor_flags(&mut self, descriptors: &[u32], flags: i32) -> Result<(), Failure> {
        for descriptor in descriptors {
            let arguments = [u64::from(*descriptor), libc::F_SETFD as u64, flags as u64, 0, 0, 0];
            self.call(libc::SYS_fcntl, arguments)?;
        }
        Ok(())
    }

    /// Takes leave of ended children in the name of the process: the new program
    /// would not do it. A filter that forbids that is no reason to fail.
    fn reap(&mut self) -> Result<(), Failure> {
        if self.proc.children(self.process.pid)?.is_empty() {
            return Ok(());
        }
        let flags = (libc::WNOHANG | libc::__WALL) as u64;
        for _ in 0..MOST_REAPED {
            let any = u64::MAX;
            match self.call(libc::SYS_wait4, [any, 0, flags, 0, 0, 0])? {
                Outcome::Returned(pid) if pid > 0 => {}
                _ => break,
            }
        }
        Ok(())
    }

    fn verify(&self, program: &Program<'_>) -> Result<(), Failure> {
        let Source::Installed(expected) = program.source else { return Ok(()) };
        if Identity::of_file(&self.proc.open_executable(self.process.pid)?)? == expected {
            return Ok(());
        }
        let path = String::from_utf8_lossy(program.path);
        let message = format!("{path} was replaced by another program while it was swapped in");
        Err(Failure::new(ErrorKind::Io, message))
    }

    /// Gives everything back and lets the old program go on.
    fn undo(mut self, inheritable: &[u32], failure: Failure) -> Failure {
        let (proc, process) = (self.proc, self.process);
        let undone = self.give_back(inheritable).and_then(|()| self.tracee.release(proc));
        match undone {
            Ok(()) => failure,
            Err(_) if !proc.is_running(process) => failure.and(format_args!("process {} is gone", process.pid)),
            Err(second) => failure.and(format_args!("and its undoing failed: {second}")),
        }
    }

    fn give_back(&mut self, inheritable: &[u32]) -> Result<(), Failure> {
        self.set_descriptor_flags(inheritable, 0)?;
        if let Some(descriptor) = self.descriptor.take() {
            self.call(libc::SYS_close, [descriptor, 0, 0, 0, 0, 0])?;
        }
        if let Some((address, length)) = self.block.take() {
            self.call(libc::SYS_munmap, [address, length, 0, 0, 0, 0])?;
        }
        Ok(())
    }

    fn call(&mut self, number: i64, arguments: [u64; 6]) -> Result<Outcome, Failure> {
        self.tracee.call(self.proc, number, arguments)
    }

    fn value(&self, what: &str, outcome: Outcome) -> Result<u64, Failure> {
        match outcome {
            Outcome::Returned(value) => Ok(value),
            Outcome::Failed(errno) => {
                let pid = self.process.pid;
                let filtered = self.proc.status(pid).is_ok_and(|status| status.seccomp != 0);
                let mut failure = Failure::errno(format_args!("{what} in process {pid}"))(errno);
                if filtered && matches!(errno, Errno::PERM | Errno::ACCESS | Errno::NOSYS) {
                    failure.kind = ErrorKind::Seccomp;
                    failure = failure.and("it has a seccomp filter");
                }
                Err(failure)
            }
            Outcome::Executed => Err(self.strange(what)),
        }
    }

    fn strange(&self, what: &str) -> Failure {
        let message = format!("a borrowed system call of process {} to {what} did something else", self.process.pid);
        Failure::new(ErrorKind::Io, message)
    }
}

/// Those from 3 on that a program would inherit, from `/proc/<pid>/fdinfo`
/// (proc_pid_fdinfo(5)). They are all marked for the swap, and these have to be
/// unmarked if it fails.
fn inheritable_descriptors(proc: &Proc, pid: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(proc.live_path(pid, "fdinfo")) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor >= FIRST_TO_CLOSE)
        .filter(|descriptor| {
            let text = proc.read_live(pid, &format!("fdinfo/{descriptor}")).unwrap_or_default();
            !closes_on_exec(&String::from_utf8_lossy(&text))
        })
        .collect()
}

fn closes_on_exec(fdinfo: &str) -> bool {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    // A descriptor that was closed meanwhile needs nothing.
    flags.is_none_or(|flags| flags & libc::O_CLOEXEC != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_descriptors() {
        assert!(closes_on_exec("pos:\t0\nflags:\t02000002\nmnt_id:\t9\n"));
        assert!(!closes_on_exec("pos:\t0\nflags:\t02\nmnt_id:\t9\n"));
        assert!(closes_on_exec(""));
    }
}
