//! What a build has come to, from what the builder tells. Pure.

use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Duration;

/// So much of what a step says is kept: its end, where it says why it failed.
const KEPT_LINES: usize = 24;
const LONGEST_LINE: usize = 400;

/// Something that the one who waits may want to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step has begun.
    Began(String),
    /// A step came to its end.
    Ended(Step),
    /// A step says something.
    Said(String),
    /// The builder finds something questionable.
    Warned(String),
}

/// A step that came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// As the builder calls it: `[2/3] RUN make`.
    pub name: String,
    /// Whether its result was there already.
    pub cached: bool,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// News of a builder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Update {
    pub(super) steps: Vec<StepNews>,
    /// Of which step, and what.
    pub(super) said: Vec<(String, Vec<u8>)>,
    pub(super) warnings: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StepNews {
    pub(super) id: String,
    pub(super) name: String,
    /// Since 1970.
    pub(super) started: Option<Duration>,
    pub(super) completed: Option<Duration>,
    pub(super) cached: bool,
    /// Empty unless it failed.
    pub(super) error: String,
}

/// The step that a build failed at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) step: String,
    pub(super) error: String,
    pub(super) said: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Progress {
    steps: BTreeMap<String, State>,
    ended: Vec<Step>,
    failed: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    name: String,
    error: String,
    has_begun: bool,
    has_ended: bool,
    said: Lines,
}

impl Progress {
    /// Takes news; each step begins and ends once, however often it is told.
    pub(super) fn take(&mut self, update: Update) -> Vec<Event> {
        let mut events = Vec::new();
        for news in update.steps {
            let state = self.steps.entry(news.id.clone()).or_default();
            if !news.name.is_empty() {
                state.name.clone_from(&news.name);
            }
            if news.started.is_some() && !state.has_begun {
                state.has_begun = true;
                events.push(Event::Began(state.name.clone()));
            }
            if !news.error.is_empty() {
                state.error.clone_from(&news.error);
                // The others end because one of them failed.
                if !is_cancelled(&news.error) && self.failed.is_none() {
                    self.failed = Some(news.id.clone());
                }
            }
            if news.completed.is_some() && !state.has_ended && news.error.is_empty() {
                state.has_ended = true;
                let took = news.completed.zip(news.started).map(|(end, start)| end.saturating_sub(start)).unwrap_or_default();
                let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                if is_shown(&state.name) {
                    let step = Step { name: state.name.clone(), cached: news.cached, ms };
                    self.ended.push(step.clone());
                    events.push(Event::Ended(step));
                }
            }
        }
        for (id, bytes) in update.said {
            let state = self.steps.entry(id).or_default();
            events.extend(state.said.take(&bytes).into_iter().map(Event::Said));
        }
        events.extend(update.warnings.into_iter().map(Event::Warned));
        events
    }

    /// The step that failed, if one did.
    pub(super) fn failure(&self) -> Option<Failure> {
        let state = self.steps.get(self.failed.as_ref()?)?;
        Some(Failure { step: state.name.clone(), error: state.error.clone(), said: state.said.all() })
    }

    /// The steps that came to a good end, in that order.
    pub(super) fn into_steps(self) -> Vec<Step> {
        self.ended
    }
}

/// Steps of the Dockerfile; what a builder does by itself is of no interest
/// unless it fails.
fn is_shown(name: &str) -> bool {
    name.starts_with('[') && !name.starts_with("[internal]") && !name.starts_with("[auth]")
}

fn is_cancelled(error: &str) -> bool {
    error.ends_with("context canceled") || error.ends_with("Canceled desc = context canceled")
}

/// The last lines of a stream of bytes.
#[derive(Debug, Default)]
struct Lines {
    whole: VecDeque<String>,
    /// A line whose end is still to come.
    part: Vec<u8>,
}

impl Lines {
    /// Answers the lines that are whole now.
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut new = Vec::new();
        self.part.extend_from_slice(bytes);
        while let Some(end) = self.part.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.part.drain(..=end).collect();
            new.extend(plain(&line));
        }
        // Bars that draw themselves anew never end their line.
        let excess = self.part.len().saturating_sub(64 * 1024);
        self.part.drain(..excess);
        self.whole.extend(new.iter().cloned());
        let excess = self.whole.len().saturating_sub(KEPT_LINES);
        self.whole.drain(..excess);
        new
    }

    fn all(&self) -> Vec<String> {
        self.whole.iter().cloned().chain(plain(&self.part)).collect()
    }
}

