//! The containers of a kind cluster, through the Docker engine.

use bollard::models::{ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptions, RemoveContainerOptions, StartContainerOptions, StopContainerOptions,
};
use devloop_core::docker::{DockerError, Engine};
use devloop_core::node::kind::{CLUSTER_LABEL, ROLE_LABEL};
use futures::future::try_join_all;
use jiff::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

/// The role of the containers that run the control plane.
pub(super) const CONTROL_PLANE: &str = "control-plane";
const WORKER: &str = "worker";

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    /// `control-plane`, `worker` or `external-load-balancer`.
    pub(super) role: String,
    /// What the engine says of it, such as `running`.
    pub(super) state: String,
    pub(super) image: String,
    /// The port of this machine that leads to the API, while it runs.
    pub(super) api_port: Option<u16>,
}

impl Container {
    pub(super) fn runs(&self) -> bool {
        self.state == "running"
    }

    /// Whether Kubernetes knows it as a node.
    pub(super) fn is_node(&self) -> bool {
        self.role == CONTROL_PLANE || self.role == WORKER
    }
}

/// All containers of a cluster, running or not: load balancer, control planes,
/// workers.
pub(super) async fn of_cluster(engine: &Engine, cluster: &str) -> Result<Vec<Container>, DockerError> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{CLUSTER_LABEL}={cluster}")])]);
    let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
    let listed = engine.client().list_containers(Some(options)).await.map_err(DockerError::request("list the containers of kind"))?;
    let mut containers: Vec<Container> = listed.into_iter().filter_map(container).collect();
    let rank = |role: &str| match role {
        CONTROL_PLANE => 1,
        WORKER => 2,
        _ => 0,
    };
    containers.sort_by_key(|container| (rank(&container.role), container.name.clone()));
    Ok(containers)
}

fn container(summary: ContainerSummary) -> Option<Container> {
    let api_port = summary.ports.iter().flatten().find(|port| port.private_port == 6443).and_then(|port| port.public_port);
    Some(Container {
        id: summary.id?,
        name: summary.names?.first()?.trim_start_matches('/').to_owned(),
        role: summary.labels?.remove(ROLE_LABEL).unwrap_or_default(),
        state: summary.state.map(|state| state.to_string()).unwrap_or_default(),
        image: summary.image.unwrap_or_default(),
        api_port,
    })
}

/// What tells this cluster from another of the same name: the id of its first
/// control plane's container.
pub(super) fn identity(containers: &[Container]) -> Option<&str> {
    let first = containers.iter().find(|container| container.role == CONTROL_PLANE)?;
    first.id.get(..12)
}

/// When each node's container was started, by name, to the second, which is how
/// exactly Kubernetes tells time.
pub(super) async fn started(engine: &Engine, containers: &[Container]) -> Result<HashMap<String, i64>, DockerError> {
    let nodes = containers.iter().filter(|container| container.is_node());
    let inspected = nodes.map(|container| async move {
        let inspected = engine.client().inspect_container(&container.name, None::<InspectContainerOptions>).await;
        inspected.map(|inspected| (container.name.clone(), start_of(&inspected))).map_err(DockerError::request("inspect a node of kind"))
    });
    Ok(try_join_all(inspected).await?.into_iter().collect())
}

fn start_of(inspected: &ContainerInspectResponse) -> i64 {
    let text = inspected.state.as_ref().and_then(|state| state.started_at.as_deref());
    text.and_then(|text| text.parse::<Timestamp>().ok()).map_or(0, Timestamp::as_second)
}

/// Starts those that don't run: the control planes first, since workers look
/// for them.
pub(super) async fn start(engine: &Engine, containers: &[Container]) -> Result<(), DockerError> {
    for workers in [false, true] {
        let stopped = containers.iter().filter(|container| !container.runs() && (container.role == WORKER) == workers);
        try_join_all(stopped.map(|container| async move {
            let paused = container.state == "paused";
            let started = if paused {
                engine.client().unpause_container(&container.name).await
            } else {
                engine.client().start_container(&container.name, None::<StartContainerOptions>).await
            };
            started.map_err(DockerError::request(format!("start container {}", container.name)))
        }))
        .await?;
    }
    Ok(())
}

/// Stops them, the workers first.
pub(super) async fn stop(engine: &Engine, containers: &[Container]) -> Result<(), DockerError> {
    for workers in [true, false] {
        let running = containers.iter().filter(|container| container.runs() && (container.role == WORKER) == workers);
        try_join_all(running.map(|container| async move {
            let stopped = engine.client().stop_container(&container.name, None::<StopContainerOptions>).await;
            stopped.map_err(DockerError::request(format!("stop container {}", container.name)))
        }))
        .await?;
    }
    Ok(())
}

/// Removes them with their volumes.
pub(super) async fn remove(engine: &Engine, containers: &[Container]) -> Result<(), DockerError> {
    let removals = containers.iter().map(|container| async move {
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        match engine
            .client()
            .remove_container(&container.id, Some(options))
            .await
            .map_err(DockerError::request(format!("remove container {}", container.name)))
        {
            // Somebody else was faster, or is at it.
            Err(error) if matches!(error.status(), Some(404 | 409)) => Ok(()),
            other => other,
        }
    });
    try_join_all(removals).await.map(|_| ())
}

/// Removes all containers of a cluster, those included that the engine is still
/// making for a kind that was killed.
pub(super) async fn remove_cluster(engine: &Engine, cluster: &str) -> Result<(), DockerError> {
    let mut clear_rounds = 0;
    for _ in 0..100 {
        let left = of_cluster(engine, cluster).await?;
        clear_rounds = if left.is_empty() { clear_rounds + 1 } else { 0 };
        if clear_rounds == 3 {
            break;
        }
        remove(engine, &left).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
