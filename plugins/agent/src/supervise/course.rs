//! What the supervisor does when something happens: pure.

use std::time::Duration;

use nix::libc;

/// A program that ends this soon after a restart that was asked for is taken for
/// a new version that doesn't work.
pub(super) const PROBATION: Duration = Duration::from_secs(2);

/// Ended by a signal, in the shell's way to say it.
const BY_SIGNAL: i32 = 128;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A restart was asked for.
    Restart,
    /// A signal came that is meant for the program.
    Signal {
        number: i32,
        /// The terminal's, which the program was sent by the kernel as well.
        shared: bool,
    },
    /// The program runs.
    Started,
    /// It could not be started.
    NotStarted(u8),
    /// The program ended.
    Ended(Ending),
    /// The time that was waited for has come.
    Due,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Exited(i32),
    Killed(i32),
}

impl Ending {
    /// What a shell would say.
    fn code(self) -> u8 {
        let code = match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => BY_SIGNAL + signal,
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(formatter, "with status {code}"),
            Self::Killed(signal) => write!(formatter, "by signal {signal}"),
        }
    }
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// Send it on to the program.
    Forward(i32),
    /// Send SIGKILL to the program, which had its time.
    Kill,
    /// End all that the last one left, then start the program.
    Start,
    /// Say that the program ended too soon; go on without one.
    Mourn(Ending),
    /// End with this status.
    Exit(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before the program is started, for the first time or again.
    Starting { again: bool },
    Running {
        /// Until then, its end is a failed restart.
        probation: Option<Duration>,
        /// Somebody wants it to end: then that it does is right.
        told: bool,
    },
    /// It was told to end, so that it can be started again.
    Stopping {
        /// When it is killed; nothing once it was.
        deadline: Option<Duration>,
        /// The one who ends the container came in between.
        told: bool,
    },
    /// Without a program, until the next restart.
    Waiting,
}

/// Where a supervisor is. Times are since its start.
#[derive(Clone, Debug)]
pub(super) struct Course {
    grace: Duration,
    phase: Phase,
}

impl Course {
    /// Before the first start.
    pub(super) fn new(grace: Duration) -> Self {
        Self { grace, phase: Phase::Starting { again: false } }
    }

    /// When [`Event::Due`] is to come.
    pub(super) fn due(&self) -> Option<Duration> {
        match self.phase {
            Phase::Stopping { deadline, .. } => deadline,
            _ => None,
        }
    }

    /// Takes in what happened at `now`.
    pub(super) fn next(&mut self, event: Event, now: Duration) -> Action {
        let (phase, action) = self.decide(event, now);
        self.phase = phase;
        action
    }

    fn decide(&self, event: Event, now: Duration) -> (Phase, Action) {
        let phase = self.phase;
        match (phase, event) {
            (Phase::Starting { again }, Event::Started) => {
                (Phase::Running { probation: again.then_some(now.saturating_add(PROBATION)), told: false }, Action::Nothing)
            }
            // That it is missing or no program can be put right, as any failed
            // restart can.
            (Phase::Starting { again: true }, Event::NotStarted(_)) => (Phase::Waiting, Action::Nothing),
            (Phase::Starting { again: false }, Event::NotStarted(code)) => (phase, Action::Exit(code)),

            (Phase::Running { told, .. }, Event::Restart) => {
                (Phase::Stopping { deadline: Some(now.saturating_add(self.grace)), told }, Action::Forward(libc::SIGTERM))
            }
            (Phase::Running { probation, told }, Event::Signal { number, shared }) => {
                (Phase::Running { probation, told: told || ends(number) }, forward(number, shared))
            }
            (Phase::Running { probation: Some(until), told: false }, Event::Ended(ending)) if now < until => {
                (Phase::Waiting, Action::Mourn(ending))
            }
            (Phase::Running { .. }, Event::Ended(ending)) => (phase, Action::Exit(ending.code())),

            (Phase::Stopping { deadline, told }, Event::Signal { number, shared }) => {
                (Phase::Stopping { deadline, told: told || ends(number) }, forward(number, shared))
            }
            (Phase::Stopping { told, .. }, Event::Due) => (Phase::Stopping { deadline: None, told }, Action::Kill),
            (Phase::Stopping { told: true, .. }, Event::Ended(ending)) => (phase, Action::Exit(ending.code())),
            (Phase::Stopping { told: false, .. }, Event::Ended(_)) => (Phase::Starting { again: true }, Action::Start),

            (Phase::Waiting, Event::Restart) => (Phase::Starting { again: true }, Action::Start),
            (Phase::Waiting, Event::Signal { number, .. }) if ends(number) => {
                (phase, Action::Exit(u8::try_from(BY_SIGNAL + number).unwrap_or(u8::MAX)))
            }

            // One that is on its way covers a further restart; the rest can't be.
            _ => (phase, Action::Nothing),
        }
    }
}

fn forward(number: i32, shared: bool) -> Action {
    if shared { Action::Nothing } else { Action::Forward(number) }
}

