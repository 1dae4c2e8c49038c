//! Finds the pods, reads their logs, prints.

use crate::printer::print;
use crate::request::Request;
use crate::screen;
use crate::standard_input;
use devloop_core::error::ErrorHint;
use devloop_core::logs::{LogEvent, LogOptions, containers, follow_pods, read_pods};
use devloop_core::target::{PodSelection, Target, resolve};
use devloop_core::{CommandError, Context, ExitStatus, Result, cluster};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::sync::mpsc;

/// How many lines may wait for the terminal before the readers do.
const WAITING: usize = 256;

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
    let prepared = tokio::select! {
        result = prepare(&mut request) => result?,
        // The way to end it, not a failure.
        () = context.shutdown.requested() => return Ok(ExitStatus::Success),
    };
    let Request { targets, options, follow, has_screen, setup, .. } = request;
    let (events_tx, events_rx) = mpsc::channel(WAITING);
    let (ui, handle) = (context.ui.clone(), tokio::runtime::Handle::current());
    let shutdown = context.shutdown.clone();
    let mut printing = tokio::task::spawn_blocking(move || {
        if has_screen {
            screen::run(setup, events_rx, &shutdown, &handle)
        } else {
            print(&ui, setup, std::io::stdout(), events_rx, &handle).map(drop)
        }
    });
    let work = async {
        let (cluster, selections) = &prepared;
        if follow {
            follow_pods(&cluster.client, &cluster.namespace, selections, &options, &events_tx).await.map_err(CommandError::from)
        } else {
            read_once(cluster, selections, &targets, &options, &events_tx).await
        }
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        // Who looks has had enough, or stdout is closed.
        printed = &mut printing => return joined(printed).map(|()| ExitStatus::Success),
        () = context.shutdown.requested() => Ok(()),
    };
    drop(events_tx);
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

/// Finds the pods; reads what the run before said, where that is asked for.
async fn prepare(request: &mut Request) -> Result<(cluster::Cluster, Vec<PodSelection>)> {
    let cluster = cluster::connect(&request.cluster).await?;
    let selections = try_join_all(request.targets.iter().map(|target| resolve(&cluster.client, &cluster.namespace, target))).await?;
    let pods = try_join_all(selections.iter().map(|selection| selection.pods(&cluster.client, &cluster.namespace))).await?;
    check_containers(&request.options, &pods.concat())?;
    if let Some(before) = &mut request.setup.judge.before {
        let options = LogOptions { previous: true, since: None, tail: None, ..request.options.clone() };
        let (events_tx, mut events_rx) = mpsc::channel(WAITING);
        let reading = async {
            let result = read_pods(&cluster.client, &cluster.namespace, &selections, &options, &events_tx).await;
            drop(events_tx);
            result
        };
        let learning = async {
            while let Some(event) = events_rx.recv().await {
                if let LogEvent::Line(line) = event {
                    before.learn(&line.source, &line.message);
                }
            }
        };
        let (result, ()) = tokio::join!(reading, learning);
        result?;
    }
    Ok((cluster, selections))
}

async fn read_once(
    cluster: &cluster::Cluster,
    selections: &[PodSelection],
    targets: &[Target],
    options: &LogOptions,
    events_tx: &mpsc::Sender<LogEvent>,
) -> Result<()> {
    let found = read_pods(&cluster.client, &cluster.namespace, selections, options, events_tx).await?;
    let names: Vec<String> = targets.iter().map(ToString::to_string).collect();
    if found.pods == 0 {
        return Err(CommandError::new(format!("{} has no pods in namespace {:?}", names.join(", "), cluster.namespace)))
            .hint("without --no-follow, logs-tail waits for one");
    }
    if found.containers == 0 {
        let what = if options.previous { "restarted" } else { "started" };
        return Err(CommandError::new(format!("no container of {} has {what} yet", names.join(", "))))
            .hint(format!("see why with `kubectl describe pods -n {}`", cluster.namespace));
    }
    Ok(())
}

/// A container name that none of the pods has is a mistake, not something to wait for.
fn check_containers(options: &LogOptions, pods: &[Pod]) -> Result<()> {
    let mut known: Vec<String> = pods.iter().flat_map(containers).map(|container| container.name).collect();
    known.sort();
    known.dedup();
    let Some(missing) = options.containers.iter().find(|name| !known.contains(name)) else { return Ok(()) };
    if known.is_empty() {
        return Ok(());
    }
    Err(CommandError::new(format!("no pod has a container {missing:?}"))).hint(format!("containers: {}", known.join(", ")))
}
