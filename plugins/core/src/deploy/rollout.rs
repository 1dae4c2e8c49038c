//! Watching a workload until it runs, or it is known why not.

use super::apply::AppliedObject;
use super::assess::{Cause, Verdict, assess};
use super::explain_api;
use crate::cluster::Cluster;
use crate::error::{CommandError, Result};
use crate::shutdown::Shutdown;
use crate::target::{Kind, PodSelection, Target, resolve};
use crate::ui::human_duration;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event as ClusterEvent, Pod};
use kube::api::{DynamicObject, ListParams, LogParams};
use kube::core::ApiResource;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// A rollout that came to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    /// The names of the pods that run now, sorted.
    pub pods: Vec<String>,
}

/// What a workload says about itself, in the same words for every kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Version of its specification.
    pub generation: i64,
    /// The version that the rest here is about.
    pub observed_generation: i64,
    /// Pods that are asked for.
    pub desired: i64,
    /// Pods of the newest version.
    pub updated: i64,
    /// Pods that are ready, and have been for as long as they must.
    pub available: i64,
    /// Pods of all versions.
    pub total: i64,
    /// The conditions that are true.
    pub conditions: Vec<Condition>,
}

/// A true condition of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `ReplicaFailure`, `Complete`, ...
    pub kind: String,
    /// A sentence for people.
    pub message: String,
    /// Since when.
    pub since: Option<Timestamp>,
}

impl Workload {
    /// Reads a workload of a kind that has pods of its own; none for others.
    pub fn read(kind: Kind, object: &DynamicObject) -> Option<Self> {
        let (spec, status) = (&object.data["spec"], &object.data["status"]);
        let number = |value: &Value| value.as_i64().unwrap_or(0);
        let replicas = spec["replicas"].as_i64().unwrap_or(1);
        let (desired, updated, available, total) = match kind {
            Kind::Deployment => (replicas, &status["updatedReplicas"], &status["availableReplicas"], &status["replicas"]),
            Kind::StatefulSet => (replicas, &status["updatedReplicas"], &status["availableReplicas"], &status["replicas"]),
            Kind::ReplicaSet => (replicas, &status["replicas"], &status["availableReplicas"], &status["replicas"]),
            Kind::DaemonSet => (
                number(&status["desiredNumberScheduled"]),
                &status["updatedNumberScheduled"],
                &status["numberAvailable"],
                &status["currentNumberScheduled"],
            ),
            Kind::Job => (1, &status["active"], &status["ready"], &status["active"]),
            Kind::Pod | Kind::Service => return None,
        };
        let conditions = status["conditions"].as_array().into_iter().flatten().filter(|condition| condition["status"] == "True");
        Some(Self {
            kind,
            name: object.name_any(),
            generation: object.metadata.generation.unwrap_or(0),
            observed_generation: number(&status["observedGeneration"]),
            desired,
            updated: number(updated),
            available: number(available),
            total: number(total),
            conditions: conditions
                .map(|condition| Condition {
                    kind: condition["type"].as_str().unwrap_or_default().to_owned(),
                    message: condition["message"].as_str().unwrap_or_default().to_owned(),
                    since: condition["lastTransitionTime"].as_str().and_then(|time| time.parse().ok()),
                })
                .collect(),
        })
    }

    /// The condition of that type, if it is true.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }
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
        match observed.verdict(&[]) {
            Verdict::Ready => return Ok(Rollout { pods: observed.pod_names() }),
            Verdict::Failed(cause) => return Err(failed(cluster, target, format!("{target} did not become ready"), cause).await),
            Verdict::Waiting(cause) => tracing::debug!(%target, cause = ?cause, "waiting"),
        }
    }
}

/// Whether a workload runs as its specification asks, as an object that was just
/// read tells; not, where it has to be waited for, or can't be told.
pub fn stands(object: &AppliedObject) -> bool {
    live_of(object).is_some()
}

