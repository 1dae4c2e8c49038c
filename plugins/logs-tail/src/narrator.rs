//! What is said about the logs themselves, in the same words on stderr and on the
//! screen. Pure.

use crate::render::path;
use devloop_core::logs::{Held, LogEvent, Origin};
use devloop_core::ui::human_bytes;
use std::collections::HashSet;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    News,
    /// Nothing is lost, but somebody should know.
    Concern,
    Warning,
}

/// Something to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) tone: Tone,
    pub(crate) text: String,
}

/// Tells what happens, a lost connection once however many logs it carries.
#[derive(Debug, Default)]
pub(crate) struct Narrator {
    /// What has lost its connection.
    away: HashSet<Origin>,
}

impl Narrator {
    /// What an event is worth saying; nothing for those that each output shows in
    /// its own way: lines, containers that come and go, and what happens to pods.
    pub(crate) fn tell(&mut self, event: &LogEvent) -> Option<Note> {
        let note = |tone, text| Some(Note { tone, text });
        match event {
            LogEvent::Line(_) | LogEvent::Opened(_) | LogEvent::Happened(_) => None,
            LogEvent::Closed(source) => {
                self.away.remove(&Origin::Log(source.clone()));
                None
            }
            LogEvent::Gap(source, why) => note(Tone::Warning, format!("{}: {why}", path(source))),
            LogEvent::Notice(source, what) => note(Tone::News, format!("{}: the kubelet says: {}", path(source), what.escape_debug())),
            LogEvent::Interrupted(origin, why) => {
                let is_first = self.away.is_empty();
                self.away.insert(origin.clone());
                if is_first { note(Tone::Warning, format!("the connection is lost ({why}); trying again")) } else { None }
            }
            LogEvent::Restored(origin) if self.away.remove(origin) && self.away.is_empty() => note(Tone::News, "connected again".into()),
            LogEvent::Restored(_) => None,
            LogEvent::Failed(what, error) => {
                let chain = devloop_core::telemetry::error_chain(&**error);
                note(Tone::Warning, format!("{what} can't be read ({chain}); the rest goes on"))
            }
            LogEvent::NoPods => note(Tone::News, "no pod yet; waiting for one".into()),
        }
    }
}

/// What is said of lines that wait for the output.
pub(crate) fn tell_held(held: &Held) -> Note {
    let Held { whose, bytes } = held;
    match bytes {
        0 => Note { tone: Tone::News, text: format!("{whose}: the output has caught up") },
        bytes => Note { tone: Tone::Concern, text: format!("{whose}: the output is slow; {} wait for it", human_bytes(*bytes)) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devloop_core::logs::Source;
    use std::sync::Arc;

    #[test]
    fn a_connection_is_lost_and_found_once() {
        let source = |pod: &str| Origin::Log(Arc::new(Source { pod: pod.into(), ..Source::default() }));
        let mut narrator = Narrator::default();
        let mut tell = |event: LogEvent| narrator.tell(&event).map(|note| (note.tone, note.text));
        let lost = |pod: &str| LogEvent::Interrupted(source(pod), "reset".into());
        assert_eq!(tell(lost("a")), Some((Tone::Warning, "the connection is lost (reset); trying again".into())));
        assert_eq!(tell(lost("b")), None);
        assert_eq!(tell(LogEvent::Restored(source("c"))), None, "it was never lost");
        assert_eq!(tell(LogEvent::Restored(source("b"))), None);
        assert_eq!(tell(LogEvent::Restored(source("a"))), Some((Tone::News, "connected again".into())));
        // One whose pod is gone isn't waited for.
        assert!(tell(lost("a")).is_some());
        assert_eq!(tell(LogEvent::Closed(Arc::new(Source { pod: "a".into(), ..Source::default() }))), None);
        assert!(tell(lost("b")).is_some());
    }
}
