//! A debugger that is attached for as long as its client is there, and never
//! longer, however that goes away.
//!
//! Architecture invariant: the process that is debugged outlives the debugger and
//! runs on without a trace of it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::process_lock::ProcessLock;
use super::release::{answers, detach};
use super::repair::repair;
use super::{Held, HoldEnd, HoldFailure, SILENCE};
use crate::process::Proc;
use crate::protocol::{ProcessId, encode};
use crate::signal;

/// What Delve prints once its port is there, which is before it attaches.
const LISTENS: &str = "API server listening at";
/// How long attaching may take: Delve reads all of the debug information first.
const PATIENCE: Duration = Duration::from_secs(60);
/// A process that is traced and was not seen to stand still for so long runs.
const SURELY_RUNNING: Duration = Duration::from_millis(500);
/// How long a debugger has to end after it was asked to.
const GRACE: Duration = Duration::from_secs(2);
/// How long a debugger may tell its clients that the process is gone.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// So much of what it says is kept.
const KEPT: usize = 8 * 1024;

/// What to attach to what.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Delve, where the agent runs.
    pub(crate) debugger: PathBuf,
    /// Where it is to listen.
    pub(crate) socket: PathBuf,
    /// The process.
    pub(crate) process: ProcessId,
    /// A program with the debug information that the process's own lacks.
    pub(crate) symbols: Option<PathBuf>,
}

/// Runs until the debugger is gone. The first error of `output` is that the client
/// is gone, which stdin tells, too.
pub(crate) fn hold(order: &Order, input: File, mut output: File) -> io::Result<()> {
    let mut tell = |held: &Held| {
        let mut frame = Vec::new();
        if encode(held, &mut frame).is_ok() {
            let _ = output.write_all(&frame);
        }
    };
    let proc = Proc::system();
    let session = match Session::start(&proc, order, input) {
        Ok(session) => session,
        Err((reason, message)) => {
            tell(&Held::Failed { reason, message });
            return Ok(());
        }
    };
    session.run(&mut tell)
}

struct Session<'a> {
    proc: &'a Proc,
    order: &'a Order,
    input: File,
    signals: SignalFd,
    /// Readable once the process has ended.
    target: OwnedFd,
    debugger: Child,
    /// What it prints.
    words: io::PipeReader,
    said: Vec<u8>,
    /// Whether the process was stopped (as by Ctrl-Z) before.
    was_stopped: bool,
    last_sign: Instant,
    /// Until nothing is left to do for the process.
    _lock: ProcessLock,
}

/// Why it is over.
enum Cause {
    ClientGone,
    TargetGone,
    DebuggerGone,
    TimedOut,
}