/// The workload as it was read, if it stands.
fn live_of(object: &AppliedObject) -> Option<DynamicObject> {
    let kinds = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet];
    let kind = kinds.into_iter().find(|kind| object.kind.eq_ignore_ascii_case(kind.name()))?;
    let live = serde_json::from_value::<DynamicObject>(object.after.clone()?).ok()?;
    let workload = Workload::read(kind, &live)?;
    (assess(Some(&workload), &[], &[], Timestamp::now()) == Verdict::Ready).then_some(live)
}

/// The pods of a workload that stands; none when it doesn't.
///
/// # Errors
/// When the API server can't be asked for the pods.
pub async fn standing(cluster: &Cluster, object: &AppliedObject) -> Result<Option<Rollout>> {
    let Some(live) = live_of(object) else { return Ok(None) };
    let Some(labels) =
        live.data["spec"]["selector"]["matchLabels"].as_object().filter(|_| live.data["spec"]["selector"]["matchExpressions"].is_null())
    else {
        return Ok(None);
    };
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    let namespace = object.namespace.as_deref().unwrap_or(&cluster.namespace);
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let pods = api.list_metadata(&ListParams::default().labels(&labels.join(","))).await;
    let pods = pods.map_err(|error| explain_api(error, format!("could not list the pods of {}", object.describe())))?;
    let mut names: Vec<String> =
        pods.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(|pod| pod.name_any()).collect();
    names.sort();
    Ok(Some(Rollout { pods: names }))
}

/// Something new from the cluster.
enum Update {
    Workload(Result<Event<DynamicObject>, watcher::Error>),
    ReplicaSet(Result<Event<DynamicObject>, watcher::Error>),
    // Boxed, for a pod is large.
    Pod(Box<Result<Event<Pod>, watcher::Error>>),
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

/// What is known of the cluster.
struct Observed {
    kind: Option<Kind>,
    workload: Mirror<DynamicObject>,
    replica_sets: Mirror<DynamicObject>,
    pods: Mirror<Pod>,
}

impl Observed {
    fn new(target: &Target) -> Self {
        let kind = match target {
            Target::Object { kind, .. } => resource_of(*kind).map(|_| *kind),
            Target::Selector(_) => None,
        };
        Self { kind, workload: Mirror::default(), replica_sets: Mirror::default(), pods: Mirror::default() }
    }

    /// Takes an update in; answers whether the workload is gone.
    fn take(&mut self, update: Update) -> Result<bool> {
        match update {
            Update::Workload(event) => {
                self.workload.take(checked(event)?);
                return Ok(self.workload.complete && self.workload.objects.is_empty());
            }
            Update::ReplicaSet(event) => self.replica_sets.take(checked(event)?),
            Update::Pod(event) => self.pods.take(checked(*event)?),
        }
        Ok(false)
    }

    /// Whether everything was listed once.
    fn is_complete(&self) -> bool {
        self.pods.complete
            && (self.kind.is_none() || self.workload.complete)
            && (self.kind != Some(Kind::Deployment) || self.replica_sets.complete)
    }

    fn object(&self) -> Option<&DynamicObject> {
        self.workload.objects.values().next()
    }

    fn verdict(&self, events: &[ClusterEvent]) -> Verdict {
        let mut workload = self.kind.zip(self.object()).and_then(|(kind, object)| Workload::read(kind, object));
        if let Some(workload) = workload.as_mut().filter(|workload| workload.kind == Kind::Deployment)
            && let Some(object) = self.object()
        {
            refusals_of_newest(workload, object, self.replica_sets.objects.values());
        }
        assess(workload.as_ref(), &self.current_pods(), events, Timestamp::now())
    }

    /// The pods of the workload's newest version.
    fn current_pods(&self) -> Vec<&Pod> {
        let wanted = self.kind.zip(self.object()).map(|(kind, object)| version_label(kind, object, self.replica_sets.objects.values()));
        let fits = |pod: &&Pod| match &wanted {
            None | Some(VersionLabel::Any) => true,
            Some(VersionLabel::Unknown) => false,
            Some(VersionLabel::Is(key, value)) => pod.labels().get(*key) == Some(value),
        };
        self.pods.objects.values().filter(fits).collect()
    }

