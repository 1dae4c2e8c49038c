//! Whether nodes will take a pod after all, and what keeps them from it: recent
//! schedulers count the taints that they met and don't name them.

use crate::cluster::Cluster;
use crate::deploy::assess::{Cause, Verdict};
use k8s_openapi::api::core::v1::{Event, Node, Taint};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use std::time::Duration;

/// Taints that Kubernetes sets by itself, and the node's condition that tells more
/// (<https://kubernetes.io/docs/reference/labels-annotations-taints/>).
const CONDITIONS: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "Ready"),
    ("node.kubernetes.io/unreachable", "Ready"),
    ("node.kubernetes.io/network-unavailable", "NetworkUnavailable"),
    ("node.kubernetes.io/disk-pressure", "DiskPressure"),
    ("node.kubernetes.io/memory-pressure", "MemoryPressure"),
    ("node.kubernetes.io/pid-pressure", "PIDPressure"),
];

/// Those of a node that starts, or that is about to be heard of again. Pressure is
/// not among them: the kubelet keeps it for five minutes after it has passed.
const PASSING: [&str; 4] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/network-unavailable",
    "node.cloudprovider.kubernetes.io/uninitialized",
];

/// What autoscalers note about a pod for which they make a node: the cluster
/// autoscaler's word and Karpenter's.
const NODE_COMES: [&str; 2] = ["TriggeredScaleUp", "Nominated"];

/// How long the API server may take to tell; what it does not tell is left out.
const ANSWER: Duration = Duration::from_secs(2);

/// As many nodes are named.
const NAMED: usize = 3;

/// What nodes and autoscalers say. What may not be read is left out: users without
/// a right to list nodes get the scheduler's sentence alone.
#[derive(Default)]
struct Room {
    nodes: Vec<Node>,
    events: Vec<Event>,
}

/// What becomes of a pod that no node takes, for which the scheduler has a sentence.
pub(super) async fn verdict(cluster: &Cluster, pod: String, message: &str) -> Verdict {
    Room::gather(cluster, &pod).await.judge(pod, message)
}

impl Room {
    async fn gather(cluster: &Cluster, pod: &str) -> Self {
        let nodes = Api::<Node>::all(cluster.client.clone());
        let events = Api::<Event>::namespaced(cluster.client.clone(), &cluster.namespace);
        let about = ListParams::default().fields(&format!("involvedObject.name={pod}"));
        let everything = ListParams::default();
        let asked = async { tokio::join!(nodes.list(&everything), events.list(&about)) };
        let Ok((nodes, events)) = tokio::time::timeout(ANSWER, asked).await else { return Self::default() };
        Self { nodes: nodes.map(|list| list.items).unwrap_or_default(), events: events.map(|list| list.items).unwrap_or_default() }
    }

    /// A pod that no node takes is waited for where that will pass; the cause names
    /// what the nodes say.
    fn judge(&self, pod: String, message: &str) -> Verdict {
        let sentences = if message.contains("taint") { self.sentences() } else { Vec::new() };
        let cause = Cause::Unschedulable { pod, message: [vec![message.to_owned()], sentences].concat().join("; ") };
        if self.passes() || self.node_comes() { Verdict::Waiting(Some(cause)) } else { Verdict::Failed(cause) }
    }

    fn passes(&self) -> bool {
        self.nodes.iter().any(|node| {
            let mut keys = repelling(node).map(|taint| taint.key.as_str()).peekable();
            keys.peek().is_some() && keys.all(|key| PASSING.contains(&key))
        })
    }

    fn node_comes(&self) -> bool {
        self.events.iter().filter_map(|event| event.reason.as_deref()).any(|reason| NODE_COMES.contains(&reason))
    }

    fn sentences(&self) -> Vec<String> {
        let tainted: Vec<String> = self.nodes.iter().filter_map(sentence).collect();
        let more = tainted.len().saturating_sub(NAMED);
        let more = (more > 0).then(|| format!("and {more} more"));
        tainted.into_iter().take(NAMED).chain(more).collect()
    }
}

/// The taints that keep pods away that don't tolerate them.
fn repelling(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect != "PreferNoSchedule")
}

