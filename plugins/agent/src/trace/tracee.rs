//! A thread of another process that is held still and does system calls for us.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::libc;
use nix::unistd::Pid;
use rustix::io::Errno;

use super::arch::{self, Registers};
use super::memory::Memory;
use super::ptrace::{self, Change, Resume, SignalMask};
use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::{ErrorKind, ProcessId};

/// For one stop. A thread reaches its next stop in microseconds, unless it is
/// in an uninterruptible wait or its container is frozen.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// For the kernel to read a program from a slow disk and end the other threads.
const EXECUTE_LIMIT: Duration = Duration::from_secs(30);
const SHORTEST_NAP: Duration = Duration::from_micros(20);
const LONGEST_NAP: Duration = Duration::from_millis(1);
/// The kernel returns an errno as -4095..=-1.
const MAX_ERRNO: i64 = 4095;

/// All signals, held back while the thread works for us: a handler must not run
/// in between. But for SIGSYS, by which a seccomp filter kills: if it waited,
/// the next system call would end this one thread, and leave half a process.
const HELD_BACK: SignalMask = !(1 << (libc::SIGSYS - 1));

/// The stopped thread. Dropping it before [`Tracee::release`] leaves the thread
/// traced until the tracing thread of the agent ends, which it must then do.
#[derive(Debug)]
pub(crate) struct Tracee {
    process: i32,
    thread: i32,
    registers: Registers,
    mask: SignalMask,
    instruction: u64,
}

/// How a borrowed system call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Returned(u64),
    Failed(Errno),
    /// The process runs another program.
    Executed,
}

