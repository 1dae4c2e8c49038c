//! Watching a workload until it runs, or it is known why not.

mod mirror;
mod observed;
mod room;
mod standing;
mod version;
mod workload;

pub use standing::{standing, stands};
#[cfg(test)]
pub(super) use workload::Condition;
pub use workload::Workload;

use super::assess::{Cause, Verdict};
use crate::cluster::Cluster;
use crate::error::{CommandError, Result};
use crate::logs;
use crate::shutdown::Shutdown;
use crate::target::{Kind, PodSelection, Target, resolve};
use crate::ui::human_duration;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event as ClusterEvent, Pod};
use kube::api::{DynamicObject, ListParams};
use kube::core::ApiResource;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use observed::{Observed, Update};
use std::time::Duration;
use tokio::time::Instant;

/// Lines of a crashed container's log that are shown.
const SHOWN_LINES: u32 = 10;

/// How often nodes are asked while none of them takes a pod.
const ASKING: Duration = Duration::from_secs(2);

/// A rollout that came to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// The names of the pods that run now, sorted.
    pub pods: Vec<String>,
}

/// Waits until all that a target asks for runs in its newest version. Decides
/// within one watch event of the cluster's own.
///
/// # Errors
/// When it is known that it won't come to that, with the cause; when `timeout` is
/// over, with what it seems to wait for; when the target doesn't exist; when the
/// API server can't be asked; when `shutdown` was asked for. Nothing is undone.
pub async fn wait_ready(cluster: &Cluster, target: &Target, timeout: Duration, shutdown: &Shutdown) -> Result<Rollout> {
    shutdown.guard(watch(cluster, target, timeout)).await
}

async fn watch(cluster: &Cluster, target: &Target, timeout: Duration) -> Result<Rollout> {
    let selection = resolve(&cluster.client, &cluster.namespace, target).await?;
    let mut updates = updates(cluster, target, &selection);
    let mut observed = Observed::new(target);
    let deadline = tokio::time::sleep(timeout);
    tokio::pin!(deadline);
    // Some judgements depend on how long something has been so.
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let mut asked: Option<Instant> = None;
    loop {
        let lost = tokio::select! {
            () = &mut deadline => return Err(too_late(cluster, target, &observed, timeout).await),
            update = updates.next() => match update {
                Some(update) => observed.take(update)?,
                None => return Err(CommandError::new(format!("the watch of {target} ended"))),
            },
            _ = tick.tick() => false,
        };
        if lost {
            return Err(CommandError::new(format!("{target} was deleted while it was waited for")));
        }
        // One evaluation for all that has arrived.
        while let Some(Some(update)) = updates.next().now_or_never() {
            observed.take(update)?;
        }
        if !observed.is_complete() {
            continue;
        }
        let mut verdict = observed.verdict(&[]);
        if let Verdict::Failed(Cause::Unschedulable { pod, message }) = &verdict {
            if asked.is_some_and(|asked| asked.elapsed() < ASKING) {
                continue;
            }
            asked = Some(Instant::now());
            verdict = room::verdict(cluster, pod.clone(), message).await;
        }
        match verdict {
            Verdict::Ready => return Ok(Rollout { pods: observed.pod_names() }),
            Verdict::Failed(cause) => return Err(failed(cluster, target, format!("{target} did not become ready"), cause).await),
            Verdict::Waiting(cause) => tracing::debug!(%target, cause = ?cause, "waiting"),
        }
    }
}

