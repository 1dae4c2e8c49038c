//! When folders that can't be watched are looked at. Pure: time comes in as a
//! value.
//!
//! A pass looks at each folder once, a slice at a time: a slice is short, so
//! that it delays no save, and the pauses between slices bound what polling
//! costs (about a tenth of one core at most).

use super::index::FolderId;
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// From the start of a pass to the start of the next, for few files.
const SHORTEST_PERIOD: Duration = Duration::from_millis(500);
/// The same for many. A pass over more than fifty thousand takes longer.
const LONGEST_PERIOD: Duration = Duration::from_secs(2);
/// What each entry adds to the period.
const PER_ENTRY: Duration = Duration::from_micros(30);
/// So many entries are looked at in one go, give or take a folder.
const SLICE: usize = 1_000;
/// How long it rests between two slices.
const PAUSE: Duration = Duration::from_millis(20);

/// Where the present pass is.
#[derive(Debug, Default)]
pub(super) struct Polling {
    /// Folders that this pass has not come to.
    waiting: VecDeque<FolderId>,
    started: Option<Instant>,
    entries: usize,
    next: Option<Instant>,
}

impl Polling {
    /// When to poll next, if there is anything to poll.
    pub(super) fn deadline(&self, now: Instant, is_needed: bool) -> Option<Instant> {
        is_needed.then(|| self.next.unwrap_or(now))
    }

    /// Whether a new pass begins, over these folders.
    pub(super) fn begin(&mut self, now: Instant, polled: &BTreeSet<FolderId>) -> bool {
        let begins = self.waiting.is_empty();
        if begins {
            self.waiting = polled.iter().copied().collect();
            self.started = Some(now);
            self.entries = 0;
        }
        begins
    }

    /// The next folder of a slice in which `seen` entries were looked at.
    pub(super) fn next_folder(&mut self, seen: usize) -> Option<FolderId> {
        if seen >= SLICE { None } else { self.waiting.pop_front() }
    }

    /// Ends a slice in which `seen` entries were looked at.
    pub(super) fn end(&mut self, now: Instant, seen: usize) {
        self.entries += seen;
        self.next = Some(if self.waiting.is_empty() {
            self.started.map_or(now, |started| started + period(self.entries)).max(now + PAUSE)
        } else {
            now + PAUSE
        });
    }

    /// Nothing has to be polled now.
    pub(super) fn rest(&mut self) {
        *self = Self::default();
    }
}

fn period(entries: usize) -> Duration {
    (SHORTEST_PERIOD + PER_ENTRY * u32::try_from(entries).unwrap_or(u32::MAX)).min(LONGEST_PERIOD)
}

#[cfg(test)]
mod tests {
    use super::super::index::Index;
    use super::*;
    use std::path::PathBuf;

    /// Runs passes over folders of so many entries each, in which an entry
    /// takes two microseconds: how often each folder was seen in a minute, and
    /// for how long in all.
    fn minute(folders: usize, entries: usize) -> (usize, Duration) {
        let mut index = Index::default();
        let polled: BTreeSet<FolderId> = (0..folders).map(|number| index.pin(&PathBuf::from(format!("/{number}")))).collect();
        let (mut polling, start) = (Polling::default(), Instant::now());
        let (mut now, mut visits, mut busy) = (start, 0, Duration::ZERO);
        while now < start + Duration::from_secs(60) {
            now = polling.deadline(now, true).unwrap();
            polling.begin(now, &polled);
            let mut seen = 0;
            while polling.next_folder(seen).is_some() {
                seen += entries;
                visits += 1;
            }
            let cost = Duration::from_micros(2) * u32::try_from(seen).unwrap();
            (now, busy) = (now + cost, busy + cost);
            polling.end(now, seen);
        }
        (visits / folders, busy)
    }

    #[test]
    fn few_files_are_looked_at_often_and_many_cost_little() {
        for (folders, entries, visits) in [(1, 10, 115..=121), (100, 25, 95..=111), (2_000, 25, 25..=32)] {
            assert!(visits.contains(&minute(folders, entries).0), "{folders} folders");
        }
        let (visits, busy) = minute(10_000, 25);
        assert!(visits >= 8 && busy <= Duration::from_secs(6), "{visits} {busy:?}");
    }

    #[test]
    fn nothing_to_poll_is_never_due() {
        let mut polling = Polling::default();
        let now = Instant::now();
        assert_eq!(polling.deadline(now, false), None);
        assert!(polling.begin(now, &BTreeSet::new()));
        polling.end(now, 0);
        assert_eq!(polling.deadline(now, true), Some(now + SHORTEST_PERIOD));
        polling.rest();
        assert_eq!(polling.deadline(now, false), None);
    }
}
