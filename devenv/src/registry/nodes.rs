//! Making a registry known to a cluster: to its nodes' containerd, to its API.

use super::Registry;
use super::container;
use super::convention::{self, INNER_PORT};
use crate::journal::{Created, Journal};
use bollard::models::NetworkConnectRequest;
use devloop_core::cluster::explain;
use devloop_core::docker::{DockerError, Engine};
use devloop_core::error::{ErrorContext, Result};
use devloop_core::node::Node;
use devloop_core::registry::{HOSTING_NAME, HOSTING_NAMESPACE, hosting, publish};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use kube::{Api, Client};

const MANAGER: &str = "devloop";

/// Connects a registry with a cluster: its container with the nodes' network, a
/// `hosts.toml` on every node, and the ConfigMap by which other tools find it.
/// What others have set up is left as it is; repeating is fine.
///
/// # Errors
/// When the engine, a node or the API fails. What was made is in the journal.
pub async fn connect(
    registry: &Registry,
    engine: &Engine,
    network: &str,
    nodes: &[Node],
    client: &Client,
    journal: &mut Journal,
) -> Result<()> {
    join_network(registry, engine, network, journal).await?;
    let inside = format!("{}:{INNER_PORT}", registry.container);
    let files = convention::hosts_files(registry.port, &inside);
    let pairs: Vec<(&Node, &String, &String)> =
        nodes.iter().flat_map(|node| files.iter().map(move |(path, text)| (node, path, text))).collect();
    let there = try_join_all(pairs.iter().map(|(node, path, _)| async move { node.file_size(path).await.map(|size| size.is_some()) }));
    let there = there.await.context("could not look at the registry's configuration on the nodes")?;
    let missing: Vec<_> = pairs.into_iter().zip(there).filter(|(_, there)| !there).map(|(pair, _)| pair).collect();
    for (node, path, _) in &missing {
        journal.add(Created::NodeFile { node: node.name().to_owned(), path: (*path).clone() })?;
    }
    let writing = missing.iter().map(|(node, path, text)| node.write_file(path, text.as_bytes(), 0o644));
    try_join_all(writing).await.context("could not tell the nodes where the registry is")?;
    if hosting(client).await?.is_none() {
        journal.add(config_map())?;
        let announced = publish(client, MANAGER, &convention::hosting(registry.port, Some(&inside))).await;
        announced.map_err(|error| explain(error, "could not tell the cluster where its registry is"))?;
    }
    Ok(())
}

fn config_map() -> Created {
    Created::Object { kind: "ConfigMap".to_owned(), namespace: HOSTING_NAMESPACE.to_owned(), name: HOSTING_NAME.to_owned() }
}

async fn join_network(registry: &Registry, engine: &Engine, network: &str, journal: &mut Journal) -> Result<()> {
    let inspected = container::inspect(engine, &registry.container).await?;
    let networks = inspected.and_then(|inspected| inspected.network_settings?.networks).unwrap_or_default();
    let connection = Created::NetworkConnection { network: network.to_owned(), container: registry.container.clone() };
    if networks.contains_key(network) {
        // Ours may have been connected by another environment, with which this
        // one shares the connection from now on.
        return if registry.ours { journal.add(connection) } else { Ok(()) };
    }
    journal.add(connection)?;
    let request = NetworkConnectRequest { container: registry.container.clone(), ..NetworkConnectRequest::default() };
    let connected = engine.client().connect_network(network, request).await;
    match connected.map_err(DockerError::request(format!("connect container {} with network {network}", registry.container))) {
        // Somebody else was faster.
        Err(error) if error.status() == Some(403) => Ok(()),
        other => Ok(other?),
    }
}

/// Takes back what [`connect`] did to the nodes and the API of a cluster that
/// lives on. Nodes that are gone took theirs with them.
///
/// # Errors
/// When a node or the API fails; what is still there stays in the journal.
pub async fn withdraw(nodes: &[Node], client: &Client, journal: &mut Journal) -> Result<()> {
    for entry in journal.newest_first() {
        match &entry {
            Created::NodeFile { node: name, path } if path.starts_with(convention::HOSTS_FOLDER) => {
                if let Some(node) = nodes.iter().find(|node| node.name() == name) {
                    let folder = path.trim_end_matches("/hosts.toml");
                    let script = "rm -f \"$1\" && { rmdir \"$2\" 2>/dev/null || true; }";
                    let removed = node.output("sh", &["-c", script, "sh", path, folder]).await;
                    removed.with_context(|| format!("could not remove {path} from the {}", node.describe()))?;
                }
            }
            object if *object == config_map() => {
                let maps: Api<ConfigMap> = Api::namespaced(client.clone(), HOSTING_NAMESPACE);
                match maps.delete(HOSTING_NAME, &DeleteParams::default()).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    Err(error) => return Err(explain(error, "could not remove what the cluster says of its registry")),
                    Ok(_) => {}
                }
            }
            _ => continue,
        }
        journal.remove(&entry)?;
    }
    Ok(())
}
