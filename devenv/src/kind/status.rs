//! What a kind environment is and does, as far as Docker and the API tell
//! within a moment.

use super::containers::{self, Container};
use super::files;
use crate::provider::{NodeSnapshot, Snapshot};
use devloop_core::docker::Engine;
use devloop_core::environment::{EnvironmentDirectory, EnvironmentRecord, EnvironmentStatus, Failure, KindOrigin, Phase};
use devloop_core::error::Result;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the API may take: a person waits for the answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks Docker, then the API. What doesn't answer is part of the answer.
pub(super) async fn snapshot(environment: &EnvironmentDirectory, record: EnvironmentRecord) -> Snapshot {
    let found = async {
        let engine = Engine::connect().await?;
        containers::of_cluster(&engine, &record.name).await
    };
    let found = match found.await {
        Ok(found) => found,
        Err(error) => {
            let failure = Failure { component: "docker".to_owned(), message: format!("does not answer: {error}") };
            let status = EnvironmentStatus { phase: Phase::Failed, failure: Some(failure), ..EnvironmentStatus::default() };
            return Snapshot { record, status, nodes: Vec::new() };
        }
    };
    let known = match tokio::time::timeout(PATIENCE, ask(environment, &record, &found)).await {
        Ok(Ok(known)) => known,
        Ok(Err(error)) => {
            tracing::debug!(error = devloop_core::telemetry::error_chain(&error), "the API does not answer");
            BTreeMap::new()
        }
        Err(_) => BTreeMap::new(),
    };
    let nodes: Vec<NodeSnapshot> = found.iter().filter(|container| container.is_node()).map(|container| node(container, &known)).collect();
    let status = judge(record.kind, &nodes);
    Snapshot { record, status, nodes }
}

/// Each node's readiness and version, as Kubernetes tells them.
async fn ask(
    environment: &EnvironmentDirectory,
    record: &EnvironmentRecord,
    found: &[Container],
) -> Result<BTreeMap<String, (bool, String)>> {
    let Some(identity) = containers::identity(found).filter(|_| found.iter().any(Container::runs)) else { return Ok(BTreeMap::new()) };
    let Some(text) = files::kubeconfig(environment, identity)? else { return Ok(BTreeMap::new()) };
    let client = super::client(&text, &record.context).await?;
    let listed = Api::<Node>::all(client).list(&ListParams::default()).await;
    let listed = listed.map_err(|error| devloop_core::cluster::explain(error, "could not list the nodes"))?;
    let described = listed.items.iter().map(|node| {
        let status = node.status.as_ref();
        let mut conditions = status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let version = status.and_then(|status| status.node_info.as_ref()).map(|info| info.kubelet_version.clone()).unwrap_or_default();
        (node.name_any(), (ready, version))
    });
    Ok(described.collect())
}

fn node(container: &Container, known: &BTreeMap<String, (bool, String)>) -> NodeSnapshot {
    let said = known.get(&container.name);
    NodeSnapshot {
        name: container.name.clone(),
        role: container.role.clone(),
        state: container.state.clone(),
        // Kubernetes takes a while to notice that a node is gone.
        ready: said.map(|(ready, _)| *ready && container.runs()),
        version: said.map(|(_, version)| version.clone()),
    }
}

fn judge(origin: Option<KindOrigin>, nodes: &[NodeSnapshot]) -> EnvironmentStatus {
    let running = nodes.iter().filter(|node| node.state == "running").count();
    let failed =
        |component: &str, message: &str| (Phase::Failed, Some(Failure { component: component.to_owned(), message: message.to_owned() }));
    let (phase, failure) = if origin == Some(KindOrigin::Unfinished) {
        (Phase::Starting, None)
    } else if nodes.is_empty() {
        failed("cluster", "was deleted; `kubectl devenv up` makes it anew, `down` forgets it")
    } else if running == 0 {
        (Phase::Stopped, None)
    } else if let Some(stopped) = nodes.iter().find(|node| node.state != "running") {
        failed(&stopped.name, "is not running; `kubectl devenv up` starts it")
    } else if nodes.iter().all(|node| node.ready == Some(true)) {
        (Phase::Ready, None)
    } else {
        (Phase::Starting, None)
    };
    EnvironmentStatus { phase, failure, ..EnvironmentStatus::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phase_is_what_its_nodes_are() {
        let node = |state: &str, ready| NodeSnapshot { name: "a".into(), role: "worker".into(), state: state.into(), ready, version: None };
        let phase = |nodes: &[NodeSnapshot]| judge(Some(KindOrigin::Made), nodes).phase;
        assert_eq!(phase(&[node("running", Some(true))]), Phase::Ready);
        assert_eq!(phase(&[node("running", Some(true)), node("running", None)]), Phase::Starting);
        assert_eq!(phase(&[node("exited", None)]), Phase::Stopped);
        assert_eq!(phase(&[node("running", Some(true)), node("exited", Some(false))]), Phase::Failed);
        assert_eq!(phase(&[]), Phase::Failed);
        assert_eq!(judge(Some(KindOrigin::Unfinished), &[]).phase, Phase::Starting);
    }
}
