//! Where a log was left, so that reading it again loses and repeats nothing.
//!
//! The API resumes by time with a granularity of seconds, so a resumed
//! connection repeats lines. A line is known by its timestamp, and by its place
//! among the lines with that same timestamp. Runtimes stamp stdout and stderr
//! separately, so that neighbours can be out of order by a little: everything
//! of the last second or two is remembered, not only the last line.

use jiff::{SignedDuration, Timestamp, Unit};
use std::collections::VecDeque;

/// What a line of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was not read before.
    New,
    /// It was read before, or lies before the wanted beginning.
    Seen,
    /// The connection doesn't start with what was read last: the log was
    /// rotated, or it is another container instance's.
    Foreign,
}

/// What was read of one container's log.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// The remembered window, by time.
    seen: VecDeque<Seen>,
    /// The latest timestamp of the current instance.
    latest: Option<Timestamp>,
    /// The first line's, where older ones were not wanted.
    beginning: Option<Timestamp>,
    connection: Connection,
    /// Whether the newest line is much older than the latest one.
    went_back: bool,
    /// What was read of the next instance, taken for this one at that time.
    ahead: Option<Box<Resume>>,
}

/// The lines of one timestamp.
#[derive(Clone, Copy, Debug)]
struct Seen {
    timestamp: Timestamp,
    /// How many were read.
    count: u32,
    /// How many of them this connection has repeated (or delivered) so far.
    passed: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Connection {
    /// From the beginning, or already shown to repeat what was read.
    #[default]
    Trusted,
    /// Resumed; its first line must be one that was read.
    Unproven,
    /// Resumed, and proven to be the same log.
    Proven,
}

impl Resume {
    /// The time to resume from; none if nothing was read of this instance.
    ///
    /// A whole second, at least one second before the latest line.
    pub fn since(&self) -> Option<Timestamp> {
        self.latest.map(window_start)
    }

    /// A connection starts, from [`Resume::since`].
    pub fn connect(&mut self) {
        self.seen.iter_mut().for_each(|seen| seen.passed = 0);
        self.connection = if self.latest.is_some() { Connection::Unproven } else { Connection::Trusted };
    }

    /// Takes the next line of the connection.
    pub fn accept(&mut self, timestamp: Timestamp) -> Verdict {
        if self.connection != Connection::Trusted && self.lies_before_beginning(timestamp) {
            self.connection = Connection::Proven;
            return Verdict::Seen;
        }
        let place = self.place(timestamp);
        if self.connection == Connection::Unproven {
            if place.is_err() {
                return Verdict::Foreign;
            }
            self.connection = Connection::Proven;
        }
        match place {
            Ok(index) => {
                let seen = &mut self.seen[index];
                seen.passed += 1;
                if seen.passed <= seen.count {
                    return Verdict::Seen;
                }
                seen.count = seen.passed;
            }
            // The clock was set back; nothing can be resumed at such a time.
            Err(_) if self.latest.is_some_and(|latest| timestamp < window_start(latest)) => {
                self.went_back = true;
                return Verdict::New;
            }
            Err(index) => self.seen.insert(index, Seen { timestamp, count: 1, passed: 1 }),
        }
        self.advance(timestamp);
        Verdict::New
    }

    /// Where lines of this time are remembered, or would be: nearly always at the end.
    fn place(&self, timestamp: Timestamp) -> Result<usize, usize> {
        match self.seen.back() {
            Some(last) if last.timestamp >= timestamp => self.seen.binary_search_by_key(&timestamp, |seen| seen.timestamp),
            _ => Err(self.seen.len()),
        }
    }

    /// Whether this connection repeated a line that was read, as one to the
    /// same log does in the end; true if there was none to repeat.
    pub fn is_proven(&self) -> bool {
        self.connection != Connection::Unproven
    }

    /// Whether the node's clock was set back: lines that came since are not found
    /// again by their time.
    pub fn went_back(&self) -> bool {
        self.went_back
    }

    /// Older lines than the next one are not wanted, even if a resumed
    /// connection delivers them: the first read is limited (`--tail`, `--since`).
    pub fn begin_at(&mut self, timestamp: Timestamp) {
        self.beginning.get_or_insert(timestamp);
    }

