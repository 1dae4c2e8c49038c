//! Writes events: lines to stdout, all else to stderr, on a thread of its own,
//! so that a terminal that stands still holds up the readers but not Ctrl-C.

use crate::files::Files;
use crate::lines::assemble::Assembler;
use crate::lines::judge::Judge;
use crate::lines::stdin::Output;
use crate::narrator::{Narrator, Tone};
use crate::render::{Renderer, path};
use crate::setup::Setup;
use crate::writer::{Writer, is_closed};
use console::Style;
use devloop_core::logs::LogEvent;
use devloop_core::ui::Ui;
use devloop_core::{CommandError, ErrorContext, Result};
use std::io::Write;
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Prints events to `output` until there are none or stdout is closed; a
/// closed stdout is not an error. Returns how many records there were.
/// `handle` is of the runtime that the events come from.
///
/// # Errors
/// When stdout or a file can't be written.
pub(crate) fn print(
    ui: &Ui,
    setup: Setup,
    output: impl Write,
    mut events_rx: mpsc::Receiver<Vec<LogEvent>>,
    handle: &Handle,
) -> Result<u64> {
    let files = setup.files.map(Files::new).transpose().context("could not make the folder of --output-dir")?;
    let mut printer = Printer {
        ui,
        says_sources: setup.says_sources,
        assembler: Assembler::new(setup.joining),
        judge: setup.judge,
        writer: Writer::new(Renderer::new(setup.look), files, output),
        narrator: Narrator::default(),
    };
    match printer.run(&mut events_rx, handle) {
        Err(error) if !is_closed(&error) => Err(CommandError::new("could not write the lines").caused_by(error)),
        _ => Ok(printer.writer.records),
    }
}

struct Printer<'a, W: Write> {
    ui: &'a Ui,
    says_sources: bool,
    assembler: Assembler,
    judge: Judge,
    writer: Writer<W>,
    narrator: Narrator,
}

