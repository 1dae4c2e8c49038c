//! What there is of the logs of some pods, once.

use super::follow::{Beginning, Mode, Reader, classify};
use super::instance::{InstanceState, Observed};
use super::on_node::NodeEnd;
use super::queue::{Lane, Lanes, Output};
use super::scope::Scope;
use super::turns::Turns;
use super::watching::{PodView, list};
use super::ways::{OnNode, Ways, await_end};
use super::{LogEvent, LogOptions, LogsError, Outlet, Source, order};
use crate::args::Via;
use crate::error::{CommandError, Result};
use futures::future::join_all;
use kube::Client;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What [`read_pods`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Pods.
    pub pods: usize,
    /// Containers of theirs that have a log.
    pub containers: usize,
}

/// Reads what there is of the logs of the scopes' pods, merged by time if that is
/// asked for, and ends.
///
/// # Errors
/// When a log can't be read after several attempts, or no scope's pods can be
/// listed. What can be read is read before.
pub async fn read_pods(scopes: &[Scope], options: &LogOptions, outlet: &Outlet) -> Result<Found> {
    let events_tx = &outlet.events_tx;
    let (lanes, items_rx) = Lanes::new(outlet.held_tx.clone());
    let mut merging = JoinSet::new();
    merging.spawn(order::run(items_rx, events_tx.clone(), options.window));
    // Nothing leaves before all lanes are there.
    let gate = lanes.open(true);
    let mut ways = Ways::new(options.clone(), lanes, false);
    let mut found = Found::default();
    let mut uids = BTreeSet::new();
    let mut tasks = JoinSet::new();
    let listed = join_all(scopes.iter().map(|scope| list(scope, &options.choice))).await;
    let mut failure = None;
    let mut failures = 0;
    for (scope, pods) in scopes.iter().zip(listed) {
        let pods = match pods {
            Ok(pods) => pods,
            Err(error) => {
                let error = CommandError::from(classify(error, format!("list the pods of {}", scope.describe())));
                failures += 1;
                if failures == scopes.len() {
                    return Err(error);
                }
                // The rest goes on.
                let _ = events_tx.send(vec![LogEvent::Failed(scope.describe(), Arc::new(error))]).await;
                continue;
            }
        };
        for pod in pods {
            let view = PodView::of(&pod, scope.place.context.as_ref());
            if !uids.insert((Arc::as_ptr(&scope.place) as usize, view.uid.clone())) {
                continue;
            }
            found.pods += 1;
            for container in view.containers.iter().filter(|container| options.choice.wants(container)) {
                let observed = &container.observed;
                let has_log = if options.previous { has_ended_instance(observed) } else { observed.latest.is_some() };
                if has_log {
                    found.containers += 1;
                    start(&mut ways, scope, &view, &container.name, observed, &mut tasks);
                }
            }
        }
    }
    ways.begin();
    drop(gate);
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended.map_err(LogsError::from).and_then(|outcome| outcome) {
            failure.get_or_insert(error);
        }
    }
    // The last lanes.
    drop(ways);
    while merging.join_next().await.is_some() {}
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(found),
    }
}

fn has_ended_instance(observed: &Observed) -> bool {
    observed.has_previous || observed.latest.is_some_and(|latest| latest.state == InstanceState::Superseded)
}

/// All that reading a container's log through the API takes.
struct ByApi {
    client: Client,
    source: Arc<Source>,
    observed: Observed,
    options: LogOptions,
    turns: Turns,
}

fn start(ways: &mut Ways, scope: &Scope, view: &PodView, container: &str, observed: &Observed, tasks: &mut JoinSet<Result<(), LogsError>>) {
    let source = view.source(container);
    let request = ways.request(&view.folder, container, Beginning::Newest, observed);
    let (options, turns, lanes) = (ways.options.clone(), ways.turns.clone(), ways.lanes());
    let by_api = ByApi { client: scope.place.client.clone(), source: Arc::clone(&source), observed: observed.clone(), options, turns };
    let (node, why) = ways.node(&scope.place, view.node.as_deref());
    tracing::info!(pod = source.pod, container, way = if node.is_some() { "node" } else { "api" }, why, "reading a log");
    match node {
        Some(node) => {
            let (id, ended_rx) = node.open(request, source);
            let on_node = OnNode { ended_rx, finisher: node.finisher(id) };
            tasks.spawn(read_on_node(by_api, on_node, lanes));
        }
        None if by_api.options.via == Via::Node => {
            tasks.spawn(async move { Err(unreachable(&by_api.source, why)) });
        }
        None => {
            let lane = ways.lane(Beginning::Newest);
            tasks.spawn(read_by_api(by_api, lane));
        }
    }
}

pub(super) fn unreachable(source: &Source, reason: &str) -> LogsError {
    LogsError::Node { what: format!("{}/{}", source.pod, source.container), reason: reason.to_owned() }
}

async fn read_on_node(by_api: ByApi, on_node: OnNode, lanes: Lanes) -> Result<(), LogsError> {
    let (_observed_tx, mut observed_rx) = watch::channel(by_api.observed.clone());
    let (reason, hold) = match await_end(on_node, &mut observed_rx).await {
        NodeEnd::Read => return Ok(()),
        NodeEnd::Missing(reason) => (reason, None),
        NodeEnd::Unavailable(reason, hold) => (reason, hold),
    };
    if by_api.options.via == Via::Node {
        return Err(unreachable(&by_api.source, &reason));
    }
    tracing::info!(pod = by_api.source.pod, reason, "reading the log through the API instead");
    let lane = lanes.open(true);
    drop(hold);
    read_by_api(by_api, lane).await
}

async fn read_by_api(by_api: ByApi, lane: Lane) -> Result<(), LogsError> {
    let ByApi { client, source, observed, options, turns } = by_api;
    // Held, so that the reader doesn't take the pod for gone.
    let (_observed_tx, observed_rx) = watch::channel(observed);
    let is_previous = options.previous;
    let mut reader = Reader::new(&client, source, observed_rx, Beginning::Newest, options, Output::Lane(lane), turns);
    if is_previous { reader.run_previous().await } else { reader.run(Mode::Once).await }
}
