//! A container's first process that can start its program again.
//!
//! For what can't be swapped in place: where seccomp or user namespaces forbid
//! it, and for servers that must be told before they end. The program is a child
//! with the supervisor's user, environment, folder and standard streams. It gets
//! every signal that the supervisor is sent, except [`RESTART_SIGNAL`]: then it
//! is told to end (SIGTERM), gets its grace, and is started again from the same
//! path, where there may be a new binary by then. What it left running is
//! killed, as the end of a container would have it.
//!
//! A program that ends by itself ends the supervisor, with the same status: what
//! happens next is up to the pod's restart policy. Except soon after a restart
//! that was asked for, within two seconds: the container stays, without the
//! program, so that a new version that crashes doesn't cost the pod its files;
//! stderr, which is the container's log, says so, and the next restart tries
//! again. SIGTERM, SIGINT and SIGQUIT end a supervisor that waits like this.
//!
//! It opens no socket and reads nothing but `/proc`.

mod course;
mod tree;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};

use course::{Action, Course, Event};
use tree::Reaped;

/// Asks a supervisor to start its program again: SIGRTMIN+5, as C libraries
/// count on Linux. It has no name, so no program expects it of others.
pub const RESTART_SIGNAL: i32 = 39;

/// How long a program may take to end when it is told to, unless said otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// Longer than any pod's.
const MAX_GRACE: f64 = 86_400.0;

/// How long a program may be busy.
const BUSY: Duration = Duration::from_millis(200);

/// A shell's statuses for what could not be started.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// What is supervised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Supervised {
    grace: Duration,
    program: OsString,
    arguments: Vec<OsString>,
}

/// Reads `[--grace SECONDS] -- PROGRAM ARGS…`.
pub(crate) fn parse(words: &[&OsStr]) -> Result<Supervised, String> {
    let (grace, rest) = match words {
        [option, rest @ ..] if *option == "--grace" => {
            let [seconds, rest @ ..] = rest else { return Err("--grace needs a number of seconds".into()) };
            let grace = seconds.to_str().and_then(|text| text.parse().ok()).filter(|grace| (0.0..=MAX_GRACE).contains(grace));
            let grace = grace.ok_or_else(|| format!("--grace takes seconds from 0 to {MAX_GRACE}, not {seconds:?}"))?;
            (Duration::from_secs_f64(grace), rest)
        }
        rest => (DEFAULT_GRACE, rest),
    };
    match rest {
        [dashes, program, arguments @ ..] if *dashes == "--" => Ok(Supervised {
            grace,
            program: (*program).to_owned(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        }),
        [dashes] if *dashes == "--" => Err("there is no program after --".into()),
        [word, ..] => Err(format!("unexpected {word:?}: the program comes after --")),
        [] => Err("name the program after --".into()),
    }
}

/// Runs the program until it ends; answers the status to end with.
pub(crate) fn supervise(supervised: &Supervised) -> ExitCode {
    match Supervisor::new(supervised).and_then(Supervisor::run) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(format_args!("cannot supervise {:?}: {error}", supervised.program));
            ExitCode::FAILURE
        }
    }
}

struct Supervisor<'a> {
    supervised: &'a Supervised,
    signals: SignalFd,
    /// What the supervisor was started with; the program gets the same.
    mask: SigSet,
    course: Course,
    child: Option<Child>,
    began: Instant,
}

impl<'a> Supervisor<'a> {
    fn new(supervised: &'a Supervised) -> io::Result<Self> {
        // One who ignores it is not told of children.
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: no handler is installed.
        unsafe { sigaction(Signal::SIGCHLD, &default) }?;
        let set = awaited();
        let mask = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        tree::adopt_orphans()?;
        Ok(Self { supervised, signals, mask, course: Course::new(supervised.grace), child: None, began: Instant::now() })
    }

    fn run(mut self) -> io::Result<u8> {
        let mut exit = self.start();
        while exit.is_none() {
            self.wait()?;
            while let (None, Some(info)) = (exit, self.signals.read_signal()?) {
                exit = self.received(&info);
            }
            if exit.is_none() && self.course.due().is_some_and(|due| due <= self.began.elapsed()) {
                exit = self.happened(Event::Due);
            }
        }
        Ok(exit.unwrap_or_default())
    }

    /// Until there is a signal, or something is due.
    fn wait(&self) -> io::Result<()> {
        let timeout = match self.course.due() {
            // Rounded up: a moment too early would be one round for nothing.
            Some(due) => due.saturating_sub(self.began.elapsed()).saturating_add(Duration::from_millis(1)),
            None => Duration::MAX,
        };
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::NONE);
        match poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn received(&mut self, info: &siginfo) -> Option<u8> {
        let number = i32::try_from(info.ssi_signo).unwrap_or_default();
        match number {
            libc::SIGCHLD => self.reap(),
            RESTART_SIGNAL => self.happened(Event::Restart),
            number => {
                // The terminal's go to all of its foreground, where both are.
                let shared =
                    info.ssi_code == libc::SI_KERNEL && matches!(number, libc::SIGINT | libc::SIGQUIT | libc::SIGTSTP | libc::SIGWINCH);
                self.happened(Event::Signal { number, shared })
            }
        }
    }