    fn pod_names(&self) -> Vec<String> {
        self.current_pods().iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(|pod| pod.name_any()).collect()
    }
}

/// How the pods of a workload's newest version are told from older ones.
#[derive(Debug, PartialEq, Eq)]
enum VersionLabel {
    /// There is only one version.
    Any,
    /// No pod of it exists yet.
    Unknown,
    /// By a label that the controller gives them.
    Is(&'static str, String),
}

/// What the pod template of a ReplicaSet has in addition to the Deployment's.
const HASH: &str = "pod-template-hash";

/// The Deployment controller finds its newest ReplicaSet the same way: it has the
/// same template but for the hash.
fn newest_set<'a>(object: &DynamicObject, mut replica_sets: impl Iterator<Item = &'a DynamicObject>) -> Option<&'a DynamicObject> {
    replica_sets.find(|set| {
        let mut template = set.data["spec"]["template"].clone();
        if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.remove(HASH);
        }
        let owned = set.owner_references().iter().any(|owner| Some(&owner.uid) == object.metadata.uid.as_ref());
        owned && template == object.data["spec"]["template"]
    })
}

/// A Deployment says that pods are refused whichever of its versions they are of;
/// only those of the newest count.
fn refusals_of_newest<'a>(workload: &mut Workload, object: &DynamicObject, replica_sets: impl Iterator<Item = &'a DynamicObject>) {
    workload.conditions.retain(|condition| condition.kind != "ReplicaFailure");
    let newest = newest_set(object, replica_sets).and_then(|set| Workload::read(Kind::ReplicaSet, set));
    workload.conditions.extend(newest.into_iter().flat_map(|set| set.conditions).filter(|condition| condition.kind == "ReplicaFailure"));
}

fn version_label<'a>(kind: Kind, object: &DynamicObject, replica_sets: impl Iterator<Item = &'a DynamicObject>) -> VersionLabel {
    match kind {
        Kind::Deployment => {
            let hash = newest_set(object, replica_sets).and_then(|set| set.labels().get(HASH).cloned());
            hash.map_or(VersionLabel::Unknown, |hash| VersionLabel::Is(HASH, hash))
        }
        Kind::StatefulSet => match object.data["status"]["updateRevision"].as_str() {
            Some(revision) => VersionLabel::Is("controller-revision-hash", revision.to_owned()),
            None => VersionLabel::Unknown,
        },
        Kind::DaemonSet => match object.annotations().get("deprecated.daemonset.template.generation") {
            Some(generation) => VersionLabel::Is("pod-template-generation", generation.clone()),
            None => VersionLabel::Any,
        },
        _ => VersionLabel::Any,
    }
}

/// Objects by name, as a watch tells of them.
struct Mirror<K> {
    objects: BTreeMap<String, K>,
    listed: BTreeMap<String, K>,
    complete: bool,
}

impl<K> Default for Mirror<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), listed: BTreeMap::new(), complete: false }
    }
}

impl<K: ResourceExt> Mirror<K> {
    fn take(&mut self, event: Option<Event<K>>) {
        match event {
            Some(Event::Apply(object)) => {
                self.objects.insert(object.name_any(), object);
            }
            Some(Event::Delete(object)) => {
                self.objects.remove(&object.name_any());
            }
            Some(Event::Init) => self.listed.clear(),
            Some(Event::InitApply(object)) => {
                self.listed.insert(object.name_any(), object);
            }
            Some(Event::InitDone) => {
                self.objects = std::mem::take(&mut self.listed);
                self.complete = true;
            }
            None => {}
        }
    }
}

/// A watch that breaks is taken up again by itself; one that is forbidden won't.
fn checked<K>(event: Result<Event<K>, watcher::Error>) -> Result<Option<Event<K>>> {
    match event {
        Ok(event) => Ok(Some(event)),
        Err(watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) if matches!(&error, kube::Error::Api(status) if status.code == 401 || status.code == 403) => {
            Err(explain_api(error, "could not watch the rollout"))
        }
        Err(error) => {
            tracing::info!(%error, "watch interrupted");
            Ok(None)
        }
    }
}

