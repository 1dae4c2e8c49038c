//! What a person sees while a command works, on stderr.
//!
//! On a terminal: a spinner with the elapsed time for work that takes longer
//! than 250 ms, replaced by one line when it is done. Elsewhere: plain lines, a
//! heartbeat every 30 s. Meaning never depends on colour.

use crate::error::CommandError;
use console::{Style, Term};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Volume {
    /// Errors only.
    Quiet,
    /// Steps and results.
    #[default]
    Normal,
}

/// The way to a person's eyes.
#[derive(Clone, Debug)]
pub struct Ui {
    term: Term,
    volume: Volume,
}

impl Ui {
    /// Writes to stderr.
    pub fn stderr(volume: Volume) -> Self {
        Self { term: Term::stderr(), volume }
    }

    /// Whether a person watches a terminal.
    pub fn is_interactive(&self) -> bool {
        self.term.is_term()
    }

    /// Whether only errors and warnings are said.
    pub fn is_quiet(&self) -> bool {
        self.volume == Volume::Quiet
    }

    /// Says one line, unless quiet.
    pub fn say(&self, line: impl AsRef<str>) {
        if self.volume != Volume::Quiet {
            self.write(line.as_ref());
        }
    }

    /// Says a warning, even when quiet.
    pub fn warn(&self, line: impl AsRef<str>) {
        self.write(&format!("{} {}", Style::new().for_stderr().yellow().bold().apply_to("Warning:"), line.as_ref()));
    }

    /// Says why a command failed: the error, its causes, what to do.
    pub fn error(&self, error: &CommandError) {
        self.write(&render_error(error));
    }

    /// Starts a piece of work; the returned guard ends it.
    #[must_use]
    pub fn step(&self, what: impl Into<String>) -> Step {
        Step::start(self.clone(), what.into())
    }

    fn write(&self, text: &str) {
        // Nobody is left to tell when stderr is closed.
        let _ = self.term.write_line(text);
    }
}

/// `Error:` / `Caused by:` / `Hint:`, coloured when stderr is.
pub fn render_error(error: &CommandError) -> String {
    let red = Style::new().for_stderr().red().bold();
    let cyan = Style::new().for_stderr().cyan().bold();
    let mut lines = Vec::new();
    for (index, message) in error.chain().iter().enumerate() {
        let label = if index == 0 { red.apply_to("Error:") } else { red.apply_to("Caused by:") };
        lines.push(format!("{label} {message}"));
    }
    for hint in error.hints() {
        lines.push(format!("{} {hint}", cyan.apply_to("Hint:")));
    }
    lines.join("\n")
}

/// One piece of work that a person may wait for.
#[derive(Debug)]
pub struct Step {
    ui: Ui,
    what: String,
    started: Instant,
    bar: Option<ProgressBar>,
    ended: Arc<AtomicBool>,
}

impl Step {
    fn start(ui: Ui, what: String) -> Self {
        let started = Instant::now();
        let ended = Arc::new(AtomicBool::new(false));
        let bar = (ui.is_interactive() && ui.volume != Volume::Quiet).then(|| spinner(&what, &ended));
        if bar.is_none() {
            heartbeat(ui.clone(), what.clone(), started, Arc::clone(&ended));
        }
        Self { ui, what, started, bar, ended }
    }

    /// Shows what the work is at now, on a terminal.
    pub fn detail(&self, detail: impl AsRef<str>) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} {}", self.what, Style::new().for_stderr().dim().apply_to(detail.as_ref())));
        }
    }

    /// Says a line while the work goes on.
    pub fn say(&self, line: impl AsRef<str>) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.ui.say(line)),
            None => self.ui.say(line),
        }
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends the work well; says `result` and the time it took.
    pub fn done(self, result: impl AsRef<str>) {
        let line = format!(
            "{} {} {}",
            Style::new().for_stderr().green().apply_to("✓"),
            result.as_ref(),
            Style::new().for_stderr().dim().apply_to(format!("({})", human_duration(self.started.elapsed())))
        );
        self.clear();
        self.ui.say(line);
    }

    /// Ends the work without a word, for results not worth a line.
    pub fn clear(&self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.clear();
    }
}

fn spinner(what: &str, ended: &Arc<AtomicBool>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    let (delayed, ended) = (bar.clone(), Arc::clone(ended));
    // Work that is over in a blink shows no spinner.
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(250));
        if !ended.load(Ordering::Relaxed) {
            delayed.set_draw_target(ProgressDrawTarget::stderr());
            delayed.enable_steady_tick(Duration::from_millis(100));
        }
    });
    bar
}

/// Off a terminal: a line once the work has taken a second, then every 30 s, so
/// that a log shows what is being waited for.
fn heartbeat(ui: Ui, what: String, started: Instant, ended: Arc<AtomicBool>) {
    if ui.volume == Volume::Quiet {
        return;
    }
    std::thread::spawn(move || {
        let mut next = Duration::from_secs(1);
        loop {
            std::thread::sleep(Duration::from_millis(100));
            if ended.load(Ordering::Relaxed) {
                return;
            }
            if started.elapsed() >= next {
                ui.say(format!("… {what} ({})", human_duration(started.elapsed())));
                next += Duration::from_secs(30);
            }
        }
    });
}

/// A duration in the unit that reads best: `850 ms`, `4.2 s`, `7 m 03 s`.
pub fn human_duration(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{} ms", duration.as_millis()),
        seconds if seconds < 60.0 => format!("{seconds:.1} s"),
        seconds => format!("{} m {:02} s", (seconds / 60.0) as u64, (seconds % 60.0) as u64),
    }
}

/// A size in binary units: `512 B`, `1.5 MiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_well() {
        assert_eq!(human_duration(Duration::from_millis(850)), "850 ms");
        assert_eq!(human_duration(Duration::from_millis(4_210)), "4.2 s");
        assert_eq!(human_duration(Duration::from_secs(423)), "7 m 03 s");
        assert_eq!(human_bytes(512), "512 B");
        assert_eq!(human_bytes(1_572_864), "1.5 MiB");
    }

    #[test]
    fn an_error_reads_from_the_outside_in() {
        let error = CommandError::new("could not start the cluster")
            .caused_by(CommandError::new("etcd ended with exit code 1").with_hint("free some disk space"));
        insta::assert_snapshot!(console::strip_ansi_codes(&render_error(&error)), @r"
        Error: could not start the cluster
        Caused by: etcd ended with exit code 1
        Hint: free some disk space
        ");
    }
}
