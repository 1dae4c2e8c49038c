//! Standard input, block by block: a record is a place in the block, so nothing
//! is copied or allocated for it.

use super::assemble::{Joining, MOST_BYTES, PATIENCE};
use super::fold::Fold;
use super::format::{Format, Sticky};
use super::judge::{Judge, Memory, Sink};
use super::place::Place;
use super::{Record, cut_at};
use devloop_core::logs::Source;
use memchr::memchr;
use std::io::{ErrorKind, Read, Result};
use std::sync::Arc;
use std::time::Duration;

/// How much is read at once.
const BLOCK: usize = 256 * 1024;

/// What lines are read from.
pub(crate) trait Input: Read {
    /// Whether something can be read within `wait`, be it the end.
    fn is_ready(&mut self, wait: Duration) -> bool;
}

/// Takes what is to be done while nothing comes.
pub(crate) trait Output: Sink {
    /// Lets be seen what was written.
    fn flush(&mut self) -> Result<()>;
}

/// Reads to the end.
///
/// # Errors
/// When the input can't be read or the output can't be written.
pub(crate) fn run(input: &mut dyn Input, joining: Joining, judge: &mut Judge, output: &mut dyn Output) -> Result<()> {
    let source = Arc::new(Source {
        namespace: String::new(),
        pod: String::new(),
        container: String::new(),
        has_siblings: false,
        ..Source::default()
    });
    let mut lines = Lines {
        joining,
        place: Place::default(),
        source,
        buffer: vec![0; BLOCK * 2],
        record: 0,
        scan: 0,
        end: 0,
        is_open: false,
        skips: false,
        cut: 0,
        record_cut: 0,
        sticky: Sticky::default(),
        fold: Fold::default(),
        memory: Memory::default(),
    };
    loop {
        if !input.is_ready(Duration::ZERO) {
            output.flush()?;
            if lines.is_open && !input.is_ready(PATIENCE) {
                lines.close(judge, output)?;
                output.flush()?;
            }
        }
        let room = lines.room();
        let count = match input.read(room) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        lines.add(count);
        lines.take(judge, output)?;
    }
    if lines.end > lines.scan || lines.cut > 0 {
        lines.line(lines.end, lines.end, judge, output)?;
    }
    lines.close(judge, output)?;
    output.flush()
}

struct Lines {
    joining: Joining,
    source: Arc<Source>,
    place: Place,
    buffer: Vec<u8>,
    /// Where the record that is not yet whole starts.
    record: usize,
    /// Where the next line starts.
    scan: usize,
    /// Where the bytes that were read end.
    end: usize,
    /// Whether there is a record that may go on: `record` to before `scan`.
    is_open: bool,
    /// Whether the rest of a line is dropped that is longer than the limit.
    skips: bool,
    /// How much of the next line was dropped, and of the record.
    cut: u64,
    record_cut: u64,
    sticky: Sticky,
    fold: Fold,
    memory: Memory,
}

impl Lines {
    /// Where to read to.
    fn room(&mut self) -> &mut [u8] {
        let start = if self.is_open { self.record } else { self.scan };
        if start > 0 {
            self.buffer.copy_within(start..self.end, 0);
            self.record -= start.min(self.record);
            self.scan -= start;
            self.end -= start;
        }
        if self.buffer.len() - self.end < BLOCK {
            // Bounded: a record by `MOST_BYTES`, a line by the limit.
            self.buffer.resize(self.end + BLOCK, 0);
        }
        &mut self.buffer[self.end..]
    }

    fn add(&mut self, count: usize) {
        if !self.skips {
            self.end += count;
            return;
        }
        match memchr(b'\n', &self.buffer[self.end..self.end + count]) {
            Some(newline) => {
                self.cut += newline as u64;
                self.buffer.copy_within(self.end + newline..self.end + count, self.end);
                self.end += count - newline;
                self.skips = false;
            }
            None => self.cut += count as u64,
        }
    }

    /// Takes the lines that are whole.
    fn take(&mut self, judge: &mut Judge, output: &mut dyn Output) -> Result<()> {
        while let Some(length) = memchr(b'\n', &self.buffer[self.scan..self.end]) {
            let end = self.scan + length;
            self.line(end, end + 1, judge, output)?;
        }
        if !self.skips && self.end - self.scan > self.joining.max_line {
            let kept = cut_at(&self.buffer[self.scan..self.end], self.joining.max_line);
            self.cut += (self.end - self.scan - kept) as u64;
            self.end = self.scan + kept;
            self.skips = true;
        }
        Ok(())
    }

    /// The next line ends at `end`, and the one behind it starts at `next`.
    fn line(&mut self, end: usize, next: usize, judge: &mut Judge, output: &mut dyn Output) -> Result<()> {
        let start = self.scan;
        let is_long = end - start > self.joining.max_line || self.cut > 0;
        if self.joining.folds && !is_long {
            let is_small = end - self.record < MOST_BYTES;
            let so_far = if self.is_open { &self.buffer[self.record..start - 1] } else { &[][..] };
            let mut fold = self.fold;
            if self.is_open && is_small && fold.continues(so_far, &self.buffer[start..end]) {
                self.fold = fold;
                self.record_cut += std::mem::take(&mut self.cut);
                self.scan = next;
                return Ok(());
            }
            self.fold_anew(judge, output)?;
            self.fold.continues(&[], &self.buffer[start..end]);
            self.record = start;
            self.is_open = true;
            self.record_cut = std::mem::take(&mut self.cut);
            self.scan = next;
            // What is JSON is whole.
            return if self.buffer.get(start) == Some(&b'{') && end > start { self.close_at(end, judge, output) } else { Ok(()) };
        }
        self.fold_anew(judge, output)?;
        let length = cut_at(&self.buffer[start..end], self.joining.max_line);
        let cut = std::mem::take(&mut self.cut) + (end - start - length) as u64;
        self.scan = next;
        self.offer(start, start + length, cut, judge, output)
    }

    fn fold_anew(&mut self, judge: &mut Judge, output: &mut dyn Output) -> Result<()> {
        self.close(judge, output)?;
        self.fold = Fold::default();
        Ok(())
    }

    /// The record that may have gone on is whole.
    fn close(&mut self, judge: &mut Judge, output: &mut dyn Output) -> Result<()> {
        if !self.is_open {
            return Ok(());
        }
        // Without the newline, which the very last line may not have.
        let end = if self.scan > self.record && self.buffer[self.scan - 1] == b'\n' { self.scan - 1 } else { self.scan };
        self.close_at(end, judge, output)
    }

    fn close_at(&mut self, end: usize, judge: &mut Judge, output: &mut dyn Output) -> Result<()> {
        self.is_open = false;
        let cut = std::mem::take(&mut self.record_cut);
        self.offer(self.record, end, cut, judge, output)
    }

    fn offer(&mut self, start: usize, end: usize, cut: u64, judge: &mut Judge, output: &mut dyn Output) -> Result<()> {
        let text = &self.buffer[start..end];
        let format = if self.joining.recognises { self.sticky.recognise(first_line(text, self.joining.folds)) } else { Format::Plain };
        let trace = self.fold.trace();
        let record = Record { source: &self.source, place: &self.place, timestamp: None, text, cut, format, trace };
        judge.offer(&mut self.memory, &record, output)
    }
}

fn first_line(text: &[u8], may_be_many: bool) -> &[u8] {
    if may_be_many { &text[..memchr(b'\n', text).unwrap_or(text.len())] } else { text }
}

#[cfg(test)]
mod tests;
