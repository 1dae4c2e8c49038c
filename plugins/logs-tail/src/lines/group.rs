//! Equal stack traces, counted. Pure.

use super::place::Place;
use jiff::Timestamp;
use regex::bytes::Regex;
use std::collections::{BTreeSet, HashMap};

/// More different traces than this are counted as one.
const MOST: usize = 10_000;

/// Makes two texts equal that differ only in what changes from run to run:
/// addresses, ids, numbers. The line numbers of frames stay: they say where.
#[derive(Debug)]
pub(crate) struct Normaliser {
    changing: Regex,
    offset: Regex,
}

impl Normaliser {
    pub(crate) fn new() -> Self {
        // In this order: an id may have numbers in it.
        let changing =
            r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|0x[0-9a-fA-F]+|\b[0-9a-f]{16,}\b|[0-9]+";
        let offset = r"0x[0-9a-fA-F]+|goroutine [0-9]+|, [0-9]+ minutes|@[0-9a-f]{4,}\b";
        Self { changing: regex(changing), offset: regex(offset) }
    }

    /// A line with every number, id and address as `#`.
    pub(crate) fn line(&self, line: &[u8]) -> Vec<u8> {
        self.changing.replace_all(line, &b"#"[..]).into_owned()
    }

    /// A trace: lines with words as [`Self::line`], frames with their line numbers.
    pub(crate) fn trace(&self, text: &[u8]) -> Vec<u8> {
        let mut normal = Vec::with_capacity(text.len());
        for line in text.split(|byte| *byte == b'\n') {
            let is_frame = matches!(line.first(), Some(b' ' | b'\t')) || line.starts_with(b"goroutine ") || line.ends_with(b")");
            if is_frame {
                normal.extend_from_slice(&self.offset.replace_all(line, &b"#"[..]));
            } else {
                normal.extend(self.line(line));
            }
            normal.push(b'\n');
        }
        normal
    }
}

#[expect(clippy::expect_used, reason = "the patterns are constants that the tests compile")]
fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern")
}

/// Traces that are equal.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// The first of them, as it was.
    pub(crate) text: Vec<u8>,
    pub(crate) count: u64,
    pub(crate) first: Option<Timestamp>,
    pub(crate) last: Option<Timestamp>,
    /// `pod/container` of all.
    pub(crate) places: BTreeSet<String>,
}

/// Collects traces.
#[derive(Debug)]
pub(crate) struct Groups {
    normaliser: Normaliser,
    groups: HashMap<[u8; 32], Group>,
}

impl Groups {
    pub(crate) fn new() -> Self {
        Self { normaliser: Normaliser::new(), groups: HashMap::new() }
    }

    pub(crate) fn add(&mut self, text: &[u8], timestamp: Option<Timestamp>, place: &Place) {
        let mut key = *blake3::hash(&self.normaliser.trace(text)).as_bytes();
        if self.groups.len() >= MOST && !self.groups.contains_key(&key) {
            key = [0; 32];
        }
        let group = self.groups.entry(key).or_insert_with(|| Group {
            text: text.to_vec(),
            count: 0,
            first: timestamp,
            last: timestamp,
            places: BTreeSet::new(),
        });
        group.count += 1;
        group.first = group.first.min(timestamp).or(timestamp);
        group.last = group.last.max(timestamp);
        if !place.pod.is_empty() && group.places.len() < 100 {
            group.places.insert(format!("{}/{}", place.pod, place.container));
        }
    }

    /// The most frequent first, then the last seen.
    pub(crate) fn sorted(&self) -> Vec<&Group> {
        let mut groups: Vec<&Group> = self.groups.values().collect();
        groups.sort_by(|left, right| (right.count, right.last, &left.text).cmp(&(left.count, left.last, &right.text)));
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go(address: &str, goroutine: u32, line: u32) -> String {
        format!("panic: no user {goroutine}\n\ngoroutine {goroutine} [running]:\nmain.f({address})\n\t/src/main.go:{line} +{address}")
    }

    #[test]
    fn traces_are_equal_but_for_addresses_and_numbers_and_not_for_lines() {
        let mut groups = Groups::new();
        let place = |pod: &str| Place { pod: pod.into(), container: "app".into(), ..Place::default() };
        let at = |second| Timestamp::from_second(second).ok();
        groups.add(go("0x1f", 1, 12).as_bytes(), at(20), &place("a"));
        groups.add(go("0xc0ffee", 77, 12).as_bytes(), at(10), &place("b"));
        groups.add(go("0x1f", 1, 13).as_bytes(), at(30), &place("a"));
        let sorted = groups.sorted();
        let counts: Vec<_> = sorted.iter().map(|group| (group.count, group.first, group.last, group.places.len())).collect();
        assert_eq!(counts, [(2, at(10), at(20), 2), (1, at(30), at(30), 1)]);
    }

    #[test]
    fn lines_are_equal_but_for_numbers_and_ids() {
        let normaliser = Normaliser::new();
        let line = |text: &str| normaliser.line(text.as_bytes());
        assert_eq!(
            line("10:00:01 user 17 took 1.5ms id 123e4567-e89b-12d3-a456-426614174000"),
            line("09:59:02 user 9 took 23.75ms id 00000000-e89b-12d3-a456-426614174111")
        );
        assert_ne!(line("connected to db"), line("connected to cache"));
    }
}