    /// Takes in all that ended; as a first process, others' orphans too.
    fn reap(&mut self) -> Option<u8> {
        while let Reaped::Ended(pid, ending) = tree::reap() {
            if self.child.as_ref().is_some_and(|child| child.id() == pid) {
                self.child = None;
                if let Some(code) = self.happened(Event::Ended(ending)) {
                    return Some(code);
                }
            }
        }
        None
    }

    /// Does what follows from it; answers the status to end with, if that is it.
    fn happened(&mut self, event: Event) -> Option<u8> {
        match self.course.next(event, self.began.elapsed()) {
            Action::Nothing => None,
            Action::Forward(number) => {
                self.send(number);
                None
            }
            Action::Kill => {
                say(format_args!("the program did not end within {:?} of SIGTERM and is killed", self.supervised.grace));
                self.send(libc::SIGKILL);
                None
            }
            Action::Start => {
                if !tree::end_rest() {
                    say(format_args!("some processes that the program left can't be ended; it is started beside them"));
                }
                self.start()
            }
            Action::Mourn(ending) => {
                say(format_args!("the program ended {ending} right after its restart; the container stays for the next restart"));
                None
            }
            Action::Exit(code) => Some(code),
        }
    }

    fn start(&mut self) -> Option<u8> {
        let mask = self.mask;
        let mut command = Command::new(&self.supervised.program);
        command.args(&self.supervised.arguments);
        // SAFETY: it makes one system call and allocates nothing.
        unsafe { command.pre_exec(move || mask.thread_set_mask().map_err(io::Error::from)) };
        match spawn(&mut command) {
            Ok(child) => {
                self.child = Some(child);
                self.happened(Event::Started)
            }
            Err(error) => {
                say(format_args!("cannot start {:?}: {error}", self.supervised.program));
                let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
                self.happened(Event::NotStarted(code))
            }
        }
    }

    fn send(&self, number: i32) {
        if let Some(child) = &self.child {
            tree::send(child.id(), number);
        }
    }
}

/// All signals but those that say that the supervisor itself failed, and the one
/// that it causes by speaking to nobody.
fn awaited() -> SigSet {
    let mut set = SigSet::all();
    let own = [
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGTRAP,
        Signal::SIGSYS,
        Signal::SIGABRT,
        Signal::SIGPIPE,
    ];
    for signal in own {
        set.remove(signal);
    }
    set
}

/// Into the container's log.
fn say(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "devloop: {what}");
}

/// Starts a program. Whoever wrote it may just be starting one of its own, which has
/// a copy of the descriptor until its exec: then it is busy for a moment (execve(2)).
fn spawn(command: &mut Command) -> io::Result<Child> {
    let started = Instant::now();
    loop {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && started.elapsed() < BUSY => {
                std::thread::sleep(Duration::from_millis(2))
            }
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Supervised, String> {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        parse(&words)
    }

    #[test]
    fn the_program_comes_after_the_dashes() {
        let supervised = parsed(&["--", "/app", "--", "--grace"]).unwrap();
        assert_eq!(supervised, Supervised { grace: DEFAULT_GRACE, program: "/app".into(), arguments: vec!["--".into(), "--grace".into()] });
        assert_eq!(parsed(&["--grace", "0.5", "--", "/app"]).unwrap().grace, Duration::from_millis(500));
        assert_eq!(parsed(&["--grace", "0", "--", "/app"]).unwrap().grace, Duration::ZERO);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases: [(&[&str], &str); 8] = [
            (&[], "name the program"),
            (&["--"], "no program"),
            (&["/app"], "comes after --"),
            (&["--grace"], "needs a number"),
            (&["--grace", "-1", "--", "/app"], "from 0 to"),
            (&["--grace", "NaN", "--", "/app"], "from 0 to"),
            (&["--grace", "inf", "--", "/app"], "from 0 to"),
            (&["--grace", "1", "/app"], "comes after --"),
        ];
        for (words, expected) in cases {
            let message = parsed(words).unwrap_err();
            assert!(message.contains(expected), "{words:?}: {message}");
        }
    }

    #[test]
    fn its_own_faults_are_not_the_programs() {
        let set = awaited();
        assert!(!set.contains(Signal::SIGSEGV) && !set.contains(Signal::SIGPIPE));
        assert!(set.contains(Signal::SIGCHLD) && set.contains(Signal::SIGUSR1) && set.contains(Signal::SIGTERM));
    }
}