/// Whether a signal is how a container's program is told to end.
fn ends(number: i32) -> bool {
    matches!(number, libc::SIGTERM | libc::SIGINT | libc::SIGQUIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRACE: Duration = Duration::from_secs(10);
    const CRASHED: Event = Event::Ended(Ending::Exited(101));

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn signal(number: i32) -> Event {
        Event::Signal { number, shared: false }
    }

    /// One that runs, by a restart that was asked for if `again`.
    fn running(again: bool) -> Course {
        let mut course = Course::new(GRACE);
        assert_eq!(course.next(Event::Started, at(0)), Action::Nothing);
        if again {
            assert_eq!(course.next(Event::Restart, at(0)), Action::Forward(libc::SIGTERM));
            assert_eq!(course.next(Event::Ended(Ending::Killed(15)), at(0)), Action::Start);
            assert_eq!(course.next(Event::Started, at(0)), Action::Nothing);
        }
        course
    }

    #[test]
    fn the_end_of_the_program_is_the_end() {
        assert_eq!(running(false).next(Event::Ended(Ending::Exited(0)), at(0)), Action::Exit(0));
        assert_eq!(running(false).next(Event::Ended(Ending::Exited(3)), at(0)), Action::Exit(3));
        assert_eq!(running(false).next(Event::Ended(Ending::Killed(11)), at(0)), Action::Exit(139));
        assert_eq!(Course::new(GRACE).next(Event::NotStarted(127), at(0)), Action::Exit(127));
    }

    #[test]
    fn soon_after_a_restart_it_is_not() {
        let mut course = running(true);
        assert_eq!(course.next(CRASHED, at(1)), Action::Mourn(Ending::Exited(101)));
        assert_eq!(course.next(signal(libc::SIGHUP), at(5)), Action::Nothing, "nobody is there to get it");
        assert_eq!(course.next(Event::Restart, at(60)), Action::Start);
        assert_eq!(course.next(Event::NotStarted(126), at(60)), Action::Nothing);
        assert_eq!(course.next(signal(libc::SIGTERM), at(61)), Action::Exit(143));
        // Two seconds after it is the program's own end again.
        assert_eq!(running(true).next(CRASHED, at(2)), Action::Exit(101));
    }

    #[test]
    fn one_that_was_told_to_end_did_not_crash() {
        let mut course = running(true);
        assert_eq!(course.next(signal(libc::SIGTERM), at(0)), Action::Forward(libc::SIGTERM));
        assert_eq!(course.next(Event::Ended(Ending::Exited(0)), at(1)), Action::Exit(0));
        let mut course = running(false);
        course.next(Event::Restart, at(0));
        assert_eq!(course.next(signal(libc::SIGINT), at(0)), Action::Forward(libc::SIGINT));
        assert_eq!(course.next(Event::Ended(Ending::Killed(2)), at(1)), Action::Exit(130), "no restart in a pod that is being deleted");
    }

    #[test]
    fn the_grace_is_waited_for_once() {
        let mut course = running(false);
        assert_eq!(course.due(), None);
        course.next(Event::Restart, at(5));
        assert_eq!(course.due(), Some(at(15)));
        assert_eq!(course.next(Event::Restart, at(6)), Action::Nothing, "the one on its way covers it");
        assert_eq!(course.due(), Some(at(15)));
        assert_eq!(course.next(Event::Due, at(15)), Action::Kill);
        assert_eq!(course.due(), None);
        assert_eq!(course.next(Event::Ended(Ending::Killed(9)), at(15)), Action::Start);
    }

    #[test]
    fn what_the_terminal_sends_to_both_is_not_sent_twice() {
        let mut course = running(false);
        assert_eq!(course.next(Event::Signal { number: libc::SIGINT, shared: true }, at(0)), Action::Nothing);
        assert_eq!(course.next(signal(libc::SIGUSR1), at(0)), Action::Forward(libc::SIGUSR1));
    }

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Restart),
            (1..64i32, any::<bool>()).prop_map(|(number, shared)| Event::Signal { number, shared }),
            Just(Event::Started),
            any::<u8>().prop_map(Event::NotStarted),
            any::<i32>().prop_map(|code| Event::Ended(Ending::Exited(code))),
            (1..64i32).prop_map(|signal| Event::Ended(Ending::Killed(signal))),
            Just(Event::Due),
        ]
    }

    proptest! {
        /// With only what can happen: a program that runs once, at most, and is
        /// sent signals only while it does.
        #[test]
        fn a_program_that_is_sent_something_is_there(steps in prop::collection::vec((events(), 0..5_000u64), 0..64)) {
            let mut course = Course::new(GRACE);
            let (mut runs, mut starting, mut now) = (false, true, Duration::ZERO);
            for (event, milliseconds) in steps {
                now += Duration::from_millis(milliseconds);
                let possible = match event {
                    Event::Started | Event::NotStarted(_) => starting,
                    Event::Ended(_) => runs,
                    Event::Due => course.due().is_some_and(|due| due <= now),
                    Event::Restart | Event::Signal { .. } => !starting,
                };
                if !possible {
                    continue;
                }
                match event {
                    Event::Started => (runs, starting) = (true, false),
                    Event::NotStarted(_) => starting = false,
                    Event::Ended(_) => runs = false,
                    _ => {}
                }
                match course.next(event, now) {
                    Action::Forward(_) | Action::Kill => prop_assert!(runs),
                    Action::Start => {
                        prop_assert!(!runs);
                        starting = true;
                    }
                    Action::Mourn(_) => prop_assert!(!runs),
                    Action::Exit(_) => {
                        prop_assert!(!runs);
                        break;
                    }
                    Action::Nothing => {}
                }
                // Due at once is due only once.
                prop_assert!(runs || course.due().is_none());
            }
        }
    }
}
