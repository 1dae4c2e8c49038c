//! Where all threads of a process are; of a Go program, where its goroutines are.

use super::Subject;
use super::groups::{self, Group};
use super::stacks::take;
use super::symbolize::names;
use crate::hold::{Hold, NotHeld, Order};
use crate::process;
use crate::report::milliseconds;
use crate::runtime::Debugger;
use crate::runtimes::Tool;
use crate::runtimes::delve::goroutines::goroutines;
use devloop_core::agent::debug::Runtime;
use devloop_core::output::{self, Format};
use devloop_core::ui::human_duration;
use devloop_core::{CommandError, Result};
use serde::Serialize;
use std::time::Duration;

const FAILED: &str = "could not see where the threads are";

/// What is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    pod: String,
    container: String,
    pid: u32,
    via: &'static str,
    /// `thread` or `goroutine`.
    of: &'static str,
    count: usize,
    stopped_ms: f64,
    groups: Vec<Group>,
}

pub(super) async fn run(subject: &Subject<'_>) -> Result<()> {
    // Without debug information Delve knows nothing; the names of functions are there.
    if matches!(subject.candidate.runtime, Runtime::Go(_)) && subject.candidate.has_symbols {
        return of_go(subject).await;
    }
    let [pid, start] = subject.words();
    let taken = take(subject, FAILED, &["stacks", &pid, &start], Duration::ZERO, |_| {}).await?;
    let names = names(subject, &taken.files, taken.addresses().into_iter()).await?;
    show(subject, "thread", taken.stacks.len(), taken.stopped, groups::of_threads(&taken.stacks, &names))
}

/// Delve is attached for as long as it takes.
async fn of_go(subject: &Subject<'_>) -> Result<()> {
    let Subject { context, request, place, candidate, .. } = subject;
    let debugger = process::check(candidate, subject.powers, false)?;
    let (_tool, words) = Tool::prepare(context, request, place, candidate, Debugger::Delve).await?;
    let order = Order { socket: place.socket(candidate.process.pid), process: candidate.process, debugger: words };
    let step = context.ui.step(format!("looking at the goroutines of {}", subject.describe()));
    let mut hold = Hold::start(&place.runner, &order).await.map_err(|failure| match failure {
        NotHeld::Refused(reason, message) => process::explain(debugger, reason, message, candidate, subject.powers),
        NotHeld::Agent(error) => CommandError::from(error),
    })?;
    let attaching = hold.stopped;
    let found = tokio::select! {
        found = goroutines(&place.runner, &order.socket) => found,
        fate = hold.keep() => return Err(CommandError::new("the debugger ended by itself; the process runs on").caused_by(format!("{fate:?}"))),
    };
    hold.end().await;
    step.clear();
    let (goroutines, halted) = found.map_err(|error| CommandError::new("could not list the goroutines").caused_by(error))?;
    show(subject, "goroutine", goroutines.len(), attaching + halted.elapsed(), groups::of_goroutines(goroutines))
}

fn show(subject: &Subject<'_>, of: &'static str, count: usize, stopped: Duration, groups: Vec<Group>) -> Result<()> {
    let chosen = &subject.found.chosen;
    if subject.request.output == Format::Json {
        let shown = Shown {
            pod: chosen.pod.clone(),
            container: chosen.container.clone(),
            pid: subject.candidate.container_pid,
            via: subject.place.way.name(),
            of,
            count,
            stopped_ms: milliseconds(stopped),
            groups,
        };
        let text = serde_json::to_string(&shown).map_err(|error| CommandError::new("could not write JSON").caused_by(error))?;
        return output::line(&text);
    }
    output::line(&groups::text_of(&groups, of))?;
    let what = subject.describe();
    subject.context.ui.say(format!("{count} {of}s of {what}; it stood still for {} and runs on", human_duration(stopped)));
    Ok(())
}
