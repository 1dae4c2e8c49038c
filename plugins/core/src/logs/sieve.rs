//! Which lines of a connection are new and wanted, and what is said of the others. Pure.

use super::line::RawLine;
use super::queue::Batch;
use super::resume::{Resume, Verdict};
use super::{LineFilter, LogEvent, LogLine, LogOptions, Since, Source};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

const ROTATED: &str = "lines may be missing: the log was rotated since the last line read";
const SET_BACK: &str = "lines may be missing: the node's clock was set back, and the connection broke before it had caught up";

/// Lines of stdout and stderr have stamps of their own, and so may be out of order.
const STREAMS_APART: SignedDuration = SignedDuration::from_secs(1);

/// What the options limit of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// Nothing: it is read from its beginning.
    None,
    /// The time and the number of its lines.
    TimeAndTail,
    /// The time only: a connection has shown that there were no lines to count.
    Time,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is passed on.
    New,
    /// It isn't.
    Passed,
    /// It isn't of the log that was read before.
    Foreign,
    /// All that is wanted was read.
    Enough,
}

/// Takes the lines of one container's connections, one after the other.
#[derive(Debug)]
pub(super) struct Sieve {
    source: Arc<Source>,
    since: Option<Since>,
    until: Option<Timestamp>,
    filter: LineFilter,
    /// So many lines are still wanted.
    left: Option<u64>,
    pub(super) resume: Resume,
    pub(super) limit: Limit,
    last_notice: Option<String>,
    /// What is to be said, in order.
    said: Batch,
}

impl Sieve {
    /// With the limits of the options only if they are for what is read.
    pub(super) fn new(source: Arc<Source>, options: &LogOptions, is_limited: bool) -> Self {
        Self {
            source,
            since: options.since,
            until: options.until,
            filter: options.filter.clone(),
            left: options.head,
            resume: Resume::default(),
            limit: if is_limited { Limit::TimeAndTail } else { Limit::None },
            last_notice: None,
            said: Batch::default(),
        }
    }

    /// What is to be said by now.
    pub(super) fn said(&mut self) -> &mut Batch {
        &mut self.said
    }

    /// Says that lines may be missing.
    pub(super) fn gap(&mut self, why: &str) {
        self.said.push(LogEvent::Gap(Arc::clone(&self.source), why.to_owned()));
    }

    /// A connection starts, from [`Resume::since`].
    pub(super) fn connect(&mut self) {
        if self.resume.went_back() {
            self.gap(SET_BACK);
        }
        self.resume.connect();
    }

    /// Another instance of the container is read, from its beginning.
    pub(super) fn next_instance(&mut self) {
        self.resume.next_instance();
        self.limit = Limit::None;
    }

    /// The log was rotated: it is read on as if it were another one.
    pub(super) fn start_over(&mut self) {
        self.gap(ROTATED);
        self.resume.next_instance();
        self.has_no_tail();
    }

    /// A connection has shown what there was: later ones have nothing to count.
    pub(super) fn has_no_tail(&mut self) {
        if self.limit == Limit::TimeAndTail {
            self.limit = Limit::Time;
        }
    }

    /// The line before the first one that is wanted.
    pub(super) fn anchor(&mut self, timestamp: Timestamp) {
        self.resume.connect();
        self.resume.begin_at(timestamp);
        self.resume.accept(timestamp);
    }

    /// Takes the next line of the connection.
    pub(super) fn take(&mut self, line: RawLine) -> Taken {
        let Some(timestamp) = line.timestamp else { return self.notice(&line.message) };
        // The API counts in seconds.
        if self.limit != Limit::None && matches!(self.since, Some(Since::At(since)) if timestamp < since) {
            return Taken::Passed;
        }
        if let Some(until) = self.until
            && timestamp > until
        {
            // The two streams of a container may be out of order by a little.
            let is_over = timestamp.duration_since(until) > STREAMS_APART;
            return if is_over { Taken::Enough } else { Taken::Passed };
        }
        if self.resume.reveals_rotation(timestamp) {
            self.gap(ROTATED);
        }
        if self.limit != Limit::None {
            self.resume.begin_at(timestamp);
        }
        match self.resume.accept(timestamp) {
            Verdict::Seen => Taken::Passed,
            Verdict::Foreign => Taken::Foreign,
            Verdict::New => {
                if self.filter.wants(&line.message) {
                    let source = Arc::clone(&self.source);
                    self.said.push(LogEvent::Line(LogLine { source, timestamp, message: line.message, cut: line.cut }));
                }
                self.left = self.left.map(|left| left.saturating_sub(1));
                if self.left == Some(0) { Taken::Enough } else { Taken::New }
            }
        }
    }

