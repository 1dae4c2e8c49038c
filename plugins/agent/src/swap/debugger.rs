//! A debugger that `hold` keeps attached makes way for a new program: the kernel
//! allows a process one tracer at a time (ptrace(2)), and what the debugger knows is
//! of the old program. Who is to be asked follows from the kernel's list: the one
//! that started the tracer.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::children::descendants;
use crate::debug::hold::{HALTED, MAKE_WAY, MAKE_WAY_AT_ONCE};
use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::{ErrorKind, ProcessId};
use crate::signal;

/// For a debugger to take its breakpoints out and let go.
const PATIENCE: Duration = Duration::from_secs(8);
const NAP: Duration = Duration::from_millis(1);
/// Debuggers stop a process for moments of their own.
const MOMENT: Duration = Duration::from_millis(200);
/// A process that is stepped through runs for less at a time, mostly.
const STEADY: Duration = Duration::from_millis(500);
/// After this long it is not stepped through: whoever steps stops to look.
const UNSTEADY: Duration = Duration::from_secs(5);

/// What becomes of a process that stands still for its debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// It stays so, and the new program has to wait.
    Stays,
    /// It ends: what is to be undone is.
    Ends,
}

/// A process that is debugged, and whether it stands still for that.
struct Debugged {
    pid: u32,
    /// Its tracer, or the `hold` of a debugger that is part of it.
    by: u32,
    stands_still: bool,
}

/// Fails while the process stands still for its debugger, and between two steps of who
/// steps through it: it has to have run for a while, unless nobody traces it.
pub(crate) fn require_running(proc: &Proc, process: ProcessId) -> Result<(), Failure> {
    proc.check(process)?;
    await_running(proc, || traced(proc, process).into_iter().collect())
}

/// The same for all that descends from it, too, and for debuggers that are part of a
/// process, of which the kernel knows nothing.
pub(crate) fn require_all_running(proc: &Proc, process: ProcessId) -> Result<(), Failure> {
    proc.check(process)?;
    let mut all = descendants(proc, process)?;
    all.push(process);
    let keepers = keepers(proc, &all)?;
    await_running(proc, || {
        let traced = all.iter().filter_map(|process| traced(proc, *process));
        traced.chain(keepers.iter().filter_map(|(process, keeper)| kept(proc, *process, *keeper))).collect()
    })
}

fn await_running(proc: &Proc, look: impl Fn() -> Vec<Debugged>) -> Result<(), Failure> {
    let mut watch = Watch::new(Instant::now());
    loop {
        let debugged = look();
        if debugged.is_empty() {
            return Ok(());
        }
        let halted = debugged.iter().find(|debugged| debugged.stands_still);
        match watch.look(halted.is_some(), Instant::now()) {
            None => sleep(NAP),
            Some(true) => return Ok(()),
            Some(false) => {
                let (pid, by) = halted.map_or((0, 0), |halted| (halted.pid, halted.by));
                let name = name(proc, by).unwrap_or_default();
                let message = format!("process {pid} stands still for its debugger (process {by}, {name})");
                return Err(Failure::new(ErrorKind::Halted, message));
            }
        }
    }
}

fn name(proc: &Proc, pid: u32) -> Option<String> {
    Some(String::from_utf8_lossy(&proc.read(pid, "comm").ok()?).trim().to_owned())
}

fn traced(proc: &Proc, process: ProcessId) -> Option<Debugged> {
    let by = proc.status(process.pid).ok()?.tracer;
    let stands_still = proc.stat(process.pid).ok()?.state == b't';
    (by != 0).then_some(Debugged { pid: process.pid, by, stands_still })
}

fn kept(proc: &Proc, process: ProcessId, keeper: ProcessId) -> Option<Debugged> {
    let stands_still = name(proc, keeper.pid)? == HALTED;
    proc.is_running(keeper).then_some(Debugged { pid: process.pid, by: keeper.pid, stands_still })
}

/// Those of the processes for which there is a `hold`, with that.
fn keepers(proc: &Proc, processes: &[ProcessId]) -> Result<Vec<(ProcessId, ProcessId)>, Failure> {
    let kept_by = |keeper: u32| {
        let arguments = proc.arguments(keeper).ok()?;
        let process = processes.iter().find(|process| is_keeper(&arguments, &own_names(proc, **process), process.start_time))?;
        Some((*process, ProcessId { pid: keeper, start_time: proc.stat(keeper).ok()?.start_time }))
    };
    Ok(proc.pids()?.into_iter().filter_map(kept_by).collect())
}

/// What a process is called here and in its own pod, where its debugger may be.
fn own_names(proc: &Proc, process: ProcessId) -> Vec<u32> {
    let mut names = proc.status(process.pid).map(|status| status.namespace_pids).unwrap_or_default();
    names.push(process.pid);
    names
}

