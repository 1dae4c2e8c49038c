//! What is said about a session: lines for people on stderr, events for tools on
//! stdout, one JSON object a line.

use crate::trace::Call;
use devloop_core::output;
use devloop_core::ui::{Ui, human_duration};
use devloop_core::{CommandError, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Something happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(crate) enum Event {
    /// The debugger is attached and its port is open.
    Attached {
        pod: String,
        container: String,
        pid: u32,
        runtime: String,
        via: &'static str,
        /// What may be spoken on the port.
        #[serde(skip)]
        protocols: &'static str,
        /// None where the editor speaks on stdin.
        #[serde(skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// How long the process stood still, in milliseconds; nothing where it does so
        /// only when an editor comes.
        #[serde(skip_serializing_if = "Option::is_none")]
        stopped_ms: Option<f64>,
        /// The ephemeral container.
        #[serde(skip_serializing_if = "Option::is_none")]
        ephemeral: Option<String>,
        substitute_path: Vec<crate::sources::Rule>,
        sources_found: usize,
        sources_all: usize,
        phases_ms: BTreeMap<&'static str, f64>,
    },
    /// Calls are told from now on.
    Tracing {
        /// The functions that the names meant.
        functions: Vec<String>,
    },
    /// A function is called.
    Call(Call),
    /// A function comes back to its caller.
    Return(Call),
    /// An editor came, for which the process stood still; it runs now.
    Joined { stopped_ms: f64 },
    /// An editor went away.
    Left {
        /// Breakpoints that it left, now removed.
        breakpoints: usize,
    },
    /// The connection to the debugger broke.
    Lost { reason: String },
    /// The process is not what it was; what takes its place is attached to.
    Gone {
        /// Whether it runs another program, and has not ended.
        replaced: bool,
    },
    /// It is attached again.
    Reattached,
    /// The debugger is gone; the process runs on.
    Detached {
        /// Breakpoints that were found in its code, and taken out.
        repaired: u32,
    },
}

impl Event {
    fn text(&self) -> String {
        match self {
            Self::Attached { pod, container, pid, runtime, via, protocols, port, stopped_ms, .. } => {
                let at = port.map_or_else(|| "on stdin and stdout".to_owned(), |port| format!("on 127.0.0.1:{port}"));
                let done = match stopped_ms {
                    Some(stopped) => {
                        format!("attached to process {pid} ({runtime}) of {pod}/{container}, via {via}; it stood still for {stopped:.0} ms")
                    }
                    None => format!(
                        "ready for process {pid} ({runtime}) of {pod}/{container}, via {via}; it stands still while an editor attaches"
                    ),
                };
                format!("{done}\nthe debugger listens {at} ({protocols}); Ctrl-C detaches")
            }
            Self::Tracing { functions } => format!("tracing {}; Ctrl-C ends it", functions.join(", ")),
            Self::Call(call) => call.text(false),
            Self::Return(call) => call.text(true),
            Self::Joined { stopped_ms } => format!("an editor came; the process stood still for {stopped_ms:.0} ms"),
            Self::Left { breakpoints: 0 } => "the editor left; the process runs on".to_owned(),
            Self::Left { breakpoints } => format!("the editor left; breakpoints removed: {breakpoints}; the process runs on"),
            Self::Lost { reason } => format!("lost the connection to the debugger ({reason}); attaching again"),
            Self::Gone { replaced: true } => "the process runs a new program; attaching to that".to_owned(),
            Self::Gone { replaced: false } => "the process has ended; attaching to what takes its place".to_owned(),
            Self::Reattached => "attached again; editors have to connect anew".to_owned(),
            Self::Detached { repaired: 0 } => "detached; the process runs on".to_owned(),
            Self::Detached { repaired } => format!("detached; breakpoints taken out of the process: {repaired}; it runs on"),
        }
    }
}

/// Says what happens.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    pub(crate) ui: Ui,
    pub(crate) as_json: bool,
}

impl Reporter {
    pub(crate) fn tell(&self, event: &Event) -> Result<()> {
        match event {
            // That is what the command is there for.
            Event::Call(_) | Event::Return(_) if !self.as_json => return output::line(&event.text()),
            _ if !self.as_json => {
                self.ui.say(event.text());
                return Ok(());
            }
            _ => {}
        }
        let text = serde_json::to_string(event).map_err(|error| CommandError::new("could not write JSON").caused_by(error))?;
        output::line(&text)
    }
}

/// How long each part of the way took.
#[derive(Debug)]
pub(crate) struct Phases {
    started: Instant,
    last: Instant,
    pub(crate) all: BTreeMap<&'static str, f64>,
}

impl Phases {
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self { started: now, last: now, all: BTreeMap::new() }
    }

    /// Ends a part.
    pub(crate) fn end(&mut self, name: &'static str) {
        let now = Instant::now();
        self.all.insert(name, milliseconds(now - self.last));
        self.all.insert("total", milliseconds(now - self.started));
        tracing::debug!(phase = name, took = human_duration(now - self.last), "done");
        self.last = now;
    }
}

/// With a tenth.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_is_told_to_people_and_tools() {
        let attached = Event::Attached {
            pod: "web-7d4b9-x".to_owned(),
            container: "web".to_owned(),
            pid: 1,
            runtime: "Go 1.26.8".to_owned(),
            via: "node",
            protocols: "DAP, and `dlv connect`",
            port: Some(23_456),
            stopped_ms: Some(81.5),
            ephemeral: None,
            substitute_path: Vec::new(),
            sources_found: 10,
            sources_all: 12,
            phases_ms: [("total", 450.1)].into(),
        };
        let call = |name: &str, value: &str| Call {
            time: jiff::Timestamp::UNIX_EPOCH,
            function: "main.buy".to_owned(),
            goroutine: 18,
            values: vec![crate::trace::Named { name: name.to_owned(), value: value.to_owned() }],
            file: "/home/dev/shop/main.go".to_owned(),
            line: 3,
        };
        let events = [
            attached,
            Event::Tracing { functions: vec!["main.buy".to_owned()] },
            Event::Call(call("name", "\"tea\"")),
            Event::Return(call("", "6")),
            Event::Joined { stopped_ms: 120.5 },
            Event::Left { breakpoints: 0 },
            Event::Left { breakpoints: 2 },
            Event::Lost { reason: "the connection ended".to_owned() },
            Event::Reattached,
            Event::Detached { repaired: 0 },
            Event::Gone { replaced: true },
            Event::Gone { replaced: false },
            Event::Detached { repaired: 3 },
        ];
        let lines: Vec<String> =
            events.iter().map(|event| format!("{}\n{}", event.text(), serde_json::to_string(event).unwrap())).collect();
        insta::assert_snapshot!(lines.join("\n\n"));
    }
}