    /// What the kubelet says is said once, however often it is asked.
    fn notice(&mut self, message: &[u8]) -> Taken {
        let text = String::from_utf8_lossy(message).into_owned();
        if self.last_notice.as_ref() != Some(&text) {
            self.said.push(LogEvent::Notice(Arc::clone(&self.source), text.clone()));
            self.last_notice = Some(text);
        }
        Taken::Passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: i64, text: &str) -> RawLine {
        RawLine { timestamp: Timestamp::from_second(1_760_000_000 + second).ok(), message: text.into(), cut: 0 }
    }

    fn said(sieve: &mut Sieve) -> Vec<String> {
        let text = |event| match event {
            LogEvent::Line(line) => String::from_utf8(line.message).unwrap(),
            LogEvent::Gap(_, why) => why.split(':').next().unwrap().to_owned(),
            LogEvent::Notice(_, what) => format!("kubelet: {what}"),
            other => format!("{other:?}"),
        };
        sieve.said().take().into_iter().map(text).collect()
    }

    #[test]
    fn a_range_is_kept_to_and_the_kubelet_heard_once() {
        use Taken::{Enough, New, Passed};
        let at = |second: i64| Timestamp::from_second(1_760_000_000 + second).unwrap();
        let options = LogOptions { since: Some(Since::At(at(10))), until: Some(at(20)), head: Some(3), ..LogOptions::default() };
        let mut sieve = Sieve::new(Arc::default(), &options, true);
        sieve.connect();
        let unstamped = || RawLine { message: b"no".into(), ..RawLine::default() };
        let lines = [line(9, "early"), line(10, "a"), unstamped(), unstamped(), line(21, "a second late"), line(20, "b")];
        let taken: Vec<Taken> = lines.into_iter().map(|line| sieve.take(line)).collect();
        assert_eq!(taken, [Passed, New, Passed, Passed, Passed, New]);
        assert_eq!(said(&mut sieve), ["a", "kubelet: no", "b"]);
        assert_eq!(sieve.take(line(22, "late")), Enough);
        assert_eq!(sieve.take(line(20, "c")), Enough);
        assert_eq!(said(&mut sieve), ["c"]);
    }

    #[test]
    fn what_is_not_wanted_is_seen_but_not_passed_on() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let filter = LineFilter::new(&words(&["a", "b"]), &words(&["c$"])).unwrap();
        let options = LogOptions { filter, head: Some(4), ..LogOptions::default() };
        let mut sieve = Sieve::new(Arc::default(), &options, true);
        sieve.connect();
        let lines = [line(1, "a"), line(2, "none"), line(3, "bc")];
        assert_eq!(lines.map(|line| sieve.take(line)), [Taken::New; 3]);
        sieve.connect();
        // Seen before, it is not passed on again; the fourth line is the last.
        assert_eq!(
            [line(2, "none"), line(3, "bc"), line(4, "b")].map(|line| sieve.take(line)),
            [Taken::Passed, Taken::Passed, Taken::Enough]
        );
        assert_eq!(said(&mut sieve), ["a", "b"]);
    }

    #[test]
    fn a_connection_that_breaks_while_the_clock_is_behind_is_a_gap() {
        let mut sieve = Sieve::new(Arc::default(), &LogOptions::default(), false);
        sieve.connect();
        assert_eq!([line(100, "a"), line(3, "b")].map(|line| sieve.take(line)), [Taken::New, Taken::New]);
        sieve.connect();
        assert_eq!([line(100, "a"), line(101, "c")].map(|line| sieve.take(line)), [Taken::Passed, Taken::New]);
        assert_eq!(said(&mut sieve), ["a", "b", "lines may be missing", "c"]);
        sieve.connect();
        assert_eq!(said(&mut sieve), Vec::<String>::new());
    }
}
