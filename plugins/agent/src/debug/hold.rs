//! A debugger that is attached for as long as its client is there, and never
//! longer, however that goes away.
//!
//! What all debuggers have in common is here; what is particular to one is its
//! [`Debugger`], in a file of its own.
//!
//! Architecture invariant: the process that is debugged outlives the debugger and
//! runs on without a trace of it, but for a thread of debugpy's that waits.

mod child;
mod delve;
mod gdbserver;
mod jvm;
mod node;
mod python;
mod relay;
mod release;
mod rsp;
mod target;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use self::delve::Delve;
use self::gdbserver::GdbServer;
use self::jvm::Jvm;
use self::node::Node;
use self::python::Python;
pub(crate) use self::relay::HALTED;
use self::target::Target;
use super::process_lock::ProcessLock;
use super::{Held, HoldEnd, HoldFailure, SILENCE};
use crate::process::Proc;
use crate::protocol::{ProcessId, encode};
use crate::signal;

/// How long attaching may take: some read all of the debug information first.
const PATIENCE: Duration = Duration::from_secs(60);
/// Asks to make way for another program of the process ([`crate::swap`]).
pub(crate) const MAKE_WAY: Signal = Signal::SIGUSR1;
/// The same, for an undoing: also while the process stands still for its debugger.
pub(crate) const MAKE_WAY_AT_ONCE: Signal = Signal::SIGUSR2;
/// How long that program may take to come.
const REPLACING: Duration = Duration::from_secs(10);
/// How long a debugger may tell its clients that the process is gone.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// What to attach to what.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Where clients are to find the debugger.
    pub(crate) socket: PathBuf,
    /// The process.
    pub(crate) process: ProcessId,
    /// Which debugger.
    pub(crate) kind: Kind,
}

/// A debugger, with what it is told.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Delve.
    Delve {
        /// Its program, where the agent runs.
        program: PathBuf,
        /// A program with the debug information that the process's own lacks.
        symbols: Option<PathBuf>,
    },
    /// debugpy.
    Debugpy {
        /// Its wheel, where the agent runs.
        wheel: PathBuf,
    },
    /// The inspector that is part of Node.
    Node,
    /// The debug agent that a Java virtual machine was started with.
    Jdwp,
    /// gdbserver.
    GdbServer {
        /// Its program, where the agent runs.
        program: PathBuf,
    },
}

impl Kind {
    /// Reads what follows the word for it on the command line.
    pub(crate) fn parse(name: &str, words: &[&str]) -> Option<Self> {
        match (name, words) {
            ("delve", [program, symbols @ ..]) if symbols.len() <= 1 => {
                Some(Self::Delve { program: program.into(), symbols: symbols.first().map(Into::into) })
            }
            ("debugpy", [wheel]) => Some(Self::Debugpy { wheel: wheel.into() }),
            ("node", []) => Some(Self::Node),
            ("jdwp", []) => Some(Self::Jdwp),
            ("gdbserver", [program]) => Some(Self::GdbServer { program: program.into() }),
            _ => None,
        }
    }
}

