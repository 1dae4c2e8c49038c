//! The order of lines of many readers. Pure: times are arguments.
//!
//! While a lane delivers its history, nothing later than its last line leaves: what
//! was there at the beginning is merged exactly. Afterwards a line waits for a
//! moment, the window, for older ones of other readers.

use super::queue::LaneId;
use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// In nanoseconds since 1970.
type Time = i64;

/// What stays in the order in which it comes: of a lane, what is from one place.
pub(super) type QueueId = (LaneId, usize);

/// Puts things of many lanes in order.
#[derive(Debug)]
pub(super) struct Merge<T> {
    window: Duration,
    /// Those that have something.
    queues: HashMap<QueueId, VecDeque<Entry<T>>>,
    /// The first of each queue, by time; of equal ones that of the first lane, which
    /// is the same in each run, and then what came first.
    heads: BinaryHeap<Reverse<(Time, LaneId, u64, QueueId)>>,
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

impl<T> Merge<T> {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            window,
            queues: HashMap::new(),
            heads: BinaryHeap::new(),
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

    /// Takes a thing of this time, or of the time of the one before it in its queue,
    /// if that is later; answers which. To be followed by [`Merge::came`].
    pub(super) fn push(&mut self, id: QueueId, time: Time, thing: T) -> Time {
        self.arrived += 1;
        let number = self.arrived;
        let queue = self.queues.entry(id).or_default();
        let time = match queue.back() {
            Some(before) => time.max(before.time),
            None => {
                self.heads.push(Reverse((time, id.0, number, id)));
                time
            }
        };
        queue.push_back(Entry { time, number, thing });
        time
    }

    /// What was pushed came from this lane, and is as late as that.
    pub(super) fn came(&mut self, lane: LaneId, latest: Time, now: Instant) {
        if let Some(last) = self.progress.get_mut(&lane)
            && *last < latest
        {
            self.history.remove(&(*last, lane));
            self.history.insert((latest, lane));
            *last = latest;
        }
        if self.history.is_empty() {
            self.due.push_back((now + self.window, latest));
        } else {
            self.latest = self.latest.max(latest);
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
        let thing = self.take_first(limit);
        if self.heads.is_empty() {
            self.due.clear();
            self.mark = Time::MIN;
        }
        thing
    }

    fn take_first(&mut self, limit: Time) -> Option<T> {
        let mut head = self.heads.peek_mut().filter(|head| head.0.0 <= limit)?;
        let id = head.0.3;
        let queue = self.queues.get_mut(&id)?;
        let entry = queue.pop_front()?;
        if let Some(next) = queue.front() {
            *head = Reverse((next.time, id.0, next.number, id));
        } else {
            PeekMut::pop(head);
            self.queues.remove(&id);
        }
        Some(entry.thing)
    }

    /// When something may leave, if nothing comes before.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if !self.history.is_empty() || self.heads.is_empty() {
            return None;
        }
        self.due.front().map(|(due, _)| *due)
    }

    /// Lets all that is left leave, in order: nothing more comes.
    pub(super) fn release_all(&mut self) {
        self.history.clear();
        self.mark = Time::MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn push(merge: &mut Merge<(LaneId, Time)>, lane: LaneId, time: Time, now: Instant) {
        let time = merge.push((lane, 0), time, (lane, time));
        merge.came(lane, time, now);
    }

    fn all(merge: &mut Merge<(LaneId, Time)>, now: Instant) -> Vec<(LaneId, Time)> {
        std::iter::from_fn(|| merge.pop(now)).collect()
    }

    #[test]
    fn a_line_waits_for_older_ones_for_the_window_and_no_longer() {
        let (start, window) = (Instant::now(), Duration::from_millis(150));
        let mut merge = Merge::new(window);
        push(&mut merge, 0, 20, start);
        push(&mut merge, 1, 10, start + window / 3);
        push(&mut merge, 1, 40, start + window / 3);
        assert_eq!((all(&mut merge, start + window / 2), merge.next_due()), (vec![], Some(start + window)));
        assert_eq!(all(&mut merge, start + window), [(1, 10), (0, 20)]);
        // Too late to be in order, and so at once.
        push(&mut merge, 0, 15, start + window);
        assert_eq!(all(&mut merge, start + window), [(0, 15)]);
        push(&mut merge, 0, 50, start + window);
        merge.release(50);
        assert_eq!(all(&mut merge, start + window), [(1, 40), (0, 50)]);
        assert_eq!(merge.next_due(), None);
    }

    #[test]
    fn what_is_from_one_place_stays_as_it_came() {
        let now = Instant::now();
        let mut merge = Merge::new(Duration::ZERO);
        for (queue, time) in [((0, 1), 5), ((0, 1), 3), ((0, 2), 4), ((0, 1), Time::MIN)] {
            let latest = merge.push(queue, time, (u32::try_from(queue.1).unwrap(), time));
            merge.came(0, latest, now);
        }
        assert_eq!(all(&mut merge, now), [(2, 4), (1, 5), (1, 3), (1, Time::MIN)]);
        // With nothing before it, there is nothing to wait for.
        merge.push((0, 1), Time::MIN, (7, 0));
        merge.came(0, Time::MIN, now + Duration::from_secs(9));
        assert_eq!(all(&mut merge, now), [(7, 0)]);
    }

    #[test]
    fn of_equal_times_the_first_lane_comes_first_whenever_it_came() {
        let now = Instant::now();
        let mut merge = Merge::new(Duration::ZERO);
        for (lane, time) in [(2, 5), (1, 5), (2, 4)] {
            push(&mut merge, lane, time, now);
        }
        assert_eq!(all(&mut merge, now), [(1, 5), (2, 5), (2, 4)]);
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
                push(&mut merge, lane as LaneId, time, now + Duration::from_secs(1));
                if lanes[lane].is_empty() {
                    merge.caught_up(lane as LaneId, now);
                }
                // Those without a line at all hold nothing back.
                for (empty, _) in lanes.iter().enumerate().filter(|(_, lane)| lane.is_empty()) {
                    merge.caught_up(empty as LaneId, now);
                }
                merged.extend(all(&mut merge, now));
            }
            merge.release_all();
            merged.extend(all(&mut merge, now));
            let times: Vec<Time> = merged.iter().map(|(_, time)| *time).collect();
            prop_assert_eq!(times, expected);
        }
    }
}
