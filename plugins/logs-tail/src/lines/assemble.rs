//! From the lines of many containers to records. A line that a stack trace may
//! follow is held until the next one, or a moment. Pure: the time is an argument.

use super::fold::Fold;
use super::format::Sticky;
use super::judge::{Judge, Memory, Sink};
use super::place::Place;
use super::{Record, cut_at};
use devloop_core::logs::{LogLine, Source};
use jiff::Timestamp;
use std::collections::HashMap;
use std::io::Result;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a record waits for its next line. Runtimes write a trace at once;
/// this is for what the way here takes.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);

/// A record ends at this size, whatever follows.
pub(crate) const MOST_BYTES: usize = 4 * 1024 * 1024;

/// How lines become records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Joining {
    /// Whether stack traces are one record.
    pub(crate) folds: bool,
    /// Whether it has to be known how records are written.
    pub(crate) recognises: bool,
    /// Longer lines are cut.
    pub(crate) max_line: usize,
}

/// Joins the lines of each container.
#[derive(Debug)]
pub(crate) struct Assembler {
    joining: Joining,
    /// By where their sources are: as long as a stream is here, nothing else is there.
    streams: HashMap<usize, Stream>,
    /// No held record has to go before.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Stream {
    source: Arc<Source>,
    place: Place,
    sticky: Sticky,
    fold: Fold,
    memory: Memory,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    timestamp: Timestamp,
    text: Vec<u8>,
    cut: u64,
    until: Instant,
}

impl Assembler {
    pub(crate) fn new(joining: Joining) -> Self {
        Self { joining, streams: HashMap::new(), due: None }
    }

    /// Takes a line that came at `now`.
    ///
    /// # Errors
    /// When the sink can't take a record.
    pub(crate) fn line(&mut self, mut line: LogLine, now: Instant, judge: &mut Judge, sink: &mut dyn Sink) -> Result<()> {
        let length = cut_at(&line.message, self.joining.max_line);
        line.cut += (line.message.len() - length) as u64;
        line.message.truncate(length);
        let stream = self.streams.entry(address(&line.source)).or_insert_with(|| Stream {
            source: Arc::clone(&line.source),
            place: Place::from(&*line.source),
            sticky: Sticky::default(),
            fold: Fold::default(),
            memory: Memory::default(),
            held: None,
        });
        if !self.joining.folds {
            return stream.offer(self.joining, line.timestamp, &line.message, line.cut, judge, sink);
        }
        if let Some(held) = &mut stream.held {
            let is_small = held.text.len() + line.message.len() < MOST_BYTES;
            let mut fold = stream.fold;
            if is_small && fold.continues(&held.text, &line.message) {
                stream.fold = fold;
                held.text.push(b'\n');
                held.text.extend_from_slice(&line.message);
                held.cut += line.cut;
                held.until = now + PATIENCE;
                return Ok(());
            }
            stream.let_go(self.joining, judge, sink)?;
            stream.fold = Fold::default();
        }
        stream.fold.continues(&[], &line.message);
        let is_whole = line.message.first() == Some(&b'{');
        if !is_whole {
            self.due.get_or_insert(now + PATIENCE);
        }
        stream.held = Some(Held { timestamp: line.timestamp, text: line.message, cut: line.cut, until: now + PATIENCE });
        if is_whole { stream.let_go(self.joining, judge, sink) } else { Ok(()) }
    }

    /// Nothing more comes from a container: lets go of what is held of it.
    ///
    /// # Errors
    /// When the sink can't take a record.
    pub(crate) fn close(&mut self, source: &Arc<Source>, judge: &mut Judge, sink: &mut dyn Sink) -> Result<()> {
        match self.streams.remove(&address(source)) {
            Some(mut stream) => stream.let_go(self.joining, judge, sink),
            None => Ok(()),
        }
    }

    /// When the next held record may have waited long enough.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due
    }

    /// Lets go of what has waited long enough by `now`; of all, at the end.
    ///
    /// # Errors
    /// When the sink can't take a record.
    pub(crate) fn release(&mut self, now: Option<Instant>, judge: &mut Judge, sink: &mut dyn Sink) -> Result<()> {
        if now.is_some_and(|now| self.due.is_none_or(|due| now < due)) {
            return Ok(());
        }
        let is_due = |held: &Held| now.is_none_or(|now| held.until <= now);
        let mut due: Vec<&mut Stream> = self.streams.values_mut().filter(|stream| stream.held.as_ref().is_some_and(is_due)).collect();
        // In the order in which they were said.
        due.sort_by_key(|stream| stream.held.as_ref().map(|held| held.timestamp));
        due.into_iter().try_for_each(|stream| stream.let_go(self.joining, judge, sink))?;
        self.due = self.streams.values().filter_map(|stream| stream.held.as_ref().map(|held| held.until)).min();
        Ok(())
    }
}

fn address(source: &Arc<Source>) -> usize {
    Arc::as_ptr(source) as usize
}

impl Stream {
    fn let_go(&mut self, joining: Joining, judge: &mut Judge, sink: &mut dyn Sink) -> Result<()> {
        match self.held.take() {
            Some(held) => self.offer(joining, held.timestamp, &held.text, held.cut, judge, sink),
            None => Ok(()),
        }
    }

    fn offer(
        &mut self,
        joining: Joining,
        timestamp: Timestamp,
        text: &[u8],
        cut: u64,
        judge: &mut Judge,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let first = &text[..memchr::memchr(b'\n', text).unwrap_or(text.len())];
        let format = if joining.recognises { self.sticky.recognise(first) } else { super::Format::Plain };
        let trace = self.fold.trace();
        let record = Record { source: &self.source, place: &self.place, timestamp: Some(timestamp), text, cut, format, trace };
        judge.offer(&mut self.memory, &record, sink)
    }
}

#[cfg(test)]
mod tests;