async fn too_late(cluster: &Cluster, target: &Target, observed: &Observed, timeout: Duration) -> CommandError {
    let message = format!("{target} is not ready after {}", human_duration(timeout));
    let events = events_of(cluster, observed).await;
    match observed.verdict(&events) {
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
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    for previous in [true, false] {
        let params = LogParams { container: Some(container.to_owned()), previous, tail_lines: Some(10), ..LogParams::default() };
        if let Ok(log) = api.logs(pod, &params).await
            && !log.trim().is_empty()
        {
            return log.lines().map(str::to_owned).collect();
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn workloads_of_all_kinds_are_read_alike() {
        let deployment = object(json!({
            "metadata": {"name": "shop", "generation": 3},
            "spec": {"replicas": 2},
            "status": {"observedGeneration": 3, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 1, "conditions": [
                {"type": "ReplicaFailure", "status": "True", "message": "quota", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "Available", "status": "False"}]}
        }));
        let workload = Workload::read(Kind::Deployment, &deployment).unwrap();
        assert_eq!((workload.desired, workload.updated, workload.available, workload.total), (2, 2, 1, 3));
        assert_eq!(workload.conditions.len(), 1);
        assert_eq!(workload.condition("ReplicaFailure").unwrap().message, "quota");
        let daemons = object(json!({"metadata": {"name": "d"}, "status": {"desiredNumberScheduled": 1, "numberAvailable": 1}}));
        assert_eq!(Workload::read(Kind::DaemonSet, &daemons).unwrap().desired, 1);
        assert_eq!(Workload::read(Kind::Service, &daemons), None);
    }

    #[test]
    fn the_newest_replica_set_is_the_one_with_the_same_template() {
        let deployment = object(
            json!({"metadata": {"name": "shop", "uid": "u"}, "spec": {"template": {"metadata": {"labels": {"app": "shop"}}, "spec": {"x": 2}}}}),
        );
        let set = |hash: &str, x: i32, owner: &str| {
            object(json!({
                "metadata": {"name": hash, "labels": {"pod-template-hash": hash}, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": owner}]},
                "spec": {"template": {"metadata": {"labels": {"app": "shop", "pod-template-hash": hash}}, "spec": {"x": x}}}
            }))
        };
        let (old, new, other) = (set("a", 1, "u"), set("b", 2, "u"), set("c", 2, "v"));
        assert_eq!(version_label(Kind::Deployment, &deployment, [&other, &old].into_iter()), VersionLabel::Unknown);
        assert_eq!(
            version_label(Kind::Deployment, &deployment, [&other, &old, &new].into_iter()),
            VersionLabel::Is("pod-template-hash", "b".into())
        );
    }

    #[test]
    fn only_refusals_of_the_newest_version_count() {
        let deployment = object(json!({
            "metadata": {"name": "shop", "uid": "u"}, "spec": {"template": {"spec": {"x": 2}}},
            "status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "old"}]}
        }));
        let set = |x: i32, message: &str| {
            object(json!({
                "metadata": {"name": message, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "u"}]},
                "spec": {"template": {"spec": {"x": x}}},
                "status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": message}]}
            }))
        };
        let (old, new) = (set(1, "old"), set(2, "new"));
        let refused = |sets: &[&DynamicObject]| {
            let mut workload = Workload::read(Kind::Deployment, &deployment).unwrap();
            refusals_of_newest(&mut workload, &deployment, sets.iter().copied());
            workload.condition("ReplicaFailure").map(|condition| condition.message.clone())
        };
        assert_eq!(refused(&[&old]), None);
        assert_eq!(refused(&[&old, &new]).as_deref(), Some("new"));
    }

    #[test]
    fn a_watch_that_starts_over_replaces_what_was_known() {
        let named = |name: &str| object(json!({"metadata": {"name": name}}));
        let mut mirror = Mirror::default();
        for event in [Event::Init, Event::InitApply(named("a")), Event::InitDone, Event::Apply(named("b")), Event::Init] {
            mirror.take(Some(event));
        }
        assert_eq!(mirror.objects.keys().collect::<Vec<_>>(), ["a", "b"]);
        mirror.take(Some(Event::InitApply(named("c"))));
        mirror.take(Some(Event::InitDone));
        assert_eq!(mirror.objects.keys().collect::<Vec<_>>(), ["c"]);
    }
}
