//! Writes events: lines to stdout, all else to stderr, on a thread of its own,
//! so that a terminal that stands still holds up the readers but not Ctrl-C.

use crate::args::OutputFormat;
use crate::render::{Look, Renderer, path};
use console::Style;
use devloop_core::logs::{LogEvent, Origin};
use devloop_core::ui::Ui;
use devloop_core::{CommandError, Result};
use std::collections::HashSet;
use std::io::{BufWriter, ErrorKind, Write};
use tokio::sync::mpsc;

/// Prints events to `output` until there are none or stdout is closed; a
/// closed stdout is not an error. Returns how many lines there were.
///
/// # Errors
/// When stdout can't be written.
pub(crate) fn print(ui: &Ui, look: Look, output: impl Write, mut events_rx: mpsc::Receiver<LogEvent>) -> Result<u64> {
    let mut printer = Printer {
        ui,
        look,
        renderer: Renderer::new(look),
        output: BufWriter::with_capacity(64 * 1024, output),
        away: HashSet::new(),
        lines: 0,
    };
    match printer.run(&mut events_rx) {
        Ok(()) => Ok(printer.lines),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            // What is left in the buffer has nowhere to go.
            let _ = printer.output.into_parts();
            Ok(printer.lines)
        }
        Err(error) => Err(CommandError::new("could not write to stdout").caused_by(error)),
    }
}

struct Printer<'a, W: Write> {
    ui: &'a Ui,
    look: Look,
    renderer: Renderer,
    output: BufWriter<W>,
    /// What has lost its connection.
    away: HashSet<Origin>,
    lines: u64,
}

impl<W: Write> Printer<'_, W> {
    fn run(&mut self, events_rx: &mut mpsc::Receiver<LogEvent>) -> std::io::Result<()> {
        loop {
            let event = match events_rx.try_recv() {
                Ok(event) => event,
                Err(_) => {
                    // Nothing is waiting: what was written should be seen.
                    self.output.flush()?;
                    match events_rx.blocking_recv() {
                        Some(event) => event,
                        None => return Ok(()),
                    }
                }
            };
            self.event(event)?;
        }
    }

    fn event(&mut self, event: LogEvent) -> std::io::Result<()> {
        let is_readable = self.look.output == OutputFormat::Default;
        match event {
            LogEvent::Line(line) => {
                self.lines += 1;
                self.output.write_all(&self.renderer.line(&line))?;
            }
            LogEvent::Opened(source) => {
                self.renderer.expect(&source);
                if is_readable {
                    self.say(&format!("{} {}", Style::new().for_stderr().green().apply_to("+"), path(&source)))?;
                }
            }
            LogEvent::Closed(source) => {
                self.away.remove(&Origin::Log(source.clone()));
                if is_readable {
                    self.say(&format!("{} {}", Style::new().for_stderr().red().apply_to("-"), path(&source)))?;
                }
            }
            LogEvent::Gap(source, why) => {
                self.output.flush()?;
                self.ui.warn(format!("{}: {why}", path(&source)));
            }
            LogEvent::Notice(source, what) => self.say(&format!("{}: the kubelet says: {}", path(&source), what.escape_debug()))?,
            LogEvent::Interrupted(origin, why) => {
                if self.away.is_empty() {
                    self.output.flush()?;
                    self.ui.warn(format!("the connection is lost ({why}); trying again"));
                }
                self.away.insert(origin);
            }
            LogEvent::Restored(origin) => {
                if self.away.remove(&origin) && self.away.is_empty() {
                    self.say("connected again")?;
                }
            }
            LogEvent::NoPods => self.say("no pod yet; waiting for one")?,
        }
        Ok(())
    }

    /// Says something in its place among the lines.
    fn say(&mut self, text: &str) -> std::io::Result<()> {
        self.output.flush()?;
        self.ui.say(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devloop_core::logs::{LogLine, Source};
    use devloop_core::ui::Volume;
    use std::sync::Arc;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn print_lines(output: impl Write, count: usize) -> Result<u64> {
        let source = Arc::new(Source { namespace: "shop".into(), pod: "web".into(), container: "app".into(), has_siblings: false });
        let (events_tx, events_rx) = mpsc::channel(count);
        for _ in 0..count {
            let line = LogLine { source: Arc::clone(&source), timestamp: jiff::Timestamp::UNIX_EPOCH, message: b"hello".to_vec(), cut: 0 };
            events_tx.try_send(LogEvent::Line(line)).unwrap();
        }
        drop(events_tx);
        let look = Look { output: OutputFormat::Raw, timestamps: false, colors: false, is_terminal: false };
        print(&Ui::stderr(Volume::Quiet), look, output, events_rx)
    }

    #[test]
    fn all_lines_are_written_before_the_end() {
        let mut output = Vec::new();
        assert_eq!(print_lines(&mut output, 3).unwrap(), 3);
        assert_eq!(output, b"hello\nhello\nhello\n");
    }

    #[test]
    fn a_closed_stdout_is_the_end_and_no_error() {
        assert!(print_lines(Closed, 100_000).is_ok());
    }
}
