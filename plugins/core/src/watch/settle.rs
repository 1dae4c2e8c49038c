//! When a burst of file events is over. Pure: time comes in as a value.
//!
//! A single save is let through at once. What follows quickly widens the window
//! up to [`Tuning::quiet_max`] of silence, and nothing that is complete waits
//! longer than [`Tuning::hold`], unless git is rewriting the work tree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What one event says about one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It was created or written to, and may be written to again.
    Writing,
    /// Its writer closed it, or it was moved here: it is whole.
    Whole,
    /// It was found without an event that tells its state, after one at the
    /// given time that made somebody look.
    Found(Instant),
    /// It was removed or moved away.
    Gone,
}

/// The durations that decide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    /// A new or vanished path may be half of an atomic save: so long it is
    /// waited for the other half.
    pub(super) unsure: Duration,
    /// A file that is written to and not closed counts as whole after this.
    pub(super) idle_writer: Duration,
    /// Events further apart than this belong to different saves.
    pub(super) calm: Duration,
    /// Silence asked for by the first widening; doubles with each. No less than
    /// `unsure`: after it all that is not being written to is due, together.
    pub(super) quiet_min: Duration,
    /// Silence asked for at most.
    pub(super) quiet_max: Duration,
    /// So many changes in a row are one doing (a build, a checkout)...
    pub(super) many: u32,
    /// ...that a pause as long as this does not end: a busy machine makes such.
    pub(super) pause: Duration,
    /// What no path waits longer than.
    pub(super) hold: Duration,
    /// How often the lock is looked at.
    pub(super) lock_poll: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            unsure: Duration::from_millis(15),
            idle_writer: Duration::from_millis(100),
            calm: Duration::from_millis(20),
            quiet_min: Duration::from_millis(15),
            quiet_max: Duration::from_millis(50),
            many: 16,
            pause: Duration::from_millis(250),
            hold: Duration::from_millis(500),
            lock_poll: Duration::from_millis(10),
        }
    }
}

/// Paths whose changes are over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// The paths, in order.
    pub(super) paths: Vec<PathBuf>,
    /// When the first event about any of them came.
    pub(super) first_event: Instant,
}

/// How closely changes follow each other, of late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pace {
    /// When the last event came that ended a change. A log file that is
    /// written to all the time ends none, and delays no other file.
    last_ending: Option<Instant>,
    /// The silence asked for since.
    quiet: Duration,
    /// How many changes ended in a row.
    endings: u32,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    first: Instant,
    due: Instant,
    /// The pace before and after the last ending of this path.
    paces: Option<(Pace, Pace)>,
}

/// The state between events and generations.
#[derive(Debug, Default)]
pub(super) struct Settling {
    tuning: Tuning,
    pending: BTreeMap<PathBuf, Pending>,
    pace: Pace,
    /// Nothing that waits came, or is due, before these. They may be too early
    /// when a path was seen again or dropped; the next poll makes them exact.
    /// So an event costs the same however many paths wait.
    oldest: Option<Instant>,
    earliest: Option<Instant>,
    /// When the lock is to be looked at again.
    unlocked: Option<Instant>,
}

impl Settling {
    /// Takes in one event. `known` tells whether the path was there when it was
    /// last reported (or at the start).
    pub(super) fn observe(&mut self, now: Instant, path: &Path, sign: Sign, known: bool) {
        let before = self.pending.get(path).copied();
        let mut paces = before.and_then(|pending| pending.paces);
        if sign != Sign::Writing {
            // The steps of one save (write a temporary file, move it; move the
            // old file away, write anew) count once.
            if let Some((earlier, own)) = paces
                && own == self.pace
            {
                self.pace = earlier;
            }
            if sign == Sign::Gone && !known {
                // Came and went within one window: nothing happened.
                self.pending.remove(path);
                return;
            }
            let earlier = self.pace;
            self.pace = self.tuning.widen(self.pace, now);
            paces = Some((earlier, self.pace));
        }
        let due = now
            + match sign {
                Sign::Writing => self.tuning.idle_writer,
                Sign::Whole if known => Duration::ZERO,
                Sign::Whole | Sign::Found(_) | Sign::Gone => self.tuning.unsure,
            };
        let since = if let Sign::Found(since) = sign { since } else { now };
        let pending = Pending { first: before.map_or(since, |pending| pending.first), due, paces };
        self.oldest = Some(self.oldest.map_or(pending.first, |oldest| oldest.min(pending.first)));
        let due = self.due(&pending);
        self.earliest = Some(self.earliest.map_or(due, |earliest| earliest.min(due)));
        self.pending.insert(path.to_owned(), pending);
    }

