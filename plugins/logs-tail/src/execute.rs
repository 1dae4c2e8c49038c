//! Finds the pods, reads their logs, prints.

use crate::printer::print;
use crate::render::Look;
use crate::request::Request;
use devloop_core::error::ErrorHint;
use devloop_core::logs::{LogEvent, containers, follow_pods, read_pods};
use devloop_core::target::{PodSelection, resolve};
use devloop_core::{CommandError, Context, ExitStatus, Result, cluster};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

/// How many lines may wait for the terminal before the readers do.
const WAITING: usize = 256;

pub(crate) async fn execute(context: &Context, request: &Request) -> Result<ExitStatus> {
    tokio::select! {
        result = work(context, request) => result,
        // The way to end it, not a failure.
        () = context.shutdown.requested() => Ok(ExitStatus::Success),
    }
}

async fn work(context: &Context, request: &Request) -> Result<ExitStatus> {
    let cluster = cluster::connect(&request.cluster).await?;
    let selections = try_join_all(request.targets.iter().map(|target| resolve(&cluster.client, &cluster.namespace, target))).await?;
    let pods = try_join_all(selections.iter().map(|selection| selection.pods(&cluster.client, &cluster.namespace))).await?;
    check_containers(request, &pods.concat())?;

    let (events_tx, events_rx) = mpsc::channel(WAITING);
    let (ui, look) = (context.ui.clone(), look(request));
    // It ends when the events do, or stdout; at Ctrl-C it is left behind.
    let printing = tokio::task::spawn_blocking(move || print(&ui, look, std::io::stdout(), events_rx));
    let outcome = if request.follow {
        follow_pods(&cluster.client, &cluster.namespace, &selections, &request.options, &events_tx).await.map_err(CommandError::from)
    } else {
        read_once(&cluster, &selections, request, &events_tx).await
    };
    drop(events_tx);
    let printed = printing.await.map_err(|error| CommandError::new("the printer failed").caused_by(error))?;
    // A stdout that can't be written ends the reading, too: it comes first.
    printed?;
    outcome.map(|()| ExitStatus::Success)
}

async fn read_once(
    cluster: &cluster::Cluster,
    selections: &[PodSelection],
    request: &Request,
    events_tx: &mpsc::Sender<LogEvent>,
) -> Result<()> {
    let found = read_pods(&cluster.client, &cluster.namespace, selections, &request.options, events_tx).await?;
    let names: Vec<String> = request.targets.iter().map(ToString::to_string).collect();
    if found.pods == 0 {
        return Err(CommandError::new(format!("{} has no pods in namespace {:?}", names.join(", "), cluster.namespace)))
            .hint("without --no-follow, logs-tail waits for one");
    }
    if found.containers == 0 {
        let what = if request.options.previous { "restarted" } else { "started" };
        return Err(CommandError::new(format!("no container of {} has {what} yet", names.join(", "))))
            .hint(format!("see why with `kubectl describe pods -n {}`", cluster.namespace));
    }
    Ok(())
}

/// A container name that none of the pods has is a mistake, not something to wait for.
fn check_containers(request: &Request, pods: &[Pod]) -> Result<()> {
    let mut known: Vec<String> = pods.iter().flat_map(containers).map(|container| container.name).collect();
    known.sort();
    known.dedup();
    let Some(missing) = request.options.containers.iter().find(|name| !known.contains(name)) else { return Ok(()) };
    if known.is_empty() {
        return Ok(());
    }
    Err(CommandError::new(format!("no pod has a container {missing:?}"))).hint(format!("containers: {}", known.join(", ")))
}

fn look(request: &Request) -> Look {
    Look {
        output: request.output,
        timestamps: request.timestamps,
        colors: console::colors_enabled(),
        is_terminal: console::Term::stdout().is_term(),
    }
}