/// A line without what moves cursors and colours text; `None` for an empty one.
fn plain(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    let text = console::strip_ansi_codes(text.trim_end_matches(['\r', '\n']));
    let text = text.rsplit('\r').next().unwrap_or_default();
    let text: String = text.chars().filter(|character| !character.is_control() || *character == '\t').take(LONGEST_LINE).collect();
    (!text.trim().is_empty()).then(|| text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(id: &str, name: &str, started: Option<u64>, completed: Option<u64>) -> StepNews {
        let time = |ms: Option<u64>| ms.map(Duration::from_millis);
        StepNews { id: id.into(), name: name.into(), started: time(started), completed: time(completed), ..StepNews::default() }
    }

    fn steps(steps: impl IntoIterator<Item = StepNews>) -> Update {
        Update { steps: steps.into_iter().collect(), ..Update::default() }
    }

    #[test]
    fn each_step_is_told_once() {
        let mut progress = Progress::default();
        let mut events =
            progress.take(steps([news("a", "[internal] load .dockerignore", Some(1), None), news("b", "[1/2] COPY a /", None, None)]));
        events.extend(progress.take(steps([news("a", "", Some(1), Some(2)), news("b", "[1/2] COPY a /", Some(2), None)])));
        events
            .extend(progress.take(steps([news("b", "[1/2] COPY a /", Some(2), Some(14)), news("b", "[1/2] COPY a /", Some(2), Some(14))])));
        let cached = StepNews { cached: true, ..news("c", "[2/2] RUN b", Some(20), Some(20)) };
        events.extend(progress.take(steps([cached])));
        let told: Vec<String> = events
            .iter()
            .map(|event| match event {
                Event::Began(name) => format!("began {name}"),
                Event::Ended(step) => format!("ended {} {} {}", step.name, step.cached, step.ms),
                Event::Said(text) | Event::Warned(text) => text.clone(),
            })
            .collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        began [internal] load .dockerignore
        began [1/2] COPY a /
        ended [1/2] COPY a / false 12
        began [2/2] RUN b
        ended [2/2] RUN b true 0
        ");
        assert_eq!(progress.failure(), None);
        assert_eq!(progress.into_steps().len(), 2);
    }

    #[test]
    fn the_step_that_failed_is_told_from_those_that_ended_with_it() {
        let mut progress = Progress::default();
        let failed = |id: &str, name: &str, error: &str| StepNews { error: error.into(), ..news(id, name, Some(1), Some(2)) };
        progress.take(Update {
            said: vec![("b".into(), b"one\ntw".to_vec()), ("b".into(), b"o\n\x1b[31mred\x1b[0m\r\nhalf".to_vec())],
            ..Update::default()
        });
        progress.take(steps([failed("a", "[x 1/1] RUN a", "context canceled"), failed("b", "[2/2] RUN b", "exit code: 3")]));
        let failure = progress.failure().unwrap();
        assert_eq!((failure.step.as_str(), failure.error.as_str()), ("[2/2] RUN b", "exit code: 3"));
        assert_eq!(failure.said, ["one", "two", "red", "half"]);
        assert!(progress.into_steps().is_empty());
    }

    #[test]
    fn what_a_step_says_is_kept_within_bounds() {
        let mut lines = Lines::default();
        for number in 0..1000 {
            lines.take(format!("{number} {}\n", "x".repeat(1000)).as_bytes());
        }
        lines.take(&vec![b'='; 1 << 20]);
        assert_eq!(lines.whole.len(), KEPT_LINES);
        assert!(lines.whole.back().unwrap().starts_with("999 ") && lines.part.len() <= 64 * 1024);
        assert_eq!(plain(b"10%\r50%\r100%\n").unwrap(), "100%");
        assert_eq!(plain(b"\x1b[2K\n"), None);
    }
}