/// What is particular to one debugger. It is driven by one thread, which looks after
/// the client and the process, too.
trait Debugger {
    /// What becomes readable when there is something for [`Self::look`].
    fn files(&self) -> Vec<BorrowedFd<'_>>;
    /// Takes what there is, without waiting: after one of its files or a child got
    /// ready, and every now and then. Answers its last words once it has ended by
    /// itself.
    fn look(&mut self, target: &Target<'_>) -> Option<String>;
    /// How long the process stood still for it, once clients are served and the
    /// process runs on.
    fn attached(&mut self, target: &Target<'_>) -> Option<Duration>;
    /// How long the process stood still for a client that came, once that one has let it
    /// run; told once for each. Nothing where the debugger lets it run meanwhile.
    fn joined(&mut self) -> Option<Duration> {
        None
    }
    /// Makes it let go of the process and end, and the process run. Answers how many
    /// breakpoints were left in its code. `is_asked` is false when it ended itself,
    /// or the process did.
    fn let_go(&mut self, target: &Target<'_>, is_asked: bool) -> u32;
    /// Sorts out what it said about not being able to attach.
    fn reason_of(&self, words: &str) -> HoldFailure;
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

/// Why a debugger could not be started, and its or our words about it.
type Refusal = (HoldFailure, String);

struct Session<'a> {
    target: Target<'a>,
    input: File,
    signals: SignalFd,
    /// Readable once the process has ended.
    end: OwnedFd,
    debugger: Box<dyn Debugger>,
    last_sign: Instant,
    /// Until nothing is left to do for the process.
    _lock: ProcessLock,
}

/// Why it is over.
enum Cause {
    ClientGone,
    TargetGone,
    DebuggerGone(String),
    TimedOut,
    /// The process runs another program.
    Replaced,
    /// It is about to.
    MakesWay,
}

/// What signals ask for.
enum Asked {
    Nothing,
    ToEnd,
    ToMakeWay,
    ToMakeWayAtOnce,
}

impl<'a> Session<'a> {
    fn start(proc: &'a Proc, order: &'a Order, input: File) -> Result<Self, Refusal> {
        let other = |error: io::Error| (HoldFailure::Other, error.to_string());
        let pid = order.process.pid;
        let end = signal::open(proc, order.process).map_err(|failure| (HoldFailure::Vanished, failure.message))?;
        let status = proc.status(pid).map_err(|failure| (HoldFailure::Vanished, failure.message))?;
        if status.tracer != 0 {
            let name = String::from_utf8_lossy(&proc.read(status.tracer, "comm").unwrap_or_default()).trim().to_owned();
            return Err((HoldFailure::Traced, format!("process {pid} is traced by process {} ({name})", status.tracer)));
        }
        let target = Target::new(proc, order.process, &order.socket);
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGCHLD);
        mask.add(MAKE_WAY);
        mask.add(MAKE_WAY_AT_ONCE);
        // A terminal sends these to all that runs in it; the client decides.
        let mut blocked = mask;
        blocked.add(Signal::SIGINT);
        blocked.add(Signal::SIGHUP);
        blocked.thread_block().map_err(|errno| other(errno.into()))?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(|errno| other(errno.into()))?;
        if let Some(folder) = order.socket.parent() {
            // Whoever reaches the socket controls the process.
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(other)?;
        }
        let lock = ProcessLock::take(order.socket.with_file_name(format!("{pid}.lock")), || target.is_traced()).map_err(other)?;
        let lock = lock.ok_or_else(|| (HoldFailure::Traced, format!("process {pid} has a debugger of another session already")))?;
        match fs::remove_file(&order.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(other(error)),
            _ => {}
        }
        let debugger: Box<dyn Debugger> = match &order.kind {
            Kind::Delve { program, symbols } => Box::new(Delve::start(program, symbols.as_deref(), &target)?),
            Kind::Debugpy { wheel } => Box::new(Python::start(wheel, &target)?),
            Kind::Node => Box::new(Node::start(&target)?),
            Kind::Jdwp => Box::new(Jvm::start(&target)?),
            Kind::GdbServer { program } => Box::new(GdbServer::start(program, &target)?),
        };
        Ok(Self { target, input, signals, end, debugger, last_sign: Instant::now(), _lock: lock })
    }

    fn run(mut self, tell: &mut impl FnMut(&Held)) -> io::Result<()> {
        let attached = self.attach();
        if let Ok(stopped) = &attached {
            tell(&Held::Attached { stopped_micros: micros(*stopped) });
        }
        let (cause, was_attached) = match attached {
            Ok(_) => (self.watch(tell)?, true),
            Err(cause) => (cause, false),
        };
        let is_asked = matches!(cause, Cause::ClientGone | Cause::TimedOut | Cause::MakesWay);
        let makes_way = matches!(cause, Cause::MakesWay);
        let end = match cause {
            Cause::TargetGone => {
                sleep(LAST_WORDS);
                HoldEnd::Exited
            }
            Cause::Replaced | Cause::MakesWay => HoldEnd::Replaced,
            // Some end when what they know is not true any more.
            Cause::DebuggerGone(_) if self.target.is_replaced() => HoldEnd::Replaced,
            Cause::DebuggerGone(words) => HoldEnd::DebuggerDied(words),
            Cause::ClientGone => HoldEnd::Detached,
            Cause::TimedOut => HoldEnd::DebuggerDied(format!("it did not attach within {} s", PATIENCE.as_secs())),
        };
        let repaired = self.debugger.let_go(&self.target, is_asked);
        if makes_way {
            self.await_replacement();
        }
        let _ = fs::remove_file(self.target.socket);
        if was_attached {
            tell(&Held::Ended { end, repaired });
        } else {
            let message = match end {
                HoldEnd::DebuggerDied(words) => words,
                HoldEnd::Exited => format!("process {} ended while the debugger was being attached", self.target.process.pid),
                HoldEnd::Detached => "nobody was left to attach it for".to_owned(),
                HoldEnd::Replaced => format!("process {} was given another program meanwhile", self.target.process.pid),
            };
            let reason = if self.target.is_running() { self.debugger.reason_of(&message) } else { HoldFailure::Vanished };
            tell(&Held::Failed { reason, message });
        }
        Ok(())
    }

    /// Waits until the debugger serves clients and the process runs again; answers
    /// how long that one stood still.
    fn attach(&mut self) -> Result<Duration, Cause> {
        let started = Instant::now();
        loop {
            if let Some(stopped) = self.debugger.attached(&self.target) {
                return Ok(stopped);
            }
            if started.elapsed() > PATIENCE {
                return Err(Cause::TimedOut);
            }
            if let Some(cause) = self.wait(PollTimeout::from(1_u8)).map_err(|_| Cause::ClientGone)? {
                return Err(cause);
            }
        }
    }

    /// Waits until something ends.
    fn watch(&mut self, tell: &mut impl FnMut(&Held)) -> io::Result<Cause> {
        loop {
            if let Some(stopped) = self.debugger.joined() {
                tell(&Held::Joined { stopped_micros: micros(stopped) });
            }
            if let Some(cause) = self.wait(PollTimeout::from(1000_u16))? {
                return Ok(cause);
            }
        }
    }

    /// Takes what there is, or waits for it.
    fn wait(&mut self, timeout: PollTimeout) -> io::Result<Option<Cause>> {
        let [input, signals, end] = {
            let own = [self.input.as_fd(), self.signals.as_fd(), self.end.as_fd()];
            let all = own.into_iter().chain(self.debugger.files());
            let mut polled: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut polled, timeout) {
                Ok(_) => [0, 1, 2].map(|index: usize| polled[index].any().unwrap_or(false)),
                Err(nix::errno::Errno::EINTR) => [false; 3],
                Err(errno) => return Err(errno.into()),
            }
        };
        // One that is killed while its threads stand still is not told to be gone until
        // the debugger, which waits for its client, takes note of each of them; if it is
        // a container's first, it doesn't even look dead before, but has no memory.
        if end || !self.target.is_running() || self.target.is_ending() {
            return Ok(Some(Cause::TargetGone));
        }
        if self.target.is_replaced() {
            return Ok(Some(Cause::Replaced));
        }
        if signals {
            match self.asked() {
                Asked::ToEnd => return Ok(Some(Cause::ClientGone)),
                Asked::ToMakeWayAtOnce => return Ok(Some(Cause::MakesWay)),
                // Whoever stands at a breakpoint would lose sight of it.
                Asked::ToMakeWay if !self.target.is_halted() => return Ok(Some(Cause::MakesWay)),
                Asked::ToMakeWay | Asked::Nothing => {}
            }
        }
        if let Some(words) = self.debugger.look(&self.target) {
            return Ok(Some(Cause::DebuggerGone(words)));
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

    /// Takes all signals; that of a child's end is seen by [`Debugger::look`].
    fn asked(&self) -> Asked {
        let mut asked = Asked::Nothing;
        while let Ok(Some(info)) = self.signals.read_signal() {
            if info.ssi_signo == Signal::SIGTERM as u32 {
                return Asked::ToEnd;
            }
            if info.ssi_signo == MAKE_WAY_AT_ONCE as u32 {
                return Asked::ToMakeWayAtOnce;
            }
            if info.ssi_signo == MAKE_WAY as u32 {
                asked = Asked::ToMakeWay;
            }
        }
        asked
    }

    /// Waits until the process runs another program, or it does not come to that: whoever
    /// is told before would attach again too early.
    fn await_replacement(&self) {
        let started = Instant::now();
        while started.elapsed() < REPLACING && self.target.is_running() && !self.target.is_replaced() {
            sleep(Duration::from_millis(5));
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debugger_is_named_with_what_it_takes() {
        let Some(Kind::Delve { program, symbols }) = Kind::parse("delve", &["/dlv", "/symbols"]) else { panic!() };
        assert_eq!((program, symbols), ("/dlv".into(), Some("/symbols".into())));
        assert!(Kind::parse("delve", &[]).is_none() && Kind::parse("delve", &["/dlv", "a", "b"]).is_none());
        assert!(matches!(Kind::parse("debugpy", &["/wheel"]), Some(Kind::Debugpy { .. })));
        assert!(matches!((Kind::parse("node", &[]), Kind::parse("jdwp", &[])), (Some(Kind::Node), Some(Kind::Jdwp))));
        assert!(Kind::parse("debugpy", &[]).is_none() && Kind::parse("gdb", &["/gdb"]).is_none());
    }
}