impl<W: Write> Printer<'_, W> {
    fn run(&mut self, events_rx: &mut mpsc::Receiver<Vec<LogEvent>>, handle: &Handle) -> std::io::Result<()> {
        loop {
            let events = match events_rx.try_recv() {
                Ok(events) => events,
                Err(_) => {
                    // Nothing is waiting: what was written should be seen.
                    self.writer.flush()?;
                    match self.wait(events_rx, handle) {
                        Waited::Events(events) => events,
                        Waited::Due => Vec::new(),
                        Waited::End => break,
                    }
                }
            };
            let now = Instant::now();
            events.into_iter().try_for_each(|event| self.event(event, now))?;
            if self.assembler.next_due().is_some() {
                self.assembler.release(Some(now), &mut self.judge, &mut self.writer)?;
            }
        }
        self.assembler.release(None, &mut self.judge, &mut self.writer)?;
        self.writer.finish(&self.judge, self.ui)
    }

    /// Waits for events, or for the moment when a held record has to go.
    fn wait(&self, events_rx: &mut mpsc::Receiver<Vec<LogEvent>>, handle: &Handle) -> Waited {
        let Some(due) = self.assembler.next_due() else {
            return events_rx.blocking_recv().map_or(Waited::End, Waited::Events);
        };
        match handle.block_on(async { tokio::time::timeout_at(due.into(), events_rx.recv()).await }) {
            Ok(Some(events)) => Waited::Events(events),
            Ok(None) => Waited::End,
            Err(_) => Waited::Due,
        }
    }

    fn event(&mut self, event: LogEvent, now: Instant) -> std::io::Result<()> {
        if let LogEvent::Line(line) = event {
            return self.assembler.line(line, now, &mut self.judge, &mut self.writer);
        }
        if let Some(note) = self.narrator.tell(&event) {
            if note.tone != Tone::Warning {
                return self.say(&note.text);
            }
            self.writer.flush()?;
            self.ui.warn(note.text);
            return Ok(());
        }
        match event {
            LogEvent::Opened(source) => {
                self.writer.renderer.expect(&source);
                if self.says_sources {
                    self.say(&format!("{} {}", Style::new().for_stderr().green().apply_to("+"), path(&source)))?;
                }
            }
            LogEvent::Closed(source) => {
                self.assembler.close(&source, &mut self.judge, &mut self.writer)?;
                if self.says_sources {
                    self.say(&format!("{} {}", Style::new().for_stderr().red().apply_to("-"), path(&source)))?;
                }
            }
            LogEvent::Happened(happening) => {
                let style = if happening.is_warning { Style::new().for_stderr().yellow() } else { Style::new().for_stderr().cyan() };
                self.say(&format!("{} {}: {}", style.apply_to("*"), happening.pod, happening.what))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Says something in its place among the lines.
    fn say(&mut self, text: &str) -> std::io::Result<()> {
        self.writer.flush()?;
        self.ui.say(text);
        Ok(())
    }
}

enum Waited {
    Events(Vec<LogEvent>),
    Due,
    End,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use clap::Parser;
    use devloop_core::logs::{LogLine, Source};
    use devloop_core::ui::Volume;
    use std::io::{ErrorKind, Read};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn print_lines(output: impl Write, count: usize, arguments: &[&str]) -> Result<u64> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let source = Arc::new(Source {
            namespace: "shop".into(),
            pod: "web".into(),
            container: "app".into(),
            has_siblings: false,
            ..Source::default()
        });
        let (events_tx, events_rx) = mpsc::channel(count);
        for _ in 0..count {
            let line = LogLine { source: Arc::clone(&source), timestamp: jiff::Timestamp::UNIX_EPOCH, message: b"hello".to_vec(), cut: 0 };
            events_tx.try_send(vec![LogEvent::Line(line)]).unwrap();
        }
        drop(events_tx);
        let args = Args::try_parse_from(["kubectl-logs_tail", "web"].iter().chain(arguments)).unwrap();
        let setup = Setup::new(&args.lines, &args.output, None, false).unwrap();
        print(&Ui::stderr(Volume::Quiet), setup, output, events_rx, runtime.handle())
    }

    #[test]
    fn all_lines_are_written_before_the_end() {
        for more in [&[][..], &["--fold"]] {
            let mut output = Vec::new();
            assert_eq!(print_lines(&mut output, 3, &[&["-o", "raw"], more].concat()).unwrap(), 3);
            assert_eq!(output, b"hello\nhello\nhello\n");
        }
    }

    /// What is written and not yet read stays small, however slow the reader is.
    #[test]
    fn a_reader_of_a_kilobyte_at_a_time_holds_up_what_comes_and_loses_nothing() {
        const BATCHES: usize = 500;
        const LINES: usize = 100;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (events_tx, events_rx) = mpsc::channel(2);
        let handle = runtime.handle().clone();
        let printing = std::thread::spawn(move || {
            let args = Args::try_parse_from(["kubectl-logs_tail", "web", "-o", "raw"]).unwrap();
            let setup = Setup::new(&args.lines, &args.output, None, false).unwrap();
            print(&Ui::stderr(Volume::Quiet), setup, writer, events_rx, &handle).unwrap()
        });
        let sent = Arc::new(AtomicUsize::new(0));
        let its = Arc::clone(&sent);
        let sending = std::thread::spawn(move || {
            let source = Arc::new(Source { pod: "web".into(), ..Source::default() });
            for batch in 0..BATCHES {
                let line = |number| {
                    let message = format!("{:0>99}", batch * LINES + number).into_bytes();
                    LogEvent::Line(LogLine { source: Arc::clone(&source), timestamp: jiff::Timestamp::UNIX_EPOCH, message, cut: 0 })
                };
                events_tx.blocking_send((0..LINES).map(line).collect()).unwrap();
                its.fetch_add(LINES * 100, Ordering::SeqCst);
            }
        });
        let mut text = Vec::new();
        let mut kilobyte = [0; 1024];
        loop {
            let length = reader.read(&mut kilobyte).unwrap();
            text.extend_from_slice(&kilobyte[..length]);
            let ahead = sent.load(Ordering::SeqCst).saturating_sub(text.len());
            assert!(ahead < 256 * 1024, "{ahead} bytes");
            if length == 0 {
                break;
            }
        }
        sending.join().unwrap();
        assert_eq!(printing.join().unwrap(), (BATCHES * LINES) as u64);
        let numbers: Vec<usize> =
            text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()?.parse().ok()).collect();
        assert!(numbers == (0..BATCHES * LINES).collect::<Vec<_>>(), "{} lines", numbers.len());
    }

    #[test]
    fn a_closed_stdout_is_the_end_and_no_error() {
        assert!(print_lines(Closed, 100_000, &["-o", "raw"]).is_ok());
    }
}
