//! From fragments to lines: the runtime cuts long lines, and those of the two
//! streams may alternate in the file. Pure.

use super::cri::{Fragment, Stream};
use crate::protocol::logs::{LINE_LIMIT, Position};

/// A line as the container wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// Of its first fragment.
    pub(super) timestamp: i64,
    pub(super) message: Vec<u8>,
    /// How many bytes more it was.
    pub(super) cut: u64,
}

/// Joins the fragments of each stream.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    pending: [Option<Pending>; 2],
    begun: u64,
}

#[derive(Debug)]
struct Pending {
    line: Line,
    start: Position,
    /// How many lines of the other stream ended meanwhile.
    ended: u32,
    number: u64,
}

impl Assembler {
    /// Takes a fragment that begins at `start` and lost `cut` bytes at its end;
    /// true when `line` was filled with the line that it ends.
    pub(super) fn push(&mut self, fragment: Fragment<'_>, cut: u64, start: Position, line: &mut Line) -> bool {
        let (own, other) = match fragment.stream {
            Stream::Stdout => (0, 1),
            Stream::Stderr => (1, 0),
        };
        if fragment.is_partial {
            let begun = &mut self.begun;
            let pending = self.pending[own].get_or_insert_with(|| {
                *begun += 1;
                let line = Line { timestamp: fragment.timestamp, ..Line::default() };
                Pending { line, start, ended: 0, number: *begun }
            });
            append(&mut pending.line, fragment.content, cut);
            return false;
        }
        match self.pending[own].take() {
            Some(pending) => {
                *line = pending.line;
                append(line, fragment.content, cut);
            }
            None => {
                line.timestamp = fragment.timestamp;
                line.message.clear();
                line.cut = 0;
                append(line, fragment.content, cut);
            }
        }
        if let Some(pending) = &mut self.pending[other] {
            pending.ended += 1;
        }
        true
    }

    /// Where to read on so that nothing is lost of what isn't a line yet; none
    /// when nothing is.
    pub(super) fn resume(&self) -> Option<Position> {
        let oldest = self.pending.iter().flatten().min_by_key(|pending| pending.number)?;
        Some(Position { skip: oldest.start.skip + oldest.ended, ..oldest.start })
    }

    /// What has no end and won't get one, oldest first.
    pub(super) fn finish(&mut self) -> Vec<Line> {
        let mut pending: Vec<Pending> = self.pending.iter_mut().filter_map(Option::take).collect();
        pending.sort_by_key(|pending| pending.number);
        pending.into_iter().map(|pending| pending.line).collect()
    }
}

fn append(line: &mut Line, content: &[u8], cut: u64) {
    let kept = content.len().min(LINE_LIMIT.saturating_sub(line.message.len()));
    line.message.extend_from_slice(&content[..kept]);
    line.cut += (content.len() - kept) as u64 + cut;
}

#[cfg(test)]
mod tests {
    use super::super::cri::parse;
    use super::*;

    fn at(offset: u64) -> Position {
        Position { instance: 0, first: 1, offset, skip: 0 }
    }

    #[test]
    fn parts_of_both_streams_become_lines_in_the_order_of_their_ends() {
        let mut assembler = Assembler::default();
        let mut line = Line::default();
        let mut lines = Vec::new();
        let file = ["01Z stdout P he", "02Z stderr P oh", "03Z stdout F llo", "04Z stdout F next", "05Z stderr F  no"];
        for (index, text) in file.iter().enumerate() {
            let text = format!("2026-01-01T00:00:{text}");
            if assembler.push(parse(text.as_bytes()).unwrap(), 0, at(index as u64), &mut line) {
                lines.push((line.timestamp % 60_000_000_000 / 1_000_000_000, String::from_utf8(line.message.clone()).unwrap()));
            }
            // What is not a line yet is read again after a break, what was one is skipped.
            let expected = [Some(at(0)), Some(at(0)), Some(Position { skip: 1, ..at(1) }), Some(Position { skip: 2, ..at(1) }), None];
            assert_eq!(assembler.resume(), expected[index], "{index}");
        }
        assert_eq!(lines, [(1, "hello".to_owned()), (4, "next".to_owned()), (2, "oh no".to_owned())]);
    }

    #[test]
    fn a_very_long_line_is_cut_and_counted_and_an_unended_one_is_given() {
        let mut assembler = Assembler::default();
        let mut line = Line::default();
        let part = vec![b'x'; 400_000];
        let fragment = |is_partial| Fragment { timestamp: 1, stream: Stream::Stdout, is_partial, content: &part };
        for _ in 0..3 {
            assert!(!assembler.push(fragment(true), 0, at(0), &mut line));
        }
        assert!(assembler.push(fragment(false), 5, at(0), &mut line));
        assert_eq!((line.message.len(), line.cut), (LINE_LIMIT, 1_600_000 - LINE_LIMIT as u64 + 5));
        assembler.push(fragment(true), 0, at(0), &mut line);
        assert_eq!(assembler.finish().len(), 1);
        assert_eq!(assembler.resume(), None);
    }
}
