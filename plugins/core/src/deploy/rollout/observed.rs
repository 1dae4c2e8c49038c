//! What is known of a workload that is waited for.

use super::mirror::Mirror;
use super::resource_of;
use super::version::{VersionLabel, refusals_of_newest, version_label};
use super::workload::Workload;
use crate::deploy::assess::{Verdict, assess};
use crate::deploy::explain_api;
use crate::error::Result;
use crate::target::{Kind, Target};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as ClusterEvent, Pod};
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event};

/// Something new from the cluster.
pub(super) enum Update {
    Workload(Result<Event<DynamicObject>, watcher::Error>),
    ReplicaSet(Result<Event<DynamicObject>, watcher::Error>),
    // Boxed, for a pod is large.
    Pod(Box<Result<Event<Pod>, watcher::Error>>),
}

/// What is known of the cluster.
pub(super) struct Observed {
    kind: Option<Kind>,
    workload: Mirror<DynamicObject>,
    pub(super) replica_sets: Mirror<DynamicObject>,
    pods: Mirror<Pod>,
}

impl Observed {
    pub(super) fn new(target: &Target) -> Self {
        let kind = match target {
            Target::Object { kind, .. } => resource_of(*kind).map(|_| *kind),
            Target::Selector(_) => None,
        };
        Self { kind, workload: Mirror::default(), replica_sets: Mirror::default(), pods: Mirror::default() }
    }

    /// Takes an update in; answers whether the workload is gone.
    pub(super) fn take(&mut self, update: Update) -> Result<bool> {
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
    pub(super) fn is_complete(&self) -> bool {
        self.pods.complete
            && (self.kind.is_none() || self.workload.complete)
            && (self.kind != Some(Kind::Deployment) || self.replica_sets.complete)
    }

    pub(super) fn object(&self) -> Option<&DynamicObject> {
        self.workload.objects.values().next()
    }

    pub(super) fn verdict(&self, events: &[ClusterEvent]) -> Verdict {
        let mut workload = self.kind.zip(self.object()).and_then(|(kind, object)| Workload::read(kind, object));
        if let Some(workload) = workload.as_mut().filter(|workload| workload.kind == Kind::Deployment)
            && let Some(object) = self.object()
        {
            refusals_of_newest(workload, object, self.replica_sets.objects.values());
        }
        assess(workload.as_ref(), &self.current_pods(), events, Timestamp::now())
    }

    /// The pods of the workload's newest version.
    pub(super) fn current_pods(&self) -> Vec<&Pod> {
        let wanted = self.kind.zip(self.object()).map(|(kind, object)| version_label(kind, object, self.replica_sets.objects.values()));
        let fits = |pod: &&Pod| match &wanted {
            None | Some(VersionLabel::Any) => true,
            Some(VersionLabel::Unknown) => false,
            Some(VersionLabel::Is(key, value)) => pod.labels().get(*key) == Some(value),
        };
        self.pods.objects.values().filter(fits).collect()
    }

    pub(super) fn pod_names(&self) -> Vec<String> {
        self.current_pods().iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(|pod| pod.name_any()).collect()
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