    /// Goes on with the container's next instance, from its beginning, or from
    /// where it was read to by mistake.
    pub fn next_instance(&mut self) {
        *self = self.ahead.take().map(|ahead| *ahead).unwrap_or_default();
    }

    /// After [`Verdict::Foreign`]: the log doesn't have what was read, so this
    /// begins anew. What was read is the next instance's, unless
    /// [`Resume::reveals_rotation`].
    pub fn put_ahead(&mut self) {
        self.ahead = Some(Box::new(std::mem::take(self)));
    }

    /// Whether a line at `timestamp` shows that what was put ahead came before
    /// it, from the same log. Forgets what was put ahead then.
    pub fn reveals_rotation(&mut self, timestamp: Timestamp) -> bool {
        self.ahead.take_if(|ahead| ahead.latest.is_some_and(|latest| latest < timestamp)).is_some()
    }

    /// Resumed connections go back to a whole second, which can lie before the
    /// beginning. Lines at the very timestamp of the first line can be on
    /// either side of it while no later one was read; then they count as after.
    fn lies_before_beginning(&self, timestamp: Timestamp) -> bool {
        self.beginning.is_some_and(|beginning| timestamp < beginning)
    }

    fn advance(&mut self, timestamp: Timestamp) {
        if self.latest.is_some_and(|latest| timestamp <= latest) {
            return;
        }
        let crossed = self.latest.is_none_or(|latest| latest.as_second() != timestamp.as_second());
        self.latest = Some(timestamp);
        self.went_back = false;
        if crossed {
            let start = window_start(timestamp);
            let old = self.seen.partition_point(|seen| seen.timestamp < start);
            self.seen.drain(..old);
        }
    }
}

/// The whole second before the one that `timestamp` is in.
fn window_start(timestamp: Timestamp) -> Timestamp {
    let second = whole_second(timestamp);
    // Fails only at the ends of jiff's range of years.
    second.checked_sub(SignedDuration::from_secs(1)).unwrap_or(second)
}

/// The second that `timestamp` is in.
///
/// The API counts in seconds, and a request's time is rounded to the nearest
/// one on its way: later than what was asked for in half of all cases.
pub(super) fn whole_second(timestamp: Timestamp) -> Timestamp {
    let round = jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Floor);
    timestamp.round(round).unwrap_or(timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: i64 = 1_760_000_000;

    /// Line number and timestamp.
    type Line = (usize, Timestamp);

    /// Lines with steps that give ties, neighbours and jumps over seconds.
    fn log(disorder: bool) -> impl Strategy<Value = Vec<Line>> {
        let step = prop_oneof![3 => Just(0_i64), 3 => 1..3_i64, 2 => 1_000_000..400_000_000_i64, 1 => Just(1_000_000_000), 1 => 1_000_000_000..5_000_000_000_i64];
        let swing = if disorder { -40_000..40_000_i64 } else { 0..1_i64 };
        prop::collection::vec((step, swing), 0..60).prop_map(|steps| {
            let mut now = i128::from(START) * 1_000_000_000;
            let mut lines = Vec::new();
            for (index, (step, swing)) in steps.into_iter().enumerate() {
                now += i128::from(step);
                lines.push((index, Timestamp::from_nanosecond(now + i128::from(swing)).unwrap()));
            }
            lines
        })
    }

    /// What the API delivers: what is written by now, from `since` on.
    fn deliver(written: &[Line], since: Option<Timestamp>) -> impl Iterator<Item = Line> + '_ {
        written.iter().copied().filter(move |(_, timestamp)| since.is_none_or(|since| *timestamp >= since))
    }

    /// Reads a log over connections that each end after some lines, then to its end.
    fn read(lines: &[Line], cuts: &[usize], mut resume: Resume, mut beginning: impl FnMut(&mut Resume, Timestamp)) -> Vec<usize> {
        let mut output = Vec::new();
        for cut in cuts.iter().copied().chain([usize::MAX]) {
            let since = resume.since();
            assert!(since.is_none_or(|since| since.subsec_nanosecond() == 0));
            resume.connect();
            for (index, timestamp) in deliver(lines, since).take(cut) {
                beginning(&mut resume, timestamp);
                match resume.accept(timestamp) {
                    Verdict::New => output.push(index),
                    Verdict::Seen => {}
                    Verdict::Foreign => panic!("line {index} at {timestamp} taken for another log's"),
                }
            }
        }
        output
    }