fn updates(cluster: &Cluster, target: &Target, selection: &PodSelection) -> BoxStream<'static, Update> {
    let (client, namespace) = (cluster.client.clone(), cluster.namespace.as_str());
    let pods = watcher::watcher(Api::<Pod>::namespaced(client.clone(), namespace), selection.watch_config());
    let mut streams: Vec<BoxStream<'static, Update>> = vec![pods.default_backoff().map(|event| Update::Pod(Box::new(event))).boxed()];
    if let Target::Object { kind, name } = target
        && let Some(resource) = resource_of(*kind)
    {
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        streams.push(watcher::watcher(api, config).default_backoff().map(Update::Workload).boxed());
        if *kind == Kind::Deployment {
            let api = Api::<DynamicObject>::namespaced_with(client, namespace, &ApiResource::erase::<ReplicaSet>(&()));
            streams.push(watcher::watcher(api, selection.watch_config()).default_backoff().map(Update::ReplicaSet).boxed());
        }
    }
    stream::select_all(streams).boxed()
}

/// The kinds with a status of their own to wait for.
fn resource_of(kind: Kind) -> Option<ApiResource> {
    Some(match kind {
        Kind::Deployment => ApiResource::erase::<Deployment>(&()),
        Kind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
        Kind::DaemonSet => ApiResource::erase::<DaemonSet>(&()),
        Kind::ReplicaSet => ApiResource::erase::<ReplicaSet>(&()),
        Kind::Job => ApiResource::erase::<Job>(&()),
        Kind::Pod | Kind::Service => return None,
    })
}

async fn too_late(cluster: &Cluster, target: &Target, observed: &Observed, timeout: Duration) -> CommandError {
    let message = format!("{target} is not ready after {}", human_duration(timeout));
    let events = events_of(cluster, observed).await;
    let verdict = match observed.verdict(&events) {
        Verdict::Failed(Cause::Unschedulable { pod, message }) | Verdict::Waiting(Some(Cause::Unschedulable { pod, message })) => {
            room::verdict(cluster, pod, &message).await
        }
        verdict => verdict,
    };
    match verdict {
        Verdict::Failed(cause) | Verdict::Waiting(Some(cause)) => failed(cluster, target, message, cause).await,
        Verdict::Ready | Verdict::Waiting(None) => {
            CommandError::new(message).with_hint(format!("see `kubectl get pods -n {}`; give it longer with --timeout", cluster.namespace))
        }
    }
}

/// What the cluster noted about the pods and their workload. Only asked for
/// when there is nothing better to tell.
async fn events_of(cluster: &Cluster, observed: &Observed) -> Vec<ClusterEvent> {
    let api: Api<ClusterEvent> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let Ok(list) = api.list(&ListParams::default().fields("type=Warning")).await else { return Vec::new() };
    let mut names: Vec<String> = observed.current_pods().iter().map(|pod| pod.name_any()).collect();
    names.extend(observed.object().map(ResourceExt::name_any));
    names.extend(observed.replica_sets.objects.keys().cloned());
    let about = |event: &ClusterEvent| event.involved_object.name.as_ref().is_some_and(|name| names.contains(name));
    list.items.into_iter().filter(about).collect()
}

async fn failed(cluster: &Cluster, target: &Target, message: String, cause: Cause) -> CommandError {
    let mut text = cause.to_string();
    if let Some((pod, container)) = cause.crashed() {
        let lines = last_lines(cluster, pod, container).await;
        if !lines.is_empty() {
            text = format!("{text}; its last lines:\n    {}", lines.join("\n    "));
        }
    }
    let error = CommandError::new(message).caused_by(text).with_hint(cause.hint(&cluster.namespace));
    match target {
        Target::Object { kind: Kind::Deployment, name } => error.with_hint(format!(
            "pods of the version before keep running; go back to it with `kubectl rollout undo deployment/{name} -n {}`",
            cluster.namespace
        )),
        _ => error,
    }
}

/// The end of a crashed container's log; empty when there is none.
async fn last_lines(cluster: &Cluster, pod: &str, container: &str) -> Vec<String> {
    for previous in [true, false] {
        let lines = logs::last_lines(&cluster.client, &cluster.namespace, pod, container, previous, SHOWN_LINES).await;
        if let Ok(lines) = lines
            && lines.iter().any(|line| !line.trim().is_empty())
        {
            return lines;
        }
    }
    Vec::new()
}
