//! Where records go in the end: stdout, or a file for each container.

use crate::files::Files;
use crate::lines::Record;
use crate::lines::judge::{Judge, Sink};
use crate::lines::stdin::Output;
use crate::render::{Form, Renderer, summary};
use devloop_core::ui::Ui;
use std::io::{ErrorKind, Result, Write};

/// Written at once.
const BUFFER: usize = 64 * 1024;

/// Renders records and writes them.
#[derive(Debug)]
pub(crate) struct Writer<W: Write> {
    pub(crate) renderer: Renderer,
    files: Option<Files>,
    output: W,
    buffer: Vec<u8>,
    pub(crate) records: u64,
    failures: u64,
    first_failure: Option<String>,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(renderer: Renderer, files: Option<Files>, output: W) -> Self {
        Self { renderer, files, output, buffer: Vec::with_capacity(BUFFER * 2), records: 0, failures: 0, first_failure: None }
    }

    /// Writes what is said at the end: the groups, and what went wrong on the way.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn finish(&mut self, judge: &Judge, ui: &Ui) -> Result<()> {
        if let Some(groups) = &judge.groups {
            let look = self.renderer.look();
            let text = if look.form == Form::Json { summary::json(groups) } else { summary::readable(groups, look) };
            self.buffer.extend_from_slice(text.as_bytes());
        }
        self.flush()?;
        let filter = &judge.filter;
        for (what, count, first) in [("--jq", filter.failures, &filter.first_failure), ("the template", self.failures, &self.first_failure)]
        {
            if let Some(first) = first {
                ui.warn(format!("{what} failed on {count} records, which are left out; the first time: {first}"));
            }
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        // What can't be written has nowhere to go later, either.
        let result = self.output.write_all(&self.buffer);
        self.buffer.clear();
        result
    }
}

impl<W: Write> Sink for Writer<W> {
    fn record(&mut self, record: &Record<'_>) -> Result<()> {
        self.records += 1;
        let start = self.buffer.len();
        if let Err(problem) = self.renderer.record(record, &mut self.buffer) {
            self.buffer.truncate(start);
            self.failures += 1;
            self.first_failure.get_or_insert(problem);
            return Ok(());
        }
        if let Some(files) = &mut self.files {
            let result = files.write(record.place, &self.buffer);
            self.buffer.clear();
            return result;
        }
        if self.buffer.len() >= BUFFER { self.write() } else { Ok(()) }
    }

    fn separator(&mut self) -> Result<()> {
        if self.files.is_none() {
            self.renderer.separator(&mut self.buffer);
        }
        Ok(())
    }
}

impl<W: Write> Output for Writer<W> {
    fn flush(&mut self) -> Result<()> {
        if let Some(files) = &mut self.files {
            files.flush()?;
        }
        if !self.buffer.is_empty() {
            self.write()?;
        }
        self.output.flush()
    }
}

/// Whether stdout was closed by who read it: the end, and no failure.
pub(crate) fn is_closed(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe
}
