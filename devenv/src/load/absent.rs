//! Nodes of a kind cluster that don't run: nothing can be put on them, and
//! whoever loads an image must hear of it.

use bollard::query_parameters::ListContainersOptions;
use devloop_core::docker::{DockerError, Engine};
use devloop_core::error::Result;
use devloop_core::node::kind::{CLUSTER_LABEL, ROLE_LABEL};
use devloop_core::node::{Node, Owner};

/// Names of the nodes that belong to the cluster of `nodes` and are not among
/// them.
pub(super) async fn names(nodes: &[Node]) -> Result<Vec<String>> {
    let Some(Owner::Kind { cluster }) = nodes.first().map(Node::owner) else { return Ok(Vec::new()) };
    let engine = Engine::connect().await?;
    let labels = vec![format!("{CLUSTER_LABEL}={cluster}")];
    let options =
        ListContainersOptions { all: true, filters: Some([("label".to_owned(), labels)].into()), ..ListContainersOptions::default() };
    let containers = engine.client().list_containers(Some(options)).await.map_err(DockerError::request("list the nodes of kind"))?;
    let is_node = |role: &String| role == "control-plane" || role == "worker";
    let of_nodes =
        containers.into_iter().filter(|container| container.labels.as_ref().and_then(|labels| labels.get(ROLE_LABEL)).is_some_and(is_node));
    let names = of_nodes.filter_map(|container| Some(container.names?.first()?.trim_start_matches('/').to_owned()));
    let mut names: Vec<String> = names.filter(|name| nodes.iter().all(|node| node.name() != name)).collect();
    names.sort();
    Ok(names)
}
