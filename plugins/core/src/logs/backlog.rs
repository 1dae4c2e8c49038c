//! Lines of one container that wait on disk: the API's log would be rotated away
//! while a slow listener holds up its connection.

use super::{LogEvent, LogLine, Source};
use jiff::Timestamp;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// So much is written and read at once.
const BLOCK: usize = 64 * 1024;
/// Length, bytes that were cut, the time in nanoseconds.
const HEADER: usize = 4 + 8 + 16;

/// Events in their order, lines in an unlinked file.
#[derive(Debug)]
pub(super) struct Backlog {
    source: Arc<Source>,
    order: VecDeque<Slot>,
    file: Option<File>,
    /// What isn't in the file yet, and what was read of it.
    behind: Vec<u8>,
    ahead: Vec<u8>,
    taken: usize,
    read: u64,
    written: u64,
    bytes: u64,
}

#[derive(Debug)]
enum Slot {
    Lines(u64),
    Event(LogEvent),
}

impl Backlog {
    pub(super) fn new(source: Arc<Source>) -> Self {
        Self { source, order: VecDeque::new(), file: None, behind: Vec::new(), ahead: Vec::new(), taken: 0, read: 0, written: 0, bytes: 0 }
    }

    /// How much waits.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Takes an event; all lines have to be of the backlog's source.
    ///
    /// # Errors
    /// When the disk takes no more. The event is kept all the same.
    pub(super) fn push(&mut self, event: LogEvent) -> io::Result<()> {
        let LogEvent::Line(line) = event else {
            self.order.push_back(Slot::Event(event));
            return Ok(());
        };
        let before = self.behind.len();
        // At most LINE_LIMIT.
        self.behind.extend_from_slice(&u32::try_from(line.message.len()).unwrap_or(0).to_le_bytes());
        self.behind.extend_from_slice(&line.cut.to_le_bytes());
        self.behind.extend_from_slice(&line.timestamp.as_nanosecond().to_le_bytes());
        self.behind.extend_from_slice(&line.message);
        self.bytes += (self.behind.len() - before) as u64;
        match self.order.back_mut() {
            Some(Slot::Lines(count)) => *count += 1,
            _ => self.order.push_back(Slot::Lines(1)),
        }
        if self.behind.len() < BLOCK {
            return Ok(());
        }
        if self.file.is_none() {
            self.file = Some(tempfile::tempfile()?);
        }
        if let Some(file) = &self.file {
            file.write_all_at(&self.behind, self.written)?;
            self.written += self.behind.len() as u64;
            self.behind.clear();
        }
        Ok(())
    }

    /// The oldest event.
    ///
    /// # Errors
    /// When the disk doesn't give back what it was given.
    pub(super) fn pop(&mut self) -> io::Result<Option<LogEvent>> {
        match self.order.front_mut() {
            None => return Ok(None),
            Some(Slot::Lines(count)) if *count > 1 => *count -= 1,
            Some(_) => {
                if let Some(Slot::Event(event)) = self.order.pop_front() {
                    return Ok(Some(event));
                }
            }
        }
        let line = self.line()?;
        if self.order.is_empty()
            && let Some(file) = &self.file
        {
            file.set_len(0)?;
            (self.read, self.written) = (0, 0);
        }
        Ok(Some(LogEvent::Line(line)))
    }

    fn line(&mut self) -> io::Result<LogLine> {
        let header = self.take(HEADER)?;
        let (length, rest) = header.split_first_chunk().ok_or(io::ErrorKind::InvalidData)?;
        let (cut, rest) = rest.split_first_chunk().ok_or(io::ErrorKind::InvalidData)?;
        let (time, _) = rest.split_first_chunk().ok_or(io::ErrorKind::InvalidData)?;
        let (length, cut) = (u32::from_le_bytes(*length) as usize, u64::from_le_bytes(*cut));
        let timestamp = Timestamp::from_nanosecond(i128::from_le_bytes(*time)).map_err(io::Error::other)?;
        let message = self.take(length)?;
        self.bytes -= (HEADER + length) as u64;
        Ok(LogLine { source: Arc::clone(&self.source), timestamp, message, cut })
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() - self.taken < length {
            self.ahead.drain(..self.taken);
            self.taken = 0;
            let left = usize::try_from(self.written - self.read).unwrap_or(BLOCK).min(BLOCK);
            match &self.file {
                Some(file) if left > 0 => {
                    let end = self.ahead.len();
                    self.ahead.resize(end + left, 0);
                    file.read_exact_at(&mut self.ahead[end..], self.read)?;
                    self.read += left as u64;
                }
                _ if self.behind.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => self.ahead.append(&mut self.behind),
            }
        }
        let bytes = self.ahead[self.taken..self.taken + length].to_vec();
        self.taken += length;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(event: &LogEvent) -> String {
        match event {
            LogEvent::Line(line) => format!("{} {} {}", line.timestamp, line.cut, String::from_utf8_lossy(&line.message)),
            event => format!("{event:?}"),
        }
    }

    proptest! {
        #[test]
        fn events_come_back_in_their_order(steps in prop::collection::vec((0..30_usize, 0..40_000_usize, 0..25_usize), 1..12)) {
            let source = Arc::new(Source::default());
            let mut backlog = Backlog::new(Arc::clone(&source));
            let (mut pushed, mut popped, mut number) = (Vec::new(), Vec::new(), 0_i64);
            for (pushes, length, pops) in steps {
                for _ in 0..pushes {
                    number += 1;
                    let event = if number % 7 == 0 {
                        LogEvent::Gap(Arc::clone(&source), number.to_string())
                    } else {
                        let timestamp = Timestamp::from_nanosecond(i128::from(number) * -1_234_567_891).unwrap();
                        let message = vec![b'x'; length / 20 + usize::try_from(number % 3).unwrap()];
                        LogEvent::Line(LogLine { source: Arc::clone(&source), timestamp, message, cut: number.cast_unsigned() })
                    };
                    pushed.push(text(&event));
                    backlog.push(event).unwrap();
                }
                for _ in 0..pops {
                    popped.extend(backlog.pop().unwrap().as_ref().map(text));
                }
            }
            while let Some(event) = backlog.pop().unwrap() {
                popped.push(text(&event));
            }
            prop_assert_eq!(popped, pushed);
            prop_assert_eq!((backlog.bytes(), backlog.is_empty()), (0, true));
        }
    }
}