impl<'a> Session<'a> {
    fn start(proc: &'a Proc, order: &'a Order, input: File) -> Result<Self, (HoldFailure, String)> {
        let other = |error: io::Error| (HoldFailure::Other, error.to_string());
        let pid = order.process.pid;
        let target = signal::open(proc, order.process).map_err(|failure| (HoldFailure::Vanished, failure.message))?;
        let status = proc.status(pid).map_err(|failure| (HoldFailure::Vanished, failure.message))?;
        if status.tracer != 0 {
            let name = String::from_utf8_lossy(&proc.read(status.tracer, "comm").unwrap_or_default()).trim().to_owned();
            return Err((HoldFailure::Traced, format!("process {pid} is traced by process {} ({name})", status.tracer)));
        }
        let was_stopped = proc.stat(pid).is_ok_and(|stat| stat.state == b'T');
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGCHLD);
        // A terminal sends these to all that runs in it; the client decides.
        let mut blocked = mask;
        blocked.add(Signal::SIGINT);
        blocked.add(Signal::SIGHUP);
        blocked.thread_block().map_err(|errno| other(errno.into()))?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC).map_err(|errno| other(errno.into()))?;
        if let Some(folder) = order.socket.parent() {
            // Whoever reaches the socket controls the process.
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(other)?;
        }
        let is_traced = || proc.status(pid).is_ok_and(|status| status.tracer != 0);
        let lock = ProcessLock::take(order.socket.with_extension("lock"), is_traced).map_err(other)?;
        let lock = lock.ok_or_else(|| (HoldFailure::Traced, format!("process {pid} has a debugger, dlv, already")))?;
        match fs::remove_file(&order.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(other(error)),
            _ => {}
        }
        let (words, pipe) = io::pipe().map_err(other)?;
        let debugger = spawn(order, pipe).map_err(|error| {
            let message = format!("{} can't be started: {error}", order.debugger.display());
            (HoldFailure::Debugger, message)
        })?;
        Ok(Self {
            proc,
            order,
            input,
            signals,
            target,
            debugger,
            words,
            said: Vec::new(),
            was_stopped,
            last_sign: Instant::now(),
            _lock: lock,
        })
    }

    fn run(mut self, tell: &mut impl FnMut(&Held)) -> io::Result<()> {
        let attached = self.attach();
        if let Ok(stopped) = attached {
            tell(&Held::Attached { stopped_micros: u64::try_from(stopped.as_micros()).unwrap_or(u64::MAX) });
        }
        let (cause, was_attached) = match attached {
            Ok(_) => (self.watch()?, true),
            Err(cause) => (cause, false),
        };
        let end = match cause {
            Cause::TargetGone => {
                sleep(LAST_WORDS);
                HoldEnd::Exited
            }
            Cause::DebuggerGone => HoldEnd::DebuggerDied(self.last_words()),
            Cause::ClientGone => HoldEnd::Detached,
            Cause::TimedOut => HoldEnd::DebuggerDied(format!("it did not attach within {} s", PATIENCE.as_secs())),
        };
        let asked = matches!(cause, Cause::ClientGone | Cause::TimedOut);
        let repaired = self.let_go(asked);
        let _ = fs::remove_file(&self.order.socket);
        if was_attached {
            tell(&Held::Ended { end, repaired });
        } else {
            let message = match end {
                HoldEnd::DebuggerDied(words) => words,
                HoldEnd::Exited => format!("process {} ended while the debugger was being attached", self.order.process.pid),
                HoldEnd::Detached => "nobody was left to attach it for".to_owned(),
            };
            let reason = if self.proc.is_running(self.order.process) { reason_of(&message) } else { HoldFailure::Vanished };
            tell(&Held::Failed { reason, message });
        }
        Ok(())
    }

    /// Waits until the debugger listens and the process runs again; answers how
    /// long that one stood still.
    fn attach(&mut self) -> Result<Duration, Cause> {
        let started = Instant::now();
        let (mut first, mut last, mut traced_since) = (None, None, None);
        loop {
            let listens = String::from_utf8_lossy(&self.said).contains(LISTENS);
            let now = Instant::now();
            if self.proc.stat(self.order.process.pid).is_ok_and(|stat| stat.state == b't') {
                first = first.or(Some(now));
                last = Some(now);
            } else if let (true, Some(first), Some(last)) = (listens, first, last)
                && answers(&self.order.socket)
            {
                return Ok(last - first);
            } else if listens && self.is_traced() {
                // Too short to be seen, perhaps.
                let since = *traced_since.get_or_insert(now);
                if now - since > SURELY_RUNNING {
                    return Ok(Duration::ZERO);
                }
            }
            if started.elapsed() > PATIENCE {
                return Err(Cause::TimedOut);
            }
            if let Some(cause) = self.wait(PollTimeout::from(1_u8)).map_err(|_| Cause::ClientGone)? {
                return Err(cause);
            }
        }
    }

    fn is_traced(&self) -> bool {
        self.proc.status(self.order.process.pid).is_ok_and(|status| status.tracer != 0)
    }

    /// Waits until something ends.
    fn watch(&mut self) -> io::Result<Cause> {
        loop {
            if let Some(cause) = self.wait(PollTimeout::from(1000_u16))? {
                return Ok(cause);
            }
        }
    }

    /// Takes what there is, or waits for it.
    fn wait(&mut self, timeout: PollTimeout) -> io::Result<Option<Cause>> {
        let ready = {
            let open = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let fds: [BorrowedFd<'_>; 4] = [self.input.as_fd(), self.signals.as_fd(), self.target.as_fd(), self.words.as_fd()];
            let mut polled = fds.map(open);
            match poll(&mut polled, timeout) {
                Ok(_) => polled.map(|fd| fd.any().unwrap_or(false)),
                Err(nix::errno::Errno::EINTR) => [false; 4],
                Err(errno) => return Err(errno.into()),
            }
        };
        let [input, signals, target, words] = ready;
        if words {
            self.listen();
        }
        // One that is killed while its threads stand still is not told to be gone until
        // the debugger, which waits for its client, takes note of each of them; if it is
        // a container's first, it doesn't even look dead before, but has no memory.
        if target || !self.proc.is_running(self.order.process) || self.proc.is_ending(self.order.process.pid) {
            return Ok(Some(Cause::TargetGone));
        }
        if signals && let Some(cause) = self.signalled() {
            return Ok(Some(cause));
        }
        if input {
            let mut signs = [0; 64];
            match self.input.read(&mut signs) {
                Ok(1..) => self.last_sign = Instant::now(),
                _ => return Ok(Some(Cause::ClientGone)),
            }
        }
        Ok((self.last_sign.elapsed() > SILENCE).then_some(Cause::ClientGone))
    }

    fn signalled(&mut self) -> Option<Cause> {
        let mut cause = None;
        while let Ok(Some(info)) = self.signals.read_signal() {
            if info.ssi_signo == Signal::SIGTERM as u32 {
                cause = Some(Cause::ClientGone);
            } else if let Ok(Some(_)) = self.debugger.try_wait() {
                // What it said last is in the pipe.
                self.listen();
                return Some(Cause::DebuggerGone);
            }
            if !self.has_signals() {
                break;
            }
        }
        cause
    }

    fn has_signals(&self) -> bool {
        let mut ready = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// Reads what there is, without waiting for more.
    fn listen(&mut self) {
        let mut piece = [0; 4096];
        loop {
            let mut ready = [PollFd::new(self.words.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::ZERO) != Ok(1) {
                return;
            }
            match self.words.read(&mut piece) {
                Ok(length @ 1..) => self.said.extend_from_slice(&piece[..length]),
                _ => return,
            }
            let over = self.said.len().saturating_sub(KEPT);
            self.said.drain(..over);
        }
    }

    fn last_words(&self) -> String {
        let said = String::from_utf8_lossy(&self.said);
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.contains(LISTENS)).collect();
        let last = lines[lines.len().saturating_sub(3)..].join("; ");
        if last.is_empty() { "the debugger ended without a word".to_owned() } else { last }
    }

    /// Makes the debugger let go of the process and end, and the process run.
    /// Answers how many breakpoints were left.
    fn let_go(&mut self, asked: bool) -> u32 {
        let process = self.order.process;
        let detached = asked && detach(&self.order.socket, || self.is_trap_pending()).is_ok();
        if !detached && !self.has_ended() && asked {
            self.signal_debugger(Signal::SIGTERM);
            let started = Instant::now();
            while started.elapsed() < GRACE && !self.has_ended() {
                sleep(Duration::from_millis(10));
            }
        }
        // Without a debugger a breakpoint ends the process: it must not come upon
        // one before they are taken out.
        let is_clean = detached || self.has_ended() && asked;
        if !is_clean {
            self.signal_target(Signal::SIGSTOP);
        }
        self.signal_debugger(Signal::SIGKILL);
        let _ = self.debugger.wait();
        let may_be_left = !detached && self.proc.is_running(process);
        let repaired = if may_be_left { repair(self.proc, process).unwrap_or(0) } else { 0 };
        let is_stopped = self.proc.stat(process.pid).is_ok_and(|stat| stat.state == b'T');
        if !self.was_stopped && (!is_clean || is_stopped) {
            self.signal_target(Signal::SIGCONT);
        }
        repaired
    }

    /// Whether a SIGTRAP waits for the process or for one of its threads.
    fn is_trap_pending(&self) -> bool {
        const TRAP: u64 = 1 << (Signal::SIGTRAP as i32 - 1);
        let pid = self.order.process.pid;
        let threads = fs::read_dir(self.proc.path(pid, "task")).into_iter().flatten().flatten();
        threads
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|thread| self.proc.thread_status(pid, thread).ok())
            .any(|status| (status.pending | status.shared_pending) & TRAP != 0)
    }

    fn has_ended(&mut self) -> bool {
        matches!(self.debugger.try_wait(), Ok(Some(_)))
    }

    fn signal_debugger(&mut self, signal: Signal) {
        if !self.has_ended() {
            // Not reaped, so its number is still its own.
            let _ = kill(Pid::from_raw(self.debugger.id().cast_signed()), signal);
        }
    }

    fn signal_target(&self, signal: Signal) {
        // Fails when it is gone, which is then as it is.
        let _ = signal::send_signal(self.proc, self.order.process, signal as i32);
    }
}