    /// Whether something about this path waits.
    pub(super) fn is_pending(&self, path: &Path) -> bool {
        self.pending.contains_key(path)
    }

    /// When [`Settling::poll`] is worth calling next; `None` while nothing waits.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let settled = self.earliest?.max(self.silence()?);
        Some(self.unlocked.map_or(settled, |unlocked| settled.max(unlocked)))
    }

    /// Takes out what has settled by `now`. `locked` tells whether git is
    /// rewriting the work tree.
    pub(super) fn poll(&mut self, now: Instant, locked: bool) -> Option<Settled> {
        self.unlocked = locked.then(|| now + self.tuning.lock_poll);
        if locked {
            return None;
        }
        self.oldest = self.pending.values().map(|pending| pending.first).min();
        let settled = if self.silence()? > now { None } else { self.take_due(now) };
        self.oldest = self.pending.values().map(|pending| pending.first).min();
        self.earliest = self.pending.values().map(|pending| self.due(pending)).min();
        settled
    }

    fn take_due(&mut self, now: Instant) -> Option<Settled> {
        let paths: Vec<PathBuf> =
            self.pending.iter().filter(|(_, pending)| self.due(pending) <= now).map(|(path, _)| path.clone()).collect();
        let first_event = paths.iter().filter_map(|path| self.pending.remove(path)).map(|pending| pending.first).min()?;
        Some(Settled { paths, first_event })
    }

    /// When it has been silent for long enough, or the oldest path has waited
    /// for long enough: then all that is whole goes out together.
    fn silence(&self) -> Option<Instant> {
        let oldest = self.oldest?;
        let patience = oldest + self.tuning.hold;
        Some(self.pace.last_ending.map_or(oldest, |last| last + self.pace.quiet).min(patience))
    }

    fn due(&self, pending: &Pending) -> Instant {
        pending.due.min(pending.first + self.tuning.hold)
    }
}

