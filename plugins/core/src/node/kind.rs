//! The nodes of kind clusters: containers that carry kind's labels.

use super::{Access, Node, Owner};
use crate::cluster::guard::is_loopback_host as is_loopback;
use crate::docker::{DockerError, Engine};
use bollard::models::{ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};
use std::collections::HashMap;

/// On every container of a cluster; its value is the cluster's name.
pub const CLUSTER_LABEL: &str = "io.x-k8s.kind.cluster";
/// `control-plane`, `worker` or `external-load-balancer`.
pub const ROLE_LABEL: &str = "io.x-k8s.kind.role";

/// The API server's port in a control plane's container.
const API_PORT: u16 = 6443;

pub(super) async fn nodes(engine: &Engine, cluster: &str) -> Result<Vec<Node>, DockerError> {
    let containers = containers(engine, &format!("{CLUSTER_LABEL}={cluster}")).await?;
    of_containers(engine, cluster, &containers).await
}

/// The nodes of the cluster whose API server is published at `server`. A
/// context's name proves nothing: it may lead to a cluster of the same name on
/// another machine. An engine that doesn't answer has no nodes for us.
pub(super) async fn nodes_behind(context: &str, server: &str) -> Vec<Node> {
    let Some((host, port)) = address(server) else { return Vec::new() };
    if !is_loopback(host) && !context.starts_with("kind-") {
        return Vec::new();
    }
    let found = async {
        let engine = Engine::connect().await?;
        let all = containers(&engine, CLUSTER_LABEL).await?;
        let Some(cluster) = all.iter().find(|container| publishes(container, port)).and_then(|container| label(container, CLUSTER_LABEL))
        else {
            return Ok(Vec::new());
        };
        let of_cluster: Vec<ContainerSummary> =
            all.iter().filter(|container| label(container, CLUSTER_LABEL) == Some(cluster)).cloned().collect();
        of_containers(&engine, cluster, &of_cluster).await
    };
    found.await.unwrap_or_else(|error: DockerError| {
        tracing::debug!(%error, context, "no node of this context can be reached through Docker");
        Vec::new()
    })
}

/// Running containers with a label.
async fn containers(engine: &Engine, label: &str) -> Result<Vec<ContainerSummary>, DockerError> {
    let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()]), ("status".to_owned(), vec!["running".to_owned()])]);
    let options = ListContainersOptions { filters: Some(filters), ..ListContainersOptions::default() };
    engine.client().list_containers(Some(options)).await.map_err(DockerError::request("list the containers of kind"))
}

async fn of_containers(engine: &Engine, cluster: &str, containers: &[ContainerSummary]) -> Result<Vec<Node>, DockerError> {
    let is_node = |container: &&ContainerSummary| matches!(label(container, ROLE_LABEL), Some("control-plane" | "worker"));
    let inspected = containers.iter().filter(is_node).filter_map(name).map(|name| async move {
        let inspected = engine.client().inspect_container(&name, None::<InspectContainerOptions>).await;
        inspected.map(|inspected| (name, inspected)).map_err(DockerError::request("inspect a node of kind"))
    });
    let mut nodes = futures::future::try_join_all(inspected).await?;
    let role = |inspected: &ContainerInspectResponse| inspected.config.as_ref()?.labels.as_ref()?.get(ROLE_LABEL).cloned();
    nodes.sort_by_key(|(name, inspected)| (role(inspected), name.clone()));
    Ok(nodes
        .into_iter()
        .map(|(name, inspected)| Node {
            name,
            owner: Owner::Kind { cluster: cluster.to_owned() },
            access: local_process(&inspected).map_or(Access::Exec { engine: engine.clone() }, |init_pid| Access::Namespaces { init_pid }),
        })
        .collect())
}

/// The container's first process, where it is one of this machine and ours to
/// join: the engine may be on another machine, or have process ids of its own.
fn local_process(inspected: &ContainerInspectResponse) -> Option<i32> {
    let id = inspected.id.as_deref().filter(|id| id.len() == 64)?;
    let forced = std::env::var_os("DEVLOOP_NODE_ACCESS").is_some_and(|access| access == "exec");
    if forced || !nix::unistd::geteuid().is_root() {
        return None;
    }
    let told = inspected.state.as_ref().and_then(|state| i32::try_from(state.pid?).ok()).filter(|pid| *pid > 0);
    // Where the engine counts processes by itself, its number is another's here,
    // perhaps that of a pod's process.
    told.filter(|pid| depth_of_first(*pid, id).is_some()).or_else(|| first_process(id))
}

/// Looks for it among all processes: in the fewest namespaces, should others of
/// the container have their own.
fn first_process(container: &str) -> Option<i32> {
    let numbers = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter_map(|pid| Some((depth_of_first(pid, container)?, pid))).min().map(|(_, pid)| pid)
}

/// In how many pid namespaces a process is, if it is number 1 of its own, and of
/// the container itself.
fn depth_of_first(pid: i32, container: &str) -> Option<usize> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    if !is_of_container_itself(&read("cgroup")?, container) {
        return None;
    }
    let status = read("status")?;
    let namespaces: Vec<&str> = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().collect();
    (namespaces.len() > 1 && namespaces.last() == Some(&"1")).then_some(namespaces.len())
}

/// Whether a process is in the control group of a node's container, and not in one
/// of the pods' below it, see cgroups(7).
fn is_of_container_itself(cgroup: &str, container: &str) -> bool {
    cgroup.contains(container) && !cgroup.contains("kubepods")
}

fn publishes(container: &ContainerSummary, port: u16) -> bool {
    container.ports.iter().flatten().any(|published| published.private_port == API_PORT && published.public_port == Some(port))
}

fn label<'a>(container: &'a ContainerSummary, name: &str) -> Option<&'a str> {
    container.labels.as_ref()?.get(name).map(String::as_str)
}

fn name(container: &ContainerSummary) -> Option<String> {
    container.names.as_ref()?.first().map(|name| name.trim_start_matches('/').to_owned())
}

/// Host and port of `https://HOST:PORT`.
fn address(server: &str) -> Option<(&str, u16)> {
    let rest = server.split_once("://")?.1;
    let (host, port) = rest.split('/').next()?.rsplit_once(':')?;
    Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_address_is_read_from_its_url() {
        assert_eq!(address("https://127.0.0.1:41234"), Some(("127.0.0.1", 41234)));
        assert_eq!(address("https://[::1]:6443/x"), Some(("::1", 6443)));
        assert_eq!(address("https://example.com"), None);
        assert!(is_loopback("::1") && is_loopback("localhost") && !is_loopback("192.0.2.1"));
    }

    #[test]
    fn pods_of_a_node_are_not_the_node() {
        let id = "ab".repeat(32);
        let node = format!("9:pids:/docker/{id}\n1:name=systemd:/docker/{id}/init.scope\n0::/\n");
        let pod = format!("9:pids:/docker/{id}/kubelet/kubepods/burstable/pod1/{}\n0::/\n", "cd".repeat(32));
        assert!(is_of_container_itself(&node, &id));
        assert!(!is_of_container_itself(&pod, &id) && !is_of_container_itself("0::/user.slice\n", &id));
        assert_eq!(depth_of_first(i32::try_from(std::process::id()).unwrap(), &id), None);
    }

    #[tokio::test]
    async fn a_cluster_elsewhere_has_no_nodes_whatever_it_is_called() {
        assert!(nodes_behind("kind-x", "https://example.com").await.is_empty());
        assert!(nodes_behind("production", "https://192.0.2.1:6443").await.is_empty());
    }
}