fn spawn(order: &Order, words: io::PipeWriter) -> io::Result<Child> {
    let mut command = Command::new(&order.debugger);
    command.arg("attach").arg(order.process.pid.to_string());
    command.args(&order.symbols);
    command
        .args(["--headless", "--accept-multiclient", "--continue", "--api-version=2", "--check-go-version=false"])
        // The way to the socket is guarded by its folder.
        .args(["--only-same-user=false", "--listen"])
        .arg(format!("unix:{}", order.socket.display()))
        .env_clear()
        // It wants to keep a configuration, and must not find one.
        .env("HOME", order.socket.parent().unwrap_or(&order.socket))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(words.try_clone()?)
        .stderr(words)
        // Ctrl-C in the client's terminal is the client's business.
        .process_group(0);
    let none = SigSet::empty();
    // SAFETY: two system calls, no allocation.
    unsafe {
        command.pre_exec(move || {
            // Should the agent be killed: Delve detaches in good order then.
            set_pdeathsig(Signal::SIGTERM)?;
            none.thread_set_mask().map_err(io::Error::from)
        });
    }
    command.spawn()
}

/// Sorts out what Delve says.
fn reason_of(message: &str) -> HoldFailure {
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&["ptrace_scope", "operation not permitted", "permission denied"]) {
        HoldFailure::NotAllowed
    } else if has(&["could not open debug info", "debug info", "no Go build", "decoding dwarf"]) {
        HoldFailure::NoSymbols
    } else if has(&["no such process"]) {
        HoldFailure::Vanished
    } else {
        HoldFailure::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_delve_says_is_sorted_out() {
        let yama = "Could not attach to pid 1: this could be caused by a kernel security setting, try writing \"0\" to /proc/sys/kernel/yama/ptrace_scope";
        assert_eq!(reason_of(yama), HoldFailure::NotAllowed);
        assert_eq!(reason_of("could not attach to pid 1: could not open debug info - debuginfo not found"), HoldFailure::NoSymbols);
        assert_eq!(reason_of("something else"), HoldFailure::Other);
    }
}
