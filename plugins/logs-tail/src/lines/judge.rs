//! Which records go on to the output: those that the filter wants, those around
//! them, or none but a count of equal traces. Pure.

use super::Record;
use super::diff::Before;
use super::filter::{Filter, Verdict};
use super::fold::Trace;
use super::format::Format;
use super::group::Groups;
use jiff::Timestamp;
use std::collections::VecDeque;
use std::io::Result;

/// What takes the records that are wanted.
pub(crate) trait Sink {
    /// Takes one.
    fn record(&mut self, record: &Record<'_>) -> Result<()>;
    /// Others were left out here, between records with those around them.
    fn separator(&mut self) -> Result<()>;
}

/// Records around a wanted one are kept up to so many bytes.
const MOST_CONTEXT: usize = 16 * 1024 * 1024;

/// How many records around a wanted one are wanted, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Around {
    pub(crate) before: usize,
    pub(crate) after: usize,
}

impl Around {
    fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// What has to be remembered of one container's records.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    before: VecDeque<Kept>,
    bytes: usize,
    after: usize,
    has_left_out: bool,
}

#[derive(Debug)]
struct Kept {
    timestamp: Option<Timestamp>,
    text: Vec<u8>,
    cut: u64,
    format: Format,
    trace: Option<Trace>,
}

/// Decides record by record.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) filter: Filter,
    pub(crate) around: Around,
    pub(crate) groups: Option<Groups>,
    pub(crate) before: Option<Before>,
    has_printed: bool,
}

impl Judge {
    pub(crate) fn new(filter: Filter, around: Around, groups: Option<Groups>, before: Option<Before>) -> Self {
        Self { filter, around, groups, before, has_printed: false }
    }

    /// Takes a record; `memory` is that of its container.
    ///
    /// # Errors
    /// When the sink can't take it.
    pub(crate) fn offer(&mut self, memory: &mut Memory, record: &Record<'_>, sink: &mut dyn Sink) -> Result<()> {
        let verdict = match &self.before {
            Some(before) if !before.is_new(record.source, record.text) => Verdict::Unwanted,
            _ => self.filter.judge(record),
        };
        if let Some(groups) = &mut self.groups {
            if verdict != Verdict::Unwanted && record.trace.is_some() {
                groups.add(record.text, record.timestamp, record.place);
            }
            return Ok(());
        }
        if self.around.is_none() {
            return match verdict {
                Verdict::Unwanted => Ok(()),
                verdict => emit(verdict, record, sink),
            };
        }
        self.with_around(verdict, memory, record, sink)
    }

    fn with_around(&mut self, verdict: Verdict, memory: &mut Memory, record: &Record<'_>, sink: &mut dyn Sink) -> Result<()> {
        if verdict == Verdict::Unwanted {
            if memory.after > 0 {
                memory.after -= 1;
                return sink.record(record);
            }
            memory.keep(self.around.before, record);
            return Ok(());
        }
        if memory.has_left_out && self.has_printed {
            sink.separator()?;
        }
        memory.has_left_out = false;
        for kept in memory.before.drain(..) {
            let Kept { timestamp, text, cut, format, trace } = kept;
            sink.record(&Record { timestamp, text: &text, cut, format, trace, ..*record })?;
        }
        memory.bytes = 0;
        self.has_printed = true;
        memory.after = self.around.after;
        emit(verdict, record, sink)
    }
}

fn emit(verdict: Verdict, record: &Record<'_>, sink: &mut dyn Sink) -> Result<()> {
    match verdict {
        Verdict::Changed(texts) => texts.iter().try_for_each(|text| {
            let format = Format::sniff(text);
            sink.record(&Record { text, format, ..*record })
        }),
        _ => sink.record(record),
    }
}

impl Memory {
    /// Keeps the last `most` records.
    fn keep(&mut self, most: usize, record: &Record<'_>) {
        if most == 0 || record.text.len() > MOST_CONTEXT {
            self.has_left_out = true;
            return;
        }
        self.bytes += record.text.len();
        let &Record { timestamp, text, cut, format, trace, .. } = record;
        self.before.push_back(Kept { timestamp, text: text.to_vec(), cut, format, trace });
        while self.before.len() > most || self.bytes > MOST_CONTEXT {
            self.has_left_out = true;
            self.bytes -= self.before.pop_front().map_or(0, |kept| kept.text.len());
        }
    }
}
