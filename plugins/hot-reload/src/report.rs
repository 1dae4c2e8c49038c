//! What is said about what happened: a line for people, an object for tools.

use crate::args::OutputForm;
use crate::screen::Screen;
use console::Style;
use devloop_core::ui::{Ui, human_duration, render_error};
use devloop_core::{CommandError, ErrorContext, Result, output};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Happening {
    /// All is watched and every pod is in sync: changes count from here on.
    Ready,
    PodAdded,
    PodGone,
    Synced,
    /// A container's files were compared with the local ones.
    Verified,
    BuildStarted,
    BuildFailed,
    /// The build made the binary that runs already.
    Unchanged,
    Swapped,
    /// New code waits, for a debugger has the process stand still.
    Halted,
    /// An app was started again in place, with the files that it has.
    Restarted,
    /// An app took note of new files in its own way.
    Reloaded,
    /// A build made files.
    Built,
    Error,
    /// Pods are again what they were.
    Undone,
    Stopped,
}

/// One event.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) event: Happening,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) pods: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) files: Option<usize>,
    #[serde(rename = "phasesMs", skip_serializing_if = "Phases::is_empty")]
    pub(crate) phases: Phases,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Phases {
    /// From the file's modification time to the first event.
    #[serde(serialize_with = "milliseconds", skip_serializing_if = "Option::is_none")]
    pub(crate) watch: Option<Duration>,
    /// From the first event until the change was over.
    #[serde(serialize_with = "milliseconds", skip_serializing_if = "Option::is_none")]
    pub(crate) settle: Option<Duration>,
    #[serde(serialize_with = "milliseconds", skip_serializing_if = "Option::is_none")]
    pub(crate) compile: Option<Duration>,
    #[serde(serialize_with = "milliseconds", skip_serializing_if = "Option::is_none")]
    pub(crate) deliver: Option<Duration>,
    /// From the binary in place to the kernel running it.
    #[serde(serialize_with = "milliseconds", skip_serializing_if = "Option::is_none")]
    pub(crate) swap: Option<Duration>,
    /// Until the probe was answered.
    #[serde(serialize_with = "milliseconds", skip_serializing_if = "Option::is_none")]
    pub(crate) served: Option<Duration>,
    /// All of it, waits in between included.
    #[serde(serialize_with = "milliseconds", skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<Duration>,
}

fn milliseconds<S: serde::Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let milliseconds = duration.unwrap_or_default().as_secs_f64() * 1000.0;
    serializer.serialize_f64((milliseconds * 10.0).round() / 10.0)
}

impl Phases {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// `12 ms: watch 3 ms, deliver 9 ms`.
    fn describe(&self) -> String {
        let named = [
            ("watch", self.watch),
            ("settle", self.settle),
            ("compile", self.compile),
            ("deliver", self.deliver),
            ("swap", self.swap),
            ("served", self.served),
        ];
        let parts: Vec<String> =
            named.iter().filter_map(|(name, duration)| duration.map(|duration| format!("{name} {}", human_duration(duration)))).collect();
        let total = self.total.map_or_else(String::new, human_duration);
        format!("{total}: {}", parts.join(", "))
    }
}

impl Report {
    pub(crate) fn new(event: Happening) -> Self {
        Self { event, generation: None, service: None, pods: Vec::new(), files: None, phases: Phases::default(), message: None }
    }

    pub(crate) fn of(event: Happening, service: &str) -> Self {
        Self { service: Some(service.to_owned()), ..Self::new(event) }
    }

    pub(crate) fn pods(mut self, pods: Vec<String>) -> Self {
        self.pods = pods;
        self
    }

    pub(crate) fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// What the last change was, if this was one.
    fn last(&self) -> Option<String> {
        let is_change = matches!(
            self.event,
            Happening::Synced | Happening::Swapped | Happening::Restarted | Happening::Reloaded | Happening::Unchanged | Happening::Built
        );
        let message = self.message.as_deref().filter(|_| is_change)?;
        Some(format!("{message} {}", self.phases.describe()))
    }

    /// The line that a person reads.
    fn text(&self) -> String {
        let service = self.service.as_deref().unwrap_or_default();
        let message = self.message.as_deref().unwrap_or_default();
        let good = Style::new().for_stderr().green().apply_to("✓");
        let dim = Style::new().for_stderr().dim();
        match self.event {
            Happening::Ready => format!("{good} {message}"),
            Happening::PodAdded => format!("+ {service}: {} {message}", self.pods.join(", ")),
            Happening::PodGone => format!("- {service}: {} is gone", self.pods.join(", ")),
            Happening::Synced | Happening::Swapped | Happening::Restarted | Happening::Reloaded => {
                format!("{good} {service}: {message} in {} {}", count(self.pods.len(), "pod"), dim.apply_to(self.phases.describe()))
            }
            Happening::BuildStarted => format!("… {service}: building"),
            Happening::Halted => format!("… {service}: {message} ({})", self.pods.join(", ")),
            Happening::Undone | Happening::Verified => format!("{good} {service}: {message} in {}", count(self.pods.len(), "pod")),
            Happening::Unchanged | Happening::Built => format!("{good} {service}: {message} {}", dim.apply_to(self.phases.describe())),
            Happening::BuildFailed | Happening::Error | Happening::Stopped => message.to_owned(),
        }
    }
}