fn sentence(node: &Node) -> Option<String> {
    let taints: Vec<String> = repelling(node).map(|taint| named(node, taint)).collect();
    (!taints.is_empty()).then(|| format!("node {} has {}", node.name_any(), taints.join(", ")))
}

/// A taint as `kubectl taint` writes it, with the kubelet's reason.
fn named(node: &Node, taint: &Taint) -> String {
    let value = taint.value.as_deref().filter(|value| !value.is_empty()).map(|value| format!("={value}")).unwrap_or_default();
    let text = format!("{}{value}:{}", taint.key, taint.effect);
    match reason(node, &taint.key) {
        Some(reason) => format!("{text} ({reason})"),
        None => text,
    }
}

fn reason<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    let (_, kind) = CONDITIONS.iter().find(|(taint, _)| *taint == key)?;
    let condition = node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == *kind)?;
    condition.message.as_deref().filter(|message| !message.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MESSAGE: &str = "0/1 nodes are available: 1 node(s) had untolerated taint(s).";

    fn node(name: &str, taints: &[&str], condition: &str, message: &str) -> Node {
        let taints: Vec<_> = taints.iter().map(|key| json!({"key": key, "effect": "NoSchedule"})).collect();
        serde_json::from_value(json!({
            "metadata": {"name": name}, "spec": {"taints": taints},
            "status": {"conditions": [{"type": condition, "status": "True", "message": message}]},
        }))
        .unwrap()
    }

    fn judge(nodes: Vec<Node>, events: Vec<Event>, message: &str) -> (bool, String) {
        match (Room { nodes, events }).judge("shop-1".into(), message) {
            Verdict::Waiting(Some(cause)) => (true, cause.to_string()),
            Verdict::Failed(cause) => (false, cause.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_node_s_own_reason_is_told() {
        let full = node("one", &["node.kubernetes.io/disk-pressure"], "DiskPressure", "kubelet has disk pressure");
        let (waits, text) = judge(vec![full], vec![], MESSAGE);
        assert!(!waits);
        insta::assert_snapshot!(text, @"no node takes pod shop-1: 0/1 nodes are available: 1 node(s) had untolerated taint(s).; node one has node.kubernetes.io/disk-pressure:NoSchedule (kubelet has disk pressure)");
    }

    #[test]
    fn what_a_user_set_is_named_as_kubectl_writes_it() {
        let mut own = node("one", &["dedicated"], "Ready", "");
        own.spec.as_mut().unwrap().taints.as_mut().unwrap()[0].value = Some("gpu".into());
        let nodes = ["two", "three", "four", "five"].map(|name| node(name, &["dedicated"], "Ready", ""));
        let (waits, text) = judge([vec![own], nodes.into()].concat(), vec![], "taint");
        assert!(!waits);
        assert!(text.contains("node one has dedicated=gpu:NoSchedule; node two has dedicated:NoSchedule; "), "{text}");
        assert!(text.ends_with("; and 2 more"), "{text}");
    }

    #[test]
    fn a_node_that_starts_is_waited_for() {
        let starting = || node("one", &["node.kubernetes.io/not-ready"], "Ready", "container runtime is down");
        let (waits, text) = judge(vec![starting()], vec![], MESSAGE);
        assert!(waits && text.contains("(container runtime is down)"), "{text}");
        let both = node("two", &["node.kubernetes.io/not-ready", "dedicated"], "Ready", "");
        assert!(!judge(vec![both.clone()], vec![], MESSAGE).0, "it would not take the pod when it is ready");
        assert!(judge(vec![both, starting()], vec![], MESSAGE).0);
        assert!(!judge(vec![], vec![], MESSAGE).0);
    }

    #[test]
    fn a_node_that_an_autoscaler_makes_is_waited_for() {
        let event = |reason: &str| serde_json::from_value(json!({"metadata": {}, "involvedObject": {}, "reason": reason})).unwrap();
        let full = "0/1 nodes are available: 1 Insufficient cpu.";
        assert!(judge(vec![], vec![event("TriggeredScaleUp")], full).0);
        assert!(judge(vec![], vec![event("Nominated")], full).0);
        assert!(!judge(vec![], vec![event("FailedScheduling")], full).0);
    }
}