    proptest! {
        #[test]
        fn every_line_is_read_once_and_in_order(lines in log(false), cuts in prop::collection::vec(0..70_usize, 0..8)) {
            let output = read(&lines, &cuts, Resume::default(), |_, _| ());
            prop_assert_eq!(output, (0..lines.len()).collect::<Vec<_>>());
        }

        #[test]
        fn lines_that_are_a_little_out_of_order_are_kept_so(lines in log(true), cuts in prop::collection::vec(0..70_usize, 0..8)) {
            let output = read(&lines, &cuts, Resume::default(), |_, _| ());
            prop_assert_eq!(output, (0..lines.len()).collect::<Vec<_>>());
        }

        #[test]
        fn lines_before_the_tail_stay_away(lines in log(false), tail in 1..20_usize, cuts in prop::collection::vec(0..70_usize, 0..8)) {
            // A tie across the beginning can't be told apart by time alone.
            let mut lines = lines;
            lines.dedup_by_key(|(_, timestamp)| *timestamp);
            let first = lines.len().saturating_sub(tail);
            let mut resume = Resume::default();
            resume.connect();
            let mut expected: Vec<usize> = Vec::new();
            for (index, timestamp) in lines[first..].iter().take(3) {
                resume.begin_at(*timestamp);
                prop_assert_eq!(resume.accept(*timestamp), Verdict::New);
                expected.push(*index);
            }
            if !expected.is_empty() {
                expected.extend(read(&lines, &cuts, resume, |_, _| ()));
                prop_assert_eq!(expected, lines[first..].iter().map(|(index, _)| *index).collect::<Vec<_>>());
            }
        }

        #[test]
        fn another_log_is_noticed_before_a_line_of_it_is_taken(lines in log(false), later in log(false), offset in 1..3_000_000_000_i64) {
            let Some((_, end)) = lines.last() else { return Ok(()) };
            let shift = (end.as_nanosecond() - i128::from(START) * 1_000_000_000) + i128::from(offset);
            let later: Vec<Line> = later.iter().map(|(index, timestamp)| (*index, Timestamp::from_nanosecond(timestamp.as_nanosecond() + shift).unwrap())).collect();
            let mut resume = Resume::default();
            resume.connect();
            for (_, timestamp) in &lines {
                resume.accept(*timestamp);
            }
            let since = resume.since();
            resume.connect();
            if let Some((_, timestamp)) = deliver(&later, since).next() {
                prop_assert_eq!(resume.accept(timestamp), Verdict::Foreign);
            }
            // The next instance is read whole, even though it was glimpsed.
            resume.next_instance();
            let output = read(&later, &[], resume, |_, _| ());
            prop_assert_eq!(output.len(), later.len());
        }
    }

    #[test]
    fn lines_of_a_clock_that_was_set_back_are_read_and_not_remembered() {
        let mut resume = Resume::default();
        resume.connect();
        let at = |second| Timestamp::from_second(START + second).unwrap();
        assert_eq!(resume.accept(at(3600)), Verdict::New);
        for second in 0..1000 {
            assert_eq!(resume.accept(at(second)), Verdict::New);
        }
        assert!(resume.went_back() && resume.seen.len() == 1);
        assert_eq!(resume.since(), Some(at(3599)));
        assert_eq!(resume.accept(at(3601)), Verdict::New);
        assert!(!resume.went_back());
    }

    #[test]
    fn memory_holds_no_more_than_the_window() {
        let mut resume = Resume::default();
        resume.connect();
        for index in 0..100_000_i128 {
            let nanosecond = i128::from(START) * 1_000_000_000 + index * 1_000_000;
            resume.accept(Timestamp::from_nanosecond(nanosecond).unwrap());
        }
        assert!(resume.seen.len() <= 2_000, "{}", resume.seen.len());
    }
}