/// `1 pod`, `2 pods`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The way to the user or to a tool.
#[derive(Debug)]
pub(crate) struct Reporter {
    ui: Ui,
    form: OutputForm,
    /// While the session is on a terminal.
    pub(crate) screen: Option<Screen>,
    /// The last change of each service.
    last: BTreeMap<String, String>,
}

impl Reporter {
    pub(crate) fn new(ui: Ui, form: OutputForm) -> Self {
        let screen = if form == OutputForm::Text && !ui.is_quiet() { Screen::new() } else { None };
        Self { ui, form, screen, last: BTreeMap::new() }
    }

    pub(crate) fn tell(&mut self, report: &Report) -> Result<()> {
        if let (Some(service), Some(last)) = (&report.service, report.last()) {
            self.last.insert(service.clone(), last);
        }
        match self.form {
            OutputForm::Json => output::line(&serde_json::to_string(report).context("could not write JSON")?),
            // That a pod is in sync says it all.
            OutputForm::Text if report.event == Happening::Verified => Ok(()),
            OutputForm::Text => {
                self.say(&report.text());
                Ok(())
            }
        }
    }

    /// Says something that is no event.
    pub(crate) fn say(&mut self, text: &str) {
        match &mut self.screen {
            Some(screen) => screen.say(text),
            None => self.ui.say(text),
        }
    }

    /// Says a warning.
    pub(crate) fn warn(&mut self, text: &str) {
        match &mut self.screen {
            Some(screen) => screen.say(&format!("{} {text}", Style::new().for_stderr().yellow().bold().apply_to("Warning:"))),
            None => self.ui.warn(text),
        }
    }

    /// Tells of a failure that doesn't end the session.
    pub(crate) fn fail(&mut self, event: Happening, service: Option<&str>, pods: Vec<String>, error: &CommandError) -> Result<()> {
        if let (Some(service), Some(first)) = (service, error.to_string().lines().next()) {
            self.last.insert(service.to_owned(), first.to_owned());
        }
        match self.form {
            OutputForm::Json => {
                let hints = error.hints().into_iter().map(|hint| format!("hint: {hint}"));
                let message = std::iter::once(error.chain().join(": ")).chain(hints).collect::<Vec<_>>().join("\n");
                let report = Report { service: service.map(ToOwned::to_owned), ..Report::new(event) };
                self.tell(&report.pods(pods).message(console::strip_ansi_codes(&message)))
            }
            OutputForm::Text => {
                match &mut self.screen {
                    Some(screen) => screen.say(&render_error(error)),
                    None => self.ui.error(error),
                }
                Ok(())
            }
        }
    }

    /// The last change of a service, or what is wrong with it.
    pub(crate) fn last(&self, service: &str) -> Option<&String> {
        self.last.get(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports() -> Vec<Report> {
        let ms = |value| Some(Duration::from_micros(value));
        let synced = Report {
            generation: Some(3),
            files: Some(2),
            phases: Phases { watch: ms(1200), settle: ms(40), deliver: ms(2510), total: ms(3750), ..Phases::default() },
            ..Report::of(Happening::Synced, "shop").pods(vec!["shop-1".to_owned()]).message("2 files")
        };
        let swapped = Report {
            generation: Some(4),
            phases: Phases {
                compile: ms(1_400_000),
                deliver: ms(20_000),
                swap: ms(900),
                served: ms(7000),
                total: ms(1_430_000),
                ..Phases::default()
            },
            ..Report::of(Happening::Swapped, "shop").pods(vec!["shop-1".to_owned(), "shop-2".to_owned()]).message("new code runs")
        };
        vec![
            Report::new(Happening::Ready).message("watching shop in 1 pod; Ctrl-C ends it"),
            Report::of(Happening::PodAdded, "shop").pods(vec!["shop-2".to_owned()]).message("is in sync"),
            synced,
            swapped,
            Report::of(Happening::PodGone, "shop").pods(vec!["shop-1".to_owned()]),
        ]
    }

    #[test]
    fn lines_for_people() {
        let lines: Vec<String> = reports().iter().map(|report| console::strip_ansi_codes(&report.text()).into_owned()).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        ✓ watching shop in 1 pod; Ctrl-C ends it
        + shop: shop-2 is in sync
        ✓ shop: 2 files in 1 pod 3 ms: watch 1 ms, settle 0 ms, deliver 2 ms
        ✓ shop: new code runs in 2 pods 1.4 s: compile 1.4 s, deliver 20 ms, swap 0 ms, served 7 ms
        - shop: shop-1 is gone
        ");
    }

    #[test]
    fn objects_for_tools() {
        let lines: Vec<String> = reports().iter().map(|report| serde_json::to_string(report).unwrap()).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        {"event":"ready","message":"watching shop in 1 pod; Ctrl-C ends it"}
        {"event":"pod-added","service":"shop","pods":["shop-2"],"message":"is in sync"}
        {"event":"synced","generation":3,"service":"shop","pods":["shop-1"],"files":2,"phasesMs":{"watch":1.2,"settle":0.0,"deliver":2.5,"total":3.8},"message":"2 files"}
        {"event":"swapped","generation":4,"service":"shop","pods":["shop-1","shop-2"],"phasesMs":{"compile":1400.0,"deliver":20.0,"swap":0.9,"served":7.0,"total":1430.0},"message":"new code runs"}
        {"event":"pod-gone","service":"shop","pods":["shop-1"]}
        "#);
    }
}
