//! The watch of a scope's pods.

use super::follow::classify;
use super::instance::{NamedContainer, containers};
use super::owners::Owners;
use super::scope::Scope;
use super::sleep::machine_slept;
use super::{Choice, Source};
use crate::error::Result;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// On the pods that the kubelet itself starts: what it calls their folders.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// On the same pods, as the API server shows them.
const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// What a watch has to say.
pub(super) enum News {
    Event(usize, Box<watcher::Event<Pod>>),
    Interrupted(usize, String),
    Refused(usize, kube::Error),
    Happened(usize, Box<k8s_openapi::api::core::v1::Event>),
    EventsRefused(usize, kube::Error),
}

/// Lists the pods of a scope, oldest first.
///
/// # Errors
/// When the API server refuses or can't be asked.
pub async fn list_pods(scope: &Scope, choice: &Choice) -> Result<Vec<Pod>> {
    let listed = list(scope, choice).await;
    listed.map_err(|error| classify(error, format!("list the pods of {}", scope.describe())).into())
}

pub(super) async fn list(scope: &Scope, choice: &Choice) -> kube::Result<Vec<Pod>> {
    let mut owners = Owners::new(scope.place.client.clone());
    let mut pods = Vec::new();
    for pod in scope.api().list(&scope.list_params()).await?.items {
        if is_in(scope, &mut owners, &pod).await && choice.wants_pod(&pod) {
            pods.push(pod);
        }
    }
    pods.sort_by_key(|pod| (pod.creation_timestamp().map(|time| time.0), pod.name_any()));
    Ok(pods)
}

async fn is_in(scope: &Scope, owners: &mut Owners, pod: &Pod) -> bool {
    if !scope.wants_name(&pod.name_any()) {
        return false;
    }
    match &scope.owner {
        Some(root) => owners.own(root, pod).await,
        None => true,
    }
}

/// Watches the pods of one scope until nobody listens, or it is refused.
pub(super) async fn watch(index: usize, scope: Scope, news_tx: mpsc::Sender<News>) {
    let api = scope.api();
    let mut owners = Owners::new(scope.place.client.clone());
    loop {
        let stream = watcher(api.clone(), scope.watch_config()).default_backoff();
        tokio::pin!(stream);
        loop {
            let event = tokio::select! {
                event = stream.next() => event,
                () = machine_slept() => None,
            };
            let Some(event) = event else { break };
            let news = match event {
                Ok(event) => {
                    let is_wanted = match &event {
                        watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => is_in(&scope, &mut owners, pod).await,
                        _ => true,
                    };
                    if !is_wanted {
                        continue;
                    }
                    News::Event(index, Box::new(event))
                }
                Err(watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) => match error {
                    kube::Error::Api(status) if matches!(status.code, 401 | 403) => News::Refused(index, kube::Error::Api(status)),
                    error => News::Interrupted(index, error.to_string()),
                },
                // The watcher begins anew by itself.
                Err(error) => {
                    tracing::debug!(%error, "pod watch broke");
                    continue;
                }
            };
            let is_refused = matches!(news, News::Refused(..));
            let is_interrupted = matches!(news, News::Interrupted(..));
            if news_tx.send(news).await.is_err() || is_refused {
                return;
            }
            if is_interrupted {
                // The watcher's own back-off goes up to half a minute, and it
                // doesn't tell when a watch works again; a new one does.
                until_answered(&api).await;
                break;
            }
        }
    }
}

/// Waits until the API server answers.
async fn until_answered(api: &Api<Pod>) {
    let mut pause = Duration::from_millis(250);
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(3));
        match api.list(&ListParams::default().limit(1)).await {
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "the API server doesn't answer yet"),
        }
    }
}

/// A pod, as far as logs go.
#[derive(Clone, Debug)]
pub(super) struct PodView {
    pub(super) uid: String,
    pub(super) containers: Vec<NamedContainer>,
    /// Its node, once it has one.
    pub(super) node: Option<String>,
    /// Where its node has its logs.
    pub(super) folder: String,
    /// What its sources say besides the container.
    source: Source,
}

impl PodView {
    pub(super) fn of(pod: &Pod, context: Option<&String>) -> Self {
        let containers = containers(pod);
        let uid = pod.uid().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let source = Source {
            context: context.cloned(),
            namespace: pod.namespace().unwrap_or_default(),
            pod: pod.name_any(),
            container: String::new(),
            has_siblings: containers.len() > 1,
            node: node.clone().unwrap_or_default(),
            labels: pod.labels().clone(),
            annotations: pod.annotations().clone(),
        };
        Self { folder: folder(&source, &uid, pod.annotations()), uid, containers, node, source }
    }

    pub(super) fn source(&self, container: &str) -> Arc<Source> {
        Arc::new(Source { container: container.to_owned(), ..self.source.clone() })
    }
}

/// The kubelet's `BuildPodLogsDirectory`: `NAMESPACE_NAME_UID`, the uid being a
/// hash for pods that it started by itself.
fn folder(source: &Source, uid: &str, annotations: &BTreeMap<String, String>) -> String {
    let own = annotations.get(CONFIG_HASH).filter(|_| annotations.contains_key(CONFIG_MIRROR));
    format!("{}_{}_{}", source.namespace, source.pod, own.map_or(uid, String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_folder_of_a_pod_is_the_kubelets() {
        let pod = |annotations: serde_json::Value| -> Pod {
            let metadata = json!({"name": "etcd-one", "namespace": "kube-system", "uid": "u1", "annotations": annotations});
            serde_json::from_value(json!({"metadata": metadata, "spec": {"nodeName": "one", "containers": [{"name": "etcd"}]}})).unwrap()
        };
        let view = PodView::of(&pod(json!({})), None);
        assert_eq!((view.folder.as_str(), view.node.as_deref()), ("kube-system_etcd-one_u1", Some("one")));
        let mirror = pod(json!({CONFIG_HASH: "abc", CONFIG_MIRROR: "abc"}));
        assert_eq!(PodView::of(&mirror, None).folder, "kube-system_etcd-one_abc");
    }
}
