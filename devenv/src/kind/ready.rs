//! Waiting until a cluster can be worked with: its nodes are Ready, its DNS
//! answers, and pods can be created.

use devloop_core::error::{CommandError, Result};
use devloop_core::ui::Step;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, utils::Backoff};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::pin::pin;
use std::time::{Duration, Instant};

/// What is waited for.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// Each node and when its container was started (Unix seconds): what was
    /// said of it before counts for nothing.
    pub(super) nodes: HashMap<String, i64>,
    /// Whether nodes can become Ready at all: they can't without a network.
    pub(super) network: bool,
    /// Whether pods can reach Services.
    pub(super) services: bool,
    /// When to give up.
    pub(super) until: Instant,
}

/// Waits for all of it. Answers when each was reached.
///
/// # Errors
/// When time is up: what is missing.
pub(super) async fn wait(client: &Client, expected: &Expected, step: &Step) -> Result<Vec<(&'static str, Instant)>> {
    let nodes = async {
        if expected.network {
            let api: Api<Node> = Api::all(client.clone());
            watch_until(api, watcher::Config::default(), expected.until, step, |nodes| missing_nodes(&expected.nodes, nodes)).await?;
        }
        Ok::<_, CommandError>(("nodesReady", Instant::now()))
    };
    let dns = async {
        if expected.services {
            let api: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
            let config = watcher::Config::default().labels("k8s-app=kube-dns");
            watch_until(api, config, expected.until, step, |pods| missing_dns(&expected.nodes, pods)).await?;
        }
        Ok::<_, CommandError>(("dns", Instant::now()))
    };
    let account = async {
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
        let config = watcher::Config::default().fields("metadata.name=default");
        let missing = |accounts: &BTreeMap<String, ServiceAccount>| accounts.is_empty().then(|| "the default service account".to_owned());
        watch_until(api, config, expected.until, step, missing).await?;
        Ok::<_, CommandError>(("serviceAccount", Instant::now()))
    };
    let (nodes, dns, account) = tokio::try_join!(nodes, dns, account)?;
    Ok(vec![nodes, dns, account])
}

/// Watches objects until nothing is missing from them. A connection that fails
/// is made again: an API server that was just started refuses the first ones.
async fn watch_until<K>(
    api: Api<K>,
    config: watcher::Config,
    until: Instant,
    step: &Step,
    missing: impl Fn(&BTreeMap<String, K>) -> Option<String>,
) -> Result<()>
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = pin!(watcher(api, config).backoff(Steady));
    let mut known = BTreeMap::new();
    let mut listed = false;
    let mut last = String::new();
    let work = async {
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => {
                    known.clear();
                    listed = false;
                }
                Ok(Event::InitDone) => listed = true,
                Ok(Event::InitApply(object) | Event::Apply(object)) => {
                    known.insert(object.name_any(), object);
                }
                Ok(Event::Delete(object)) => {
                    known.remove(&object.name_any());
                }
                Err(error) => {
                    last = format!("the Kubernetes API ({error})");
                    step.detail("waiting for the Kubernetes API");
                    continue;
                }
            }
            if listed {
                match missing(&known) {
                    Some(what) => {
                        step.detail(format!("waiting for {what}"));
                        last = what;
                    }
                    None => return true,
                }
            }
        }
        false
    };
    let done = tokio::time::timeout_at(until.into(), work).await;
    match done {
        Ok(true) => Ok(()),
        Ok(false) => Err(CommandError::new("the Kubernetes API ended a watch for good")),
        Err(_) => {
            let what = if last.is_empty() { "the Kubernetes API" } else { &last };
            Err(CommandError::new(format!("not ready in time; still waiting for {what}"))
                .with_hint("give it longer with --timeout, in seconds"))
        }
    }
}

/// Somebody waits: no pause grows long.
struct Steady;

impl Iterator for Steady {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(200))
    }
}

impl Backoff for Steady {
    fn reset(&mut self) {}
}

fn missing_nodes(expected: &HashMap<String, i64>, nodes: &BTreeMap<String, Node>) -> Option<String> {
    let mut missing: Vec<&str> = expected
        .iter()
        .filter(|(name, started)| !nodes.get(*name).is_some_and(|node| is_ready_since(node, **started)))
        .map(|(name, _)| name.as_str())
        .collect();
    missing.sort_unstable();
    let what = if missing.len() == 1 { "node" } else { "nodes" };
    (!missing.is_empty()).then(|| format!("{what} {} to be Ready", missing.join(", ")))
}

fn is_ready_since(node: &Node, started: i64) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| {
        let heard = condition.last_heartbeat_time.as_ref().map_or(0, |time| time.0.as_second());
        condition.type_ == "Ready" && condition.status == "True" && heard >= started
    })
}

/// One answering pod is enough: the Service leads to it.
fn missing_dns(started: &HashMap<String, i64>, pods: &BTreeMap<String, Pod>) -> Option<String> {
    (!pods.values().any(|pod| answers_since(pod, started))).then(|| "cluster DNS".to_owned())
}

/// Whether the pod is Ready by what was said since its node was started.
fn answers_since(pod: &Pod, started: &HashMap<String, i64>) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    let node_started = started.get(node).copied().unwrap_or_default();
    let Some(status) = &pod.status else { return false };
    let ready = status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let mut containers = status.container_statuses.iter().flatten();
    let fresh = containers.all(|container| {
        let running = container.state.as_ref().and_then(|state| state.running.as_ref());
        running.and_then(|running| running.started_at.as_ref()).is_some_and(|time| time.0.as_second() >= node_started)
    });
    ready && fresh
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(status: &str, heard: &str) -> Node {
        let condition = json!({"type": "Ready", "status": status, "lastHeartbeatTime": heard});
        serde_json::from_value(json!({"metadata": {"name": "a"}, "status": {"conditions": [condition]}})).unwrap()
    }

    #[test]
    fn a_node_counts_by_what_its_new_kubelet_says() {
        let started = HashMap::from([("a".to_owned(), 1_767_225_600)]);
        let missing = |node: Node| missing_nodes(&started, &[("a".to_owned(), node)].into());
        assert_eq!(missing(node("True", "2026-01-01T00:00:00Z")), None);
        assert_eq!(missing(node("True", "2025-12-31T23:59:59Z")).as_deref(), Some("node a to be Ready"));
        assert!(missing(node("False", "2026-01-02T00:00:00Z")).is_some());
        assert!(missing_nodes(&started, &BTreeMap::new()).is_some());
    }

    #[test]
    fn dns_counts_once_its_container_was_started_after_its_node() {
        let pod = |at: &str| -> Pod {
            let container = json!({"name": "coredns", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": at}}});
            let status = json!({"conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [container]});
            serde_json::from_value(json!({"metadata": {"name": "x"}, "spec": {"nodeName": "a", "containers": []}, "status": status}))
                .unwrap()
        };
        let started = HashMap::from([("a".to_owned(), 1_767_225_600)]);
        assert_eq!(missing_dns(&started, &[("x".to_owned(), pod("2026-01-01T00:00:05Z"))].into()), None);
        assert!(missing_dns(&started, &[("x".to_owned(), pod("2025-12-01T00:00:00Z"))].into()).is_some());
        assert!(missing_dns(&started, &BTreeMap::new()).is_some());
    }
}