impl Tracee {
    /// Stops a thread of `process`, with all signals held back.
    pub(crate) fn stop(proc: &Proc, process: ProcessId, memory: &Memory) -> Result<Self, Failure> {
        let thread = proc.live_thread(process.pid).ok_or_else(|| Failure::vanished(process.pid))?;
        let (process_pid, thread) = (process.pid.cast_signed(), thread.cast_signed());
        ptrace::seize(thread).map_err(|errno| refused(proc, process.pid, errno))?;
        // After the seize, not before: a traced process keeps its pid.
        proc.check(process)?;
        ptrace::interrupt(thread).map_err(lost(process.pid))?;
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            match wait(process_pid, thread, deadline)? {
                Change::Stopped => break,
                // It came before the interruption; that one still follows.
                Change::Signal(signal) => {
                    ptrace::resume(thread, Resume::Freely, signal).map_err(lost(process.pid))?;
                }
                other => return Err(ended(proc, process.pid, other)),
            }
        }
        let tracee = Self::hold(proc, process.pid, thread, memory);
        if tracee.is_err() {
            let _ = ptrace::detach(thread);
        }
        tracee
    }

    /// Takes what must be given back later, and holds signals back.
    fn hold(proc: &Proc, pid: u32, thread: i32, memory: &Memory) -> Result<Self, Failure> {
        let registers = read_registers(thread)?;
        let instruction = memory.find_system_call(proc, arch::instruction(&registers))?;
        let mask = ptrace::signal_mask(thread).map_err(lost(pid))?;
        ptrace::set_signal_mask(thread, HELD_BACK).map_err(lost(pid))?;
        Ok(Self { process: pid.cast_signed(), thread, registers, mask, instruction })
    }

    /// Does a system call in the name of the process.
    pub(crate) fn call(&mut self, proc: &Proc, number: i64, arguments: [u64; 6]) -> Result<Outcome, Failure> {
        self.enter(proc, number, arguments)?;
        self.advance(proc, STOP_LIMIT)?;
        self.outcome(proc, number)
    }

    /// Does an execve(2) or execveat(2), with no signal blocked: the mask is
    /// what the new program starts with.
    pub(crate) fn execute(&mut self, proc: &Proc, number: i64, arguments: [u64; 6]) -> Result<Outcome, Failure> {
        self.enter(proc, number, arguments)?;
        // No signal is delivered inside a system call, so the handlers of the
        // old program do not get to run in between.
        self.set_mask(0)?;
        if self.advance(proc, EXECUTE_LIMIT)? == Change::Executed {
            return Ok(Outcome::Executed);
        }
        self.set_mask(HELD_BACK)?;
        self.outcome(proc, number)
    }

    /// Whether it was stopped inside a system call; then, where that can be told, also
    /// which one and its fourth argument.
    pub(crate) fn interrupted_call(&self) -> Option<(u64, u64)> {
        arch::interrupted_call(&self.registers)
    }

    /// Calls a C function of the process, on the thread's own stack, as the handler of a
    /// signal would be called there. `back` is an address that can't be executed: the
    /// function's return to it is how its end is seen.
    pub(crate) fn call_function(
        &mut self,
        proc: &Proc,
        memory: &Memory,
        function: u64,
        arguments: [u64; 2],
        back: u64,
        limit: Duration,
    ) -> Result<i64, Failure> {
        let mut registers = self.registers;
        let placed = arch::prepare_function(&mut registers, function, arguments, back);
        if let Some((address, value)) = placed {
            memory.write(address, &value.to_ne_bytes())?;
        }
        nix::sys::ptrace::setregs(Pid::from_raw(self.thread), registers).map_err(|error| lost(self.pid())(errno(error)))?;
        // Were it held back, the kernel would take the process's handler for it away.
        self.set_mask(HELD_BACK & !(1 << (libc::SIGSEGV - 1)))?;
        let returned = self.until_return(proc, back, limit);
        self.set_mask(HELD_BACK)?;
        returned
    }

    fn until_return(&self, proc: &Proc, back: u64, limit: Duration) -> Result<i64, Failure> {
        let deadline = Instant::now() + limit;
        let mut signal = 0;
        loop {
            ptrace::resume(self.thread, Resume::Freely, signal).map_err(lost(self.pid()))?;
            let change = match wait(self.process, self.thread, deadline) {
                Err(failure) if failure.kind == ErrorKind::TimedOut => {
                    self.stop_again(proc)?;
                    return Err(failure);
                }
                change => change?,
            };
            match change {
                Change::Signal(libc::SIGSEGV) => {
                    let registers = read_registers(self.thread)?;
                    if arch::instruction(&registers) == back {
                        return Ok(arch::result(&registers));
                    }
                    let message = format!("a function that was called in process {} failed", self.process);
                    return Err(Failure::new(ErrorKind::Io, message));
                }
                Change::Stopped => signal = 0,
                Change::Signal(other) => signal = passed_on(other),
                other => return Err(ended(proc, self.pid(), other)),
            }
        }
    }

    /// Stops the thread in the middle of what it does for us, which is given up.
    fn stop_again(&self, proc: &Proc) -> Result<(), Failure> {
        ptrace::interrupt(self.thread).map_err(lost(self.pid()))?;
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            match wait(self.process, self.thread, deadline)? {
                Change::Stopped => return Ok(()),
                Change::Signal(signal) => {
                    ptrace::resume(self.thread, Resume::Freely, passed_on(signal)).map_err(lost(self.pid()))?;
                }
                other => return Err(ended(proc, self.pid(), other)),
            }
        }
    }

    /// Lets the process go on as if nothing had happened.
    pub(crate) fn release(self, proc: &Proc) -> Result<(), Failure> {
        // Registers are given back in a stop of the same kind as they were taken
        // in. After such a one the kernel looks whether a system call is to be
        // restarted; after the exit of one it only happens to, and a program
        // must never see the kernel's internal ERESTARTSYS as a result.
        ptrace::interrupt(self.thread).map_err(lost(self.pid()))?;
        let deadline = Instant::now() + STOP_LIMIT;
        ptrace::resume(self.thread, Resume::Freely, 0).map_err(lost(self.pid()))?;
        loop {
            match wait(self.process, self.thread, deadline)? {
                Change::Stopped => break,
                Change::Signal(signal) => {
                    ptrace::resume(self.thread, Resume::Freely, signal).map_err(lost(self.pid()))?;
                }
                other => return Err(ended(proc, self.pid(), other)),
            }
        }
        nix::sys::ptrace::setregs(Pid::from_raw(self.thread), self.registers).map_err(|error| lost(self.pid())(errno(error)))?;
        self.set_mask(self.mask)?;
        ptrace::detach(self.thread).map_err(lost(self.pid()))
    }

    /// Lets the new program begin.
    pub(crate) fn begin(self) -> Result<(), Failure> {
        // Whichever thread called execve, the new program's has the pid's number.
        ptrace::detach(self.process).map_err(lost(self.pid()))
    }

    fn enter(&mut self, proc: &Proc, number: i64, arguments: [u64; 6]) -> Result<(), Failure> {
        let number = number.cast_unsigned();
        let mut registers = self.registers;
        arch::prepare(&mut registers, self.instruction, number, arguments);
        nix::sys::ptrace::setregs(Pid::from_raw(self.thread), registers).map_err(|error| lost(self.pid())(errno(error)))?;
        self.advance(proc, STOP_LIMIT)?;
        if arch::number(&read_registers(self.thread)?) == number {
            return Ok(());
        }
        let message = format!("process {} did not enter system call {number}", self.process);
        Err(Failure::new(ErrorKind::Io, message))
    }

    /// To the next entry or exit of a system call, or the new program.
    fn advance(&self, proc: &Proc, limit: Duration) -> Result<Change, Failure> {
        let deadline = Instant::now() + limit;
        let mut signal = 0;
        loop {
            ptrace::resume(self.thread, Resume::ToSystemCall, signal).map_err(lost(self.pid()))?;
            match wait(self.process, self.thread, deadline)? {
                change @ (Change::SystemCall | Change::Executed) => return Ok(change),
                // Suspended from outside: it runs on for us, and the kernel
                // suspends it again when it is let go.
                Change::Stopped => signal = 0,
                Change::Signal(other) => signal = passed_on(other),
                other => return Err(ended(proc, self.pid(), other)),
            }
        }
    }

    fn outcome(&self, proc: &Proc, number: i64) -> Result<Outcome, Failure> {
        let result = arch::result(&read_registers(self.thread)?);
        // A seccomp filter that kills or traps: nothing was done, the registers
        // are as before, and SIGSYS is on its way.
        if result == number && self.awaits_sigsys(proc) {
            return Err(seccomp(self.pid()));
        }
        Ok(match i32::try_from(-result) {
            Ok(number) if (1..=MAX_ERRNO).contains(&-result) => Outcome::Failed(Errno::from_raw_os_error(number)),
            _ => Outcome::Returned(result.cast_unsigned()),
        })
    }

    fn awaits_sigsys(&self, proc: &Proc) -> bool {
        proc.thread_status(self.pid(), self.thread.cast_unsigned()).is_ok_and(|status| status.pending & !HELD_BACK != 0)
    }

    fn set_mask(&self, mask: SignalMask) -> Result<(), Failure> {
        ptrace::set_signal_mask(self.thread, mask).map_err(lost(self.pid()))
    }

    fn pid(&self) -> u32 {
        self.process.cast_unsigned()
    }
}

