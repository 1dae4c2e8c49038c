//! The order of lines of many readers. Pure: times are arguments.
//!
//! While a lane delivers its history, nothing later than its last line leaves: what
//! was there at the beginning is merged exactly. Afterwards a line waits for a
//! moment, the window, for older ones of other readers.

use super::queue::LaneId;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// In nanoseconds since 1970.
type Time = i64;

/// Puts things of many lanes in order.
#[derive(Debug)]
pub(super) struct Merge<T> {
    window: Duration,
    waiting: BinaryHeap<Reverse<Entry<T>>>,
    /// When what came may leave, in the order of arrival.
    due: VecDeque<(Instant, Time)>,
    /// All up to here may leave.
    mark: Time,
    arrived: u64,
    /// Lanes with history, by the last line that came.
    history: BTreeSet<(Time, LaneId)>,
    progress: HashMap<LaneId, Time>,
    /// The last of what came meanwhile.
    latest: Time,
}

#[derive(Debug)]
struct Entry<T> {
    time: Time,
    number: u64,
    thing: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time, self.number).cmp(&(other.time, other.number))
    }
}

impl<T> Merge<T> {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            window,
            waiting: BinaryHeap::new(),
            due: VecDeque::new(),
            mark: Time::MIN,
            arrived: 0,
            history: BTreeSet::new(),
            progress: HashMap::new(),
            latest: Time::MIN,
        }
    }

    /// A lane whose history is about to come.
    pub(super) fn expect(&mut self, lane: LaneId) {
        self.history.insert((Time::MIN, lane));
        self.progress.insert(lane, Time::MIN);
    }

    /// A lane's history came.
    pub(super) fn caught_up(&mut self, lane: LaneId, now: Instant) {
        let Some(time) = self.progress.remove(&lane) else { return };
        self.history.remove(&(time, lane));
        if self.history.is_empty() {
            self.due.push_back((now, std::mem::replace(&mut self.latest, Time::MIN)));
        }
    }

    /// Takes a thing of this time. A lane's own things have to have times that
    /// don't go back, as far as their order is to be kept.
    pub(super) fn push(&mut self, lane: LaneId, time: Time, thing: T, now: Instant) {
        if let Some(last) = self.progress.get_mut(&lane)
            && *last < time
        {
            self.history.remove(&(*last, lane));
            self.history.insert((time, lane));
            *last = time;
        }
        self.arrived += 1;
        self.waiting.push(Reverse(Entry { time, number: self.arrived, thing }));
        if self.history.is_empty() {
            self.due.push_back((now + self.window, time));
        } else {
            self.latest = self.latest.max(time);
        }
    }

    /// Lets everything up to this time leave, unless history is still to come.
    pub(super) fn release(&mut self, time: Time) {
        self.mark = self.mark.max(time);
    }

    /// The next thing that may leave.
    pub(super) fn pop(&mut self, now: Instant) -> Option<T> {
        let limit = match self.history.first() {
            Some((time, _)) => *time,
            None => {
                while self.due.front().is_some_and(|(due, _)| *due <= now) {
                    let (_, time) = self.due.pop_front()?;
                    self.mark = self.mark.max(time);
                }
                self.mark
            }
        };
        if self.waiting.peek()?.0.time > limit {
            return None;
        }
        let thing = self.waiting.pop().map(|Reverse(entry)| entry.thing);
        if self.waiting.is_empty() {
            self.due.clear();
            self.mark = Time::MIN;
        }
        thing
    }

    /// When something may leave, if nothing comes before.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if !self.history.is_empty() || self.waiting.is_empty() {
            return None;
        }
        self.due.front().map(|(due, _)| *due)
    }

    /// All that is left, in order.
    pub(super) fn drain(&mut self) -> Vec<T> {
        let mut left = Vec::with_capacity(self.waiting.len());
        while let Some(Reverse(entry)) = self.waiting.pop() {
            left.push(entry.thing);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(merge: &mut Merge<(LaneId, Time)>, now: Instant) -> Vec<(LaneId, Time)> {
        std::iter::from_fn(|| merge.pop(now)).collect()
    }

    #[test]
    fn a_line_waits_for_older_ones_for_the_window_and_no_longer() {
        let (start, window) = (Instant::now(), Duration::from_millis(150));
        let mut merge = Merge::new(window);
        merge.push(0, 20, (0, 20), start);
        merge.push(1, 10, (1, 10), start + window / 3);
        merge.push(1, 40, (1, 40), start + window / 3);
        assert_eq!((all(&mut merge, start + window / 2), merge.next_due()), (vec![], Some(start + window)));
        assert_eq!(all(&mut merge, start + window), [(1, 10), (0, 20)]);
        // Too late to be in order, and so at once.
        merge.push(0, 15, (0, 15), start + window);
        assert_eq!(all(&mut merge, start + window), [(0, 15)]);
        merge.push(0, 50, (0, 50), start + window);
        merge.release(50);
        assert_eq!(all(&mut merge, start + window), [(1, 40), (0, 50)]);
        assert_eq!(merge.next_due(), None);
    }

    proptest! {
        #[test]
        fn history_is_merged_exactly(lanes in prop::collection::vec(prop::collection::vec(0..1000_i64, 0..30), 1..6), picks in prop::collection::vec(any::<prop::sample::Index>(), 0..200)) {
            let now = Instant::now();
            let mut merge = Merge::new(Duration::from_millis(150));
            let mut lanes: Vec<VecDeque<Time>> = lanes.into_iter().map(|mut lane| { lane.sort_unstable(); lane.into() }).collect();
            let mut expected: Vec<Time> = lanes.iter().flatten().copied().collect();
            expected.sort_unstable();
            for lane in 0..lanes.len() {
                merge.expect(lane as LaneId);
            }
            let mut merged = Vec::new();
            let mut picks = picks.into_iter();
            while !lanes.is_empty() && lanes.iter().any(|lane| !lane.is_empty()) {
                let filled: Vec<usize> = (0..lanes.len()).filter(|lane| !lanes[*lane].is_empty()).collect();
                let lane = picks.next().map_or(filled[0], |pick| filled[pick.index(filled.len())]);
                let time = lanes[lane].pop_front().unwrap();
                merge.push(lane as LaneId, time, (lane as LaneId, time), now + Duration::from_secs(1));
                if lanes[lane].is_empty() {
                    merge.caught_up(lane as LaneId, now);
                }
                // Those without a line at all hold nothing back.
                for (empty, _) in lanes.iter().enumerate().filter(|(_, lane)| lane.is_empty()) {
                    merge.caught_up(empty as LaneId, now);
                }
                merged.extend(all(&mut merge, now));
            }
            merged.extend(merge.drain());
            let times: Vec<Time> = merged.iter().map(|(_, time)| *time).collect();
            prop_assert_eq!(times, expected);
        }
    }
}