/// Looks at a process that is traced, until it is known what it does. Pure.
struct Watch {
    begun: Instant,
    /// Whether it stood still at the last look, and since when it did that or ran.
    last: Option<(bool, Instant)>,
}

impl Watch {
    fn new(begun: Instant) -> Self {
        Self { begun, last: None }
    }

    /// Takes a look; answers whether it runs, once that is known.
    fn look(&mut self, stands_still: bool, now: Instant) -> Option<bool> {
        let since = match self.last {
            Some((before, since)) if before == stands_still => since,
            _ => now,
        };
        self.last = Some((stands_still, since));
        let needed = if stands_still { MOMENT } else { STEADY };
        if now - since > needed {
            return Some(!stands_still);
        }
        // It comes and goes, as at a breakpoint with a condition, which nobody stands at.
        (now - self.begun > UNSTEADY).then_some(true)
    }
}

/// Has a debugger let go, unless it is one that can't be asked, which the kernel will
/// tell. Who does not end a halt has made sure before that there is none.
pub(super) fn make_way(proc: &Proc, process: ProcessId, halt: Halt) -> Result<(), Failure> {
    let signal = match halt {
        Halt::Stays => MAKE_WAY,
        Halt::Ends => MAKE_WAY_AT_ONCE,
    };
    let started = Instant::now();
    let mut asked: Option<Instant> = None;
    while proc.status(process.pid)?.tracer != 0 {
        if asked.is_none_or(|asked| asked.elapsed() > MOMENT) {
            if asked.is_some() && halt == Halt::Stays {
                // It came upon a breakpoint in the last moment.
                require_running(proc, process)?;
            }
            let Some(keeper) = keeper(proc, process) else { return Ok(()) };
            // Again: it doesn't listen while the process stands still, be it for the moment
            // of a step. It may be gone by now, as it should.
            let _ = signal::send_signal(proc, keeper, signal as i32);
            asked = Some(Instant::now());
        }
        if started.elapsed() > PATIENCE {
            return Ok(());
        }
        sleep(NAP);
    }
    Ok(())
}

/// The `hold` that started the process's tracer.
fn keeper(proc: &Proc, process: ProcessId) -> Option<ProcessId> {
    let tracer = proc.status(process.pid).ok()?.tracer;
    let start_time = proc.stat(tracer).ok()?.start_time;
    let keeper = proc.parent(ProcessId { pid: tracer, start_time })?;
    is_keeper(&proc.arguments(keeper.pid).ok()?, &own_names(proc, process), process.start_time).then_some(keeper)
}

/// Whether these are the arguments of a `hold` for a process that has one of these
/// numbers and started then: `devloop-agent hold SOCKET PID START …`.
fn is_keeper(arguments: &[Vec<u8>], pids: &[u32], start_time: u64) -> bool {
    let word = |index: usize| arguments.get(index).and_then(|word| std::str::from_utf8(word).ok());
    let is_named = |word: &str| word.parse().is_ok_and(|pid| pids.contains(&pid));
    word(1) == Some("hold") && word(3).is_some_and(is_named) && word(4) == Some(start_time.to_string().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_keeper_of_its_debugger_is_asked() {
        let words = |text: &str| text.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        let hold = words("/x/devloop-agent hold /x/12.sock 12 345 delve /x/dlv");
        assert!(is_keeper(&hold, &[12], 345) && is_keeper(&hold, &[4012, 12], 345));
        assert!(!is_keeper(&hold, &[13], 345) && !is_keeper(&hold, &[12], 346));
        assert!(!is_keeper(&words("/x/devloop-agent connect /x/12.sock 12 345"), &[12], 345) && !is_keeper(&words("bash"), &[12], 345));
    }

    #[test]
    fn who_steps_through_a_process_is_not_taken_for_one_that_lets_it_run() {
        let begun = Instant::now();
        // Looks, a millisecond apart, at what stands still where this says so.
        let looks = |stands_still: &dyn Fn(u64) -> bool| {
            let mut watch = Watch::new(begun);
            let mut look = |at: u64| Some((watch.look(stands_still(at), begun + Duration::from_millis(at))?, at));
            (0..10_000).find_map(&mut look).unwrap()
        };
        assert_eq!(looks(&|_| false), (true, 501));
        assert_eq!(looks(&|_| true), (false, 201));
        assert_eq!(looks(&|at| !(100..300).contains(&at)), (false, 501), "a step");
        assert_eq!(looks(&|at| at < 100), (true, 601), "a moment of the debugger's own");
        assert_eq!(looks(&|at| at % 100 < 50), (true, 5001), "it comes and goes");
    }

    #[test]
    fn a_process_without_a_debugger_needs_nobody_asked() {
        let proc = Proc::system();
        let pid = std::process::id();
        let own = ProcessId { pid, start_time: proc.stat(pid).unwrap().start_time };
        require_running(&proc, own).unwrap();
        make_way(&proc, own, Halt::Stays).unwrap();
        make_way(&proc, own, Halt::Ends).unwrap();
    }
}