/// SIGSYS was for a system call that the process knows nothing of.
fn passed_on(signal: i32) -> i32 {
    if signal == libc::SIGSYS { 0 } else { signal }
}

fn read_registers(thread: i32) -> Result<Registers, Failure> {
    nix::sys::ptrace::getregs(Pid::from_raw(thread)).map_err(|error| lost(thread.cast_unsigned())(errno(error)))
}

/// Waits for what comes next, by asking: waitpid(2) has no time limit.
fn wait(process: i32, thread: i32, deadline: Instant) -> Result<Change, Failure> {
    let mut nap = SHORTEST_NAP;
    loop {
        match ptrace::poll(thread) {
            Ok(Some(change)) => return Ok(change),
            Ok(None) => {}
            // A thread that is not the first takes the pid's number when it
            // executes another program.
            Err(Errno::CHILD) if thread != process => match ptrace::poll(process) {
                Ok(Some(change)) => return Ok(change),
                Ok(None) => {}
                Err(error) => return Err(lost(process.cast_unsigned())(error)),
            },
            Err(error) => return Err(lost(process.cast_unsigned())(error)),
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(ErrorKind::TimedOut, format!("process {process} did not stop in time; is its container frozen?")));
        }
        sleep(nap);
        nap = (nap * 2).min(LONGEST_NAP);
    }
}

fn errno(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}

/// For a ptrace request on a thread that was held: ESRCH and ECHILD mean that
/// it was killed meanwhile.
fn lost(pid: u32) -> impl FnOnce(Errno) -> Failure {
    move |errno| match errno {
        Errno::SRCH | Errno::CHILD => Failure::vanished(pid),
        other => Failure::errno(format_args!("control process {pid}"))(other),
    }
}

fn refused(proc: &Proc, pid: u32, errno: Errno) -> Failure {
    if errno == Errno::SRCH {
        return Failure::vanished(pid);
    }
    match proc.status(pid).map(|status| status.tracer) {
        Ok(tracer) if tracer != 0 => {
            Failure::new(ErrorKind::Permission, format!("cannot control process {pid}: process {tracer} (a debugger?) traces it"))
        }
        _ => Failure::errno(format_args!("control process {pid}"))(errno),
    }
}

fn ended(proc: &Proc, pid: u32, change: Change) -> Failure {
    match change {
        Change::Killed(libc::SIGSYS) => seccomp(pid),
        Change::Killed(signal) => {
            let message = format!("process {pid} was killed by signal {signal} while it was held");
            // A filter of the kind that kills the thread need not say SIGSYS.
            let filtered = proc.status(pid).is_ok_and(|status| status.seccomp != 0);
            let hint = if filtered { " (it has a seccomp filter)" } else { "" };
            Failure::new(ErrorKind::Vanished, message + hint)
        }
        Change::Exited => Failure::new(ErrorKind::Vanished, format!("process {pid} ended while it was held")),
        other => Failure::new(ErrorKind::Io, format!("process {pid} came to an unexpected stop: {other:?}")),
    }
}

fn seccomp(pid: u32) -> Failure {
    let message = format!(
        "the seccomp filter of process {pid} does not allow a system call that is needed here \
         (mmap, close_range, memfd_create, execve)"
    );
    Failure::new(ErrorKind::Seccomp, message)
}