impl Tuning {
    fn widen(&self, pace: Pace, now: Instant) -> Pace {
        let next = |quiet| Pace { last_ending: Some(now), quiet, endings: pace.endings.saturating_add(1) };
        let Some(gap) = pace.last_ending.map(|last| now.saturating_duration_since(last)) else {
            return next(Duration::ZERO);
        };
        let doubled = (pace.quiet * 2).clamp(self.quiet_min, self.quiet_max);
        if gap < pace.quiet {
            next(pace.quiet)
        } else if pace.endings >= self.many && gap < self.pause {
            next(gap.clamp(doubled, self.quiet_max))
        } else if gap < self.calm.max(pace.quiet * 2) {
            next(doubled)
        } else {
            Pace { last_ending: Some(now), quiet: Duration::ZERO, endings: 1 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn paths(settled: &Settled) -> Vec<&str> {
        settled.paths.iter().filter_map(|path| path.to_str()).collect()
    }

    #[test]
    fn a_single_save_is_let_through_at_once() {
        let (mut settling, start) = (Settling::default(), Instant::now());
        settling.observe(start, Path::new("a"), Sign::Writing, true);
        assert_eq!(settling.poll(start + ms(1), false), None, "its writer has not closed it");
        settling.observe(start + ms(2), Path::new("a"), Sign::Whole, true);
        let settled = settling.poll(start + ms(2), false).unwrap();
        assert_eq!(paths(&settled), ["a"]);
        assert_eq!(settled.first_event, start);
        assert_eq!(settling.deadline(), None);
    }

    #[test]
    fn a_rename_over_yields_the_real_path_alone() {
        let (mut settling, start) = (Settling::default(), Instant::now());
        settling.observe(start, Path::new("tmp"), Sign::Writing, false);
        settling.observe(start, Path::new("tmp"), Sign::Whole, false);
        assert_eq!(settling.poll(start, false), None);
        settling.observe(start + ms(1), Path::new("tmp"), Sign::Gone, false);
        settling.observe(start + ms(1), Path::new("a"), Sign::Whole, true);
        assert_eq!(paths(&settling.poll(start + ms(1), false).unwrap()), ["a"], "at once");
        assert_eq!(settling.deadline(), None);
    }

    #[test]
    fn a_save_that_moves_the_old_file_away_first_is_one_change() {
        let (mut settling, start) = (Settling::default(), Instant::now());
        settling.observe(start, Path::new("a"), Sign::Gone, true);
        settling.observe(start + ms(1), Path::new("a"), Sign::Writing, true);
        assert_eq!(settling.poll(start + ms(9), false), None, "still being written");
        settling.observe(start + ms(9), Path::new("a"), Sign::Whole, true);
        assert_eq!(paths(&settling.poll(start + ms(9), false).unwrap()), ["a"]);
    }

    #[test]
    fn saves_one_after_the_other_all_lead() {
        let (mut settling, start) = (Settling::default(), Instant::now());
        for number in 0..20 {
            let now = start + ms(25) * number;
            settling.observe(now, Path::new("a"), Sign::Whole, true);
            assert!(settling.poll(now, false).is_some(), "save {number}");
        }
    }

    #[test]
    fn a_burst_becomes_two_generations() {
        let (mut settling, start) = (Settling::default(), Instant::now());
        let mut generations = Vec::new();
        for number in 0..200_u64 {
            let now = start + Duration::from_micros(500) * u32::try_from(number).unwrap();
            settling.observe(now, Path::new(&format!("f{number:03}")), Sign::Whole, true);
            generations.extend(settling.poll(now, false));
        }
        let end = settling.deadline().unwrap();
        generations.extend(settling.poll(end, false));
        assert_eq!(generations.iter().map(|settled| settled.paths.len()).collect::<Vec<_>>(), [1, 199]);
        assert!(end <= start + ms(200));
    }

    #[test]
    fn new_files_go_out_together_though_the_machine_stalls() {
        let (mut settling, start) = (Settling::default(), Instant::now());
        let (mut now, mut generations) = (start, Vec::new());
        for number in 0..600_u64 {
            // Twelve stalls, each longer than what was calm before.
            let stall = if number % 50 == 49 { ms(30) } else { Duration::from_micros(100) };
            let path = format!("f{number:03}");
            settling.observe(now, Path::new(&path), Sign::Found(now), false);
            settling.observe(now, Path::new(&path), Sign::Whole, false);
            let next = now + stall;
            while let Some(deadline) = settling.deadline().filter(|deadline| *deadline < next) {
                now = deadline.max(now);
                generations.extend(settling.poll(now, false));
            }
            now = next;
        }
        while let Some(deadline) = settling.deadline() {
            now = deadline.max(now);
            generations.extend(settling.poll(now, false));
        }
        assert_eq!(generations.iter().map(|settled| settled.paths.len()).sum::<usize>(), 600);
        assert!(generations.len() <= 3, "{:?}", generations.iter().map(|settled| settled.paths.len()).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_written_all_the_time_delays_no_other() {
        let (mut settling, start) = (Settling::default(), Instant::now());
        for number in 0..50 {
            settling.observe(start + ms(number), Path::new("log"), Sign::Writing, true);
        }
        settling.observe(start + ms(50), Path::new("a"), Sign::Whole, true);
        assert_eq!(paths(&settling.poll(start + ms(50), false).unwrap()), ["a"]);
    }

    #[test]
    fn git_holds_everything_back_until_it_is_done() {
        let (mut settling, start) = (Settling::default(), Instant::now());
        settling.observe(start, Path::new("a"), Sign::Whole, true);
        assert_eq!(settling.poll(start, true), None);
        assert_eq!(settling.deadline(), Some(start + ms(10)));
        assert_eq!(settling.poll(start + ms(9_000), true), None);
        assert!(settling.poll(start + ms(9_010), false).is_some());
    }

    #[derive(Clone, Debug)]
    enum Operation {
        Write(u8),
        Close(u8),
        Remove(u8),
        Move(u8, u8),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![
            3 => (0..6_u8).prop_map(Operation::Write),
            3 => (0..6_u8).prop_map(Operation::Close),
            2 => (0..6_u8).prop_map(Operation::Remove),
            2 => (0..6_u8, 0..6_u8).prop_map(|(from, to)| Operation::Move(from, to)),
        ]
    }

    /// A disk of six numbered files whose content is a counter, the copy that
    /// generations keep of it, and the checks that hold at any time.
    struct Model {
        settling: Settling,
        disk: BTreeMap<u8, u64>,
        copy: BTreeMap<u8, u64>,
        waiting: BTreeMap<u8, Instant>,
        counter: u64,
    }

    impl Model {
        fn event(&mut self, now: Instant, file: u8, sign: Sign) {
            self.settling.observe(now, Path::new(&file.to_string()), sign, self.copy.contains_key(&file));
            self.waiting.entry(file).or_insert(now);
        }

        fn apply(&mut self, now: Instant, operation: &Operation) {
            self.counter += 1;
            match *operation {
                Operation::Write(file) => {
                    self.disk.insert(file, self.counter);
                    self.event(now, file, Sign::Writing);
                }
                Operation::Close(file) => {
                    if self.disk.contains_key(&file) {
                        self.event(now, file, Sign::Whole);
                    }
                }
                Operation::Remove(file) => {
                    if self.disk.remove(&file).is_some() {
                        self.event(now, file, Sign::Gone);
                    }
                }
                Operation::Move(from, to) => {
                    if from != to
                        && let Some(content) = self.disk.remove(&from)
                    {
                        self.disk.insert(to, content);
                        self.event(now, from, Sign::Gone);
                        self.event(now, to, Sign::Whole);
                    }
                }
            }
        }

        fn poll(&mut self, now: Instant, locked: bool) {
            let Some(settled) = self.settling.poll(now, locked) else { return };
            assert!(!locked, "nothing is let through while git works");
            let unique: BTreeSet<&PathBuf> = settled.paths.iter().collect();
            assert_eq!(unique.len(), settled.paths.len(), "a path comes once");
            for file in paths(&settled).iter().map(|path| path.parse::<u8>().unwrap()) {
                self.waiting.remove(&file);
                match self.disk.get(&file) {
                    Some(content) => self.copy.insert(file, *content),
                    None => self.copy.remove(&file),
                };
            }
        }
    }

    proptest! {
        #[test]
        fn the_copy_becomes_the_disk_and_nothing_waits_too_long(
            steps in proptest::collection::vec((0..60_u64, operation()), 1..80),
            lock in proptest::option::of((0..1_500_u64, 0..800_u64)),
        ) {
            let start = Instant::now();
            let mut model = Model { settling: Settling::default(), disk: (0..3).map(|file| (file, 0)).collect(),
                copy: (0..3).map(|file| (file, 0)).collect(), waiting: BTreeMap::new(), counter: 0 };
            let locked_at = |now: Instant| lock.is_some_and(|(from, length)| {
                let at = now.saturating_duration_since(start);
                at >= ms(from) && at < ms(from + length)
            });
            let mut now = start;
            let mut steps = steps.into_iter().map(|(wait, operation)| (ms(wait), operation)).collect::<std::collections::VecDeque<_>>();
            loop {
                let next_step = steps.front().map(|(wait, _)| now + *wait);
                let deadline = model.settling.deadline().map(|deadline| deadline.max(now));
                match (next_step, deadline) {
                    (Some(step), Some(deadline)) if deadline < step => {
                        steps.front_mut().unwrap().0 = step - deadline;
                        now = deadline;
                    }
                    (Some(step), _) => {
                        now = step;
                        let (_, operation) = steps.pop_front().unwrap();
                        model.apply(now, &operation);
                    }
                    (None, Some(deadline)) => now = deadline,
                    (None, None) => break,
                }
                model.poll(now, locked_at(now));
                if lock.is_none() {
                    for (file, since) in &model.waiting {
                        // A path that came and went is forgotten, not waited for.
                        let forgotten = !model.disk.contains_key(file) && !model.copy.contains_key(file);
                        prop_assert!(forgotten || now <= *since + ms(600), "{file} waits for {:?}", now - *since);
                    }
                }
                model.waiting.retain(|file, _| model.disk.contains_key(file) || model.copy.contains_key(file));
            }
            prop_assert_eq!(model.copy, model.disk);
        }
    }
}
