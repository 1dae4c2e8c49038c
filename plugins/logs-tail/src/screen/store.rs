//! The records that the screen can go back to: the newest, up to a number of
//! bytes. Each has a number that stays its own. Pure.

use crate::lines::Record;
use crate::lines::format::Facts;
use crate::lines::level::Level;
use crate::render::safe::paint;
use devloop_core::logs::Source;
use jiff::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// What a record takes beside its text, about.
const OVERHEAD: usize = std::mem::size_of::<Entry>() + 16;

/// A record, or something said about the logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Which of the sources; none for what is said about the logs.
    pub(crate) source: Option<usize>,
    pub(crate) timestamp: Option<Timestamp>,
    pub(crate) level: Option<Level>,
    /// Its lines, safe to show, without colours.
    pub(crate) text: String,
}

impl Entry {
    /// How many lines it has, at least one.
    pub(crate) fn lines(&self) -> usize {
        1 + memchr::memchr_iter(b'\n', self.text.as_bytes()).count()
    }

    /// Whether it says that something went wrong.
    pub(crate) fn is_error(&self) -> bool {
        self.level.is_some_and(|level| level >= Level::Error)
    }
}

/// A container that records come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) source: Arc<Source>,
    /// Whether its pod is there.
    pub(crate) is_open: bool,
    /// How many records it had so far.
    pub(crate) records: u64,
}

/// The newest records.
#[derive(Debug)]
pub(crate) struct Store {
    entries: VecDeque<Entry>,
    /// The number of the oldest one that is kept.
    first: u64,
    bytes: usize,
    limit: usize,
    origins: Vec<Origin>,
    known: HashMap<Arc<Source>, usize>,
}

impl Store {
    /// Keeps so many bytes, about.
    pub(crate) fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), first: 0, bytes: 0, limit, origins: Vec::new(), known: HashMap::new() }
    }

    /// The number of the oldest one that is kept.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The number that the next one gets.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The record of that number, if it is kept.
    pub(crate) fn get(&self, number: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// The containers, in the order in which they were first seen.
    pub(crate) fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// A container's log is open, or isn't any more.
    pub(crate) fn mark(&mut self, source: &Arc<Source>, is_open: bool) {
        let index = self.origin(source);
        self.origins[index].is_open = is_open;
    }

    /// Takes a record in.
    pub(crate) fn record(&mut self, record: &Record<'_>) {
        let source = self.origin(record.source);
        self.origins[source].records += 1;
        let mut text = String::with_capacity(record.text.len());
        for (index, line) in record.text.split(|byte| *byte == b'\n').enumerate() {
            if index > 0 {
                text.push('\n');
            }
            paint(line, &[], false, &mut text);
        }
        if record.cut > 0 {
            text.push_str(&crate::render::cut_mark(record.cut));
        }
        let first = record.text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let level = Facts::of(record.format, first).level.map(|(level, _)| level);
        self.push(Entry { source: Some(source), timestamp: record.timestamp, level, text });
    }

    /// Takes in what is said about the logs.
    pub(crate) fn note(&mut self, level: Level, text: String) {
        self.push(Entry { source: None, timestamp: None, level: Some(level), text });
    }

    fn origin(&mut self, source: &Arc<Source>) -> usize {
        if let Some(index) = self.known.get(source) {
            return *index;
        }
        let index = self.origins.len();
        self.origins.push(Origin { source: Arc::clone(source), is_open: true, records: 0 });
        self.known.insert(Arc::clone(source), index);
        index
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.text.len() + OVERHEAD;
        self.entries.push_back(entry);
        // The newest one is kept, however large it is.
        while self.bytes > self.limit && self.entries.len() > 1 {
            self.bytes -= self.entries.pop_front().map_or(0, |entry| entry.text.len() + OVERHEAD);
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_oldest_go_first_and_numbers_stay() {
        let mut store = Store::new(3 * (OVERHEAD + 1));
        for text in ["a", "b", "c", "d"] {
            store.note(Level::Info, text.into());
        }
        assert_eq!((store.first(), store.end()), (1, 4));
        assert_eq!(store.get(0), None);
        assert_eq!(store.get(3).map(|entry| entry.text.as_str()), Some("d"));
        store.note(Level::Info, "x".repeat(1000));
        assert_eq!((store.first(), store.end()), (4, 5), "what is larger than all of it is kept alone");
    }

    proptest! {
        #[test]
        fn it_never_keeps_more_than_it_may(sizes in prop::collection::vec(0_usize..400, 1..60)) {
            let mut store = Store::new(2000);
            for size in &sizes {
                store.note(Level::Info, "y".repeat(*size));
                let kept: usize = (store.first()..store.end()).filter_map(|number| store.get(number)).map(|entry| entry.text.len() + OVERHEAD).sum();
                prop_assert_eq!(kept, store.bytes);
                prop_assert!(kept <= 2000 || store.end() - store.first() == 1);
            }
            prop_assert_eq!(store.end(), sizes.len() as u64);
        }
    }
}
