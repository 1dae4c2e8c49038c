//! Finds the pods, reads their logs, prints.

use crate::printer::print;
use crate::query::Query;
use crate::request::Request;
use crate::{gather, narrator, prompt, screen, standard_input};
use devloop_core::error::ErrorHint;
use devloop_core::logs::{Held, LogEvent, LogOptions, Outlet, Scope, follow_pods, read_pods};
use devloop_core::ui::Ui;
use devloop_core::{CommandError, Context, ExitStatus, Result};
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::sync::mpsc;

/// So many batches of lines may wait for the terminal before the readers do.
const WAITING: usize = 4;

/// How long the printer has for its last words after Ctrl-C.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(crate) async fn execute(context: &Context, mut request: Request) -> Result<ExitStatus> {
    if request.reads_stdin {
        let (ui, setup) = (context.ui.clone(), request.setup);
        let reading = tokio::task::spawn_blocking(move || standard_input::read(&ui, setup, std::io::stdout()));
        return tokio::select! {
            result = reading => result.map_err(|error| CommandError::new("the reader failed").caused_by(error))?.map(|()| ExitStatus::Success),
            () = context.shutdown.requested() => Ok(ExitStatus::Success),
        };
    }
    if request.has_screen && !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        return Err(screen::needs_terminal());
    }
    let scopes = tokio::select! {
        result = prepare(context, &mut request) => result?,
        // The way to end it, not a failure.
        () = context.shutdown.requested() => return Ok(ExitStatus::Success),
    };
    let Request { queries, options, follow, has_screen, setup, .. } = request;
    let (events_tx, events_rx) = mpsc::channel(WAITING);
    let (held_tx, held_rx) = mpsc::unbounded_channel();
    let outlet = Outlet { events_tx, held_tx };
    let (ui, handle) = (context.ui.clone(), tokio::runtime::Handle::current());
    let shutdown = context.shutdown.clone();
    let mut printing = tokio::task::spawn_blocking(move || {
        if has_screen {
            screen::run(setup, screen::Feeding { events_rx, held_rx }, &shutdown, &handle)
        } else {
            let telling = handle.spawn(tell_held(ui.clone(), held_rx));
            let printed = print(&ui, setup, std::io::stdout(), events_rx, &handle).map(drop);
            telling.abort();
            printed
        }
    });
    let work = async {
        if follow {
            follow_pods(&scopes, &options, &outlet).await.map_err(CommandError::from)
        } else {
            read_once(&scopes, &queries, &options, &outlet).await
        }
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        // Who looks has had enough, or stdout is closed.
        printed = &mut printing => return joined(printed).map(|()| ExitStatus::Success),
        () = context.shutdown.requested() => Ok(()),
    };
    drop(outlet);
    // What is held and counted is still printed, unless stdout stands still.
    let printed = tokio::select! {
        printed = &mut printing => joined(printed),
        () = async { context.shutdown.requested().await; tokio::time::sleep(LAST_WORDS).await } => return outcome.map(|()| ExitStatus::Success),
    };
    // A stdout that can't be written ends the reading, too: it comes first.
    printed?;
    outcome.map(|()| ExitStatus::Success)
}

fn joined(printed: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    printed.map_err(|error| CommandError::new("the printer failed").caused_by(error))?
}

/// Says how much waits for a printer that may itself wait for its reader.
async fn tell_held(ui: Ui, mut held_rx: mpsc::UnboundedReceiver<Held>) {
    while let Some(held) = held_rx.recv().await {
        let ui = ui.clone();
        // stderr may be as slow as stdout.
        let said = tokio::task::spawn_blocking(move || ui.say(narrator::tell_held(&held).text));
        if said.await.is_err() {
            return;
        }
    }
}

/// Finds the pods; reads what the run before said, where that is asked for.
async fn prepare(context: &Context, request: &mut Request) -> Result<Vec<Scope>> {
    let mut scopes = gather::scopes(request, &context.ui).await?;
    if request.asks {
        prompt::ask(&mut scopes, &request.options.choice, &context.ui).await?;
    }
    if let Some(before) = &mut request.setup.judge.before {
        let options = LogOptions { previous: true, since: None, until: None, tail: None, head: None, ..request.options.clone() };
        let (events_tx, mut events_rx) = mpsc::channel(WAITING);
        let reading = async {
            // What waits is taken soon.
            let outlet = Outlet { events_tx, held_tx: mpsc::unbounded_channel().0 };
            read_pods(&scopes, &options, &outlet).await
        };
        let learning = async {
            while let Some(events) = events_rx.recv().await {
                for event in events {
                    if let LogEvent::Line(line) = event {
                        before.learn(&line.source, &line.message);
                    }
                }
            }
        };
        let (result, ()) = tokio::join!(reading, learning);
        result?;
    }
    Ok(scopes)
}

async fn read_once(scopes: &[Scope], queries: &[Query], options: &LogOptions, outlet: &Outlet) -> Result<()> {
    let found = read_pods(scopes, options, outlet).await?;
    let what = match queries {
        [] => scopes.iter().find_map(|scope| scope.labels.clone()).map_or("pods".to_owned(), |labels| format!("pods with {labels}")),
        queries => queries.iter().map(Query::describe).collect::<Vec<_>>().join(", "),
    };
    let places: Vec<String> = scopes.iter().map(Scope::describe).collect::<BTreeSet<_>>().into_iter().collect();
    let places = places.join(" and ");
    if found.pods == 0 {
        return Err(CommandError::new(format!("{what}: no pods in {places}"))).hint("without --no-follow, logs-tail waits for one");
    }
    if found.containers == 0 {
        let state = if options.previous { "restarted" } else { "started" };
        return Err(CommandError::new(format!("{what}: no container has {state} yet"))).hint("see why with `kubectl describe pods`");
    }
    Ok(())
}
