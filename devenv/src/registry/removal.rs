//! Removing our registry when the last environment that uses it goes.

use super::container;
use super::convention::CONTAINER;
use super::{VOLUME, lock};
use crate::journal::{Created, Journal};
use bollard::models::NetworkDisconnectRequest;
use bollard::query_parameters::{ListContainersOptions, ListVolumesOptions, RemoveVolumeOptions};
use devloop_core::Context;
use devloop_core::docker::{DockerError, Engine};
use devloop_core::environment::Directories;
use devloop_core::error::Result;
use devloop_core::node::{Node, kind::CLUSTER_LABEL};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

/// Takes an environment's share of the registry's container, volume and network
/// connections out of its journal, and removes those that no other environment
/// has in its own. What isn't ours, or is gone, is passed over.
///
/// # Errors
/// When the engine fails; what is still there stays in the journal.
pub async fn disconnect(
    context: &Context,
    engine: &Engine,
    directories: &Directories,
    environment: &str,
    journal: &mut Journal,
) -> Result<()> {
    let _lock = lock(context, directories).await?;
    let others = others(directories, environment)?;
    for entry in journal.newest_first().into_iter().filter(concerns_us) {
        if !others.needs(&entry) && !is_known_elsewhere(engine, container_of(&entry), environment).await {
            remove(engine, &entry, &directories.state).await?;
        }
        journal.remove(&entry)?;
    }
    Ok(())
}

fn concerns_us(entry: &Created) -> bool {
    match entry {
        Created::Container { name } => name == CONTAINER,
        Created::Volume { name } => name == VOLUME,
        Created::NetworkConnection { .. } => true,
        _ => false,
    }
}

/// What other environments have in their journals.
#[derive(Debug, Default)]
struct Others {
    created: Vec<Created>,
    /// One of them can't be read: it may have anything.
    unreadable: bool,
}

impl Others {
    fn needs(&self, entry: &Created) -> bool {
        self.unreadable || self.created.contains(entry)
    }
}

fn others(directories: &Directories, environment: &str) -> Result<Others> {
    let mut others = Others::default();
    for name in directories.environment_names()?.iter().filter(|name| *name != environment) {
        match Journal::open(&directories.environment(name)) {
            Ok(journal) => others.created.extend(journal.newest_first()),
            Err(error) => {
                tracing::warn!(%error, environment = name, "can't tell what it uses");
                others.unreadable = true;
            }
        }
    }
    Ok(others)
}

/// How long the nodes of other clusters may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The registry's container that an entry is about: ours, or, for a connection,
/// one that may be somebody else's.
fn container_of(entry: &Created) -> &str {
    match entry {
        Created::NetworkConnection { container, .. } => container,
        _ => CONTAINER,
    }
}

/// Whether nodes of another cluster than `environment`'s, made by whomever,
/// pull from the registry in this container: environments with another folder
/// for their state have journals that aren't seen here. Without an answer, they
/// may.
async fn is_known_elsewhere(engine: &Engine, container: &str, environment: &str) -> bool {
    let asking = async {
        let Some(inspected) = container::inspect(engine, container).await? else { return Ok(false) };
        let Some(port) = container::published_port(&inspected) else { return Ok(false) };
        let filters = HashMap::from([("label".to_owned(), vec![CLUSTER_LABEL.to_owned()])]);
        let options = ListContainersOptions { filters: Some(filters), ..ListContainersOptions::default() };
        let listed = engine.client().list_containers(Some(options)).await.map_err(DockerError::request("list the containers of kind"))?;
        let clusters: BTreeSet<String> = listed.into_iter().filter_map(|container| container.labels?.remove(CLUSTER_LABEL)).collect();
        for cluster in clusters.iter().filter(|cluster| *cluster != environment) {
            let (path, _) = super::convention::hosts_files(port, "").swap_remove(0);
            for node in Node::of_kind(engine, cluster).await? {
                if node.file_size(&path).await.is_ok_and(|size| size.is_some()) {
                    return Ok(true);
                }
            }
        }
        Ok::<_, devloop_core::CommandError>(false)
    };
    tokio::time::timeout(PATIENCE, asking).await.ok().and_then(Result::ok).unwrap_or(true)
}

/// Our registry's container and volume, when no environment has them in its
/// journal and no cluster uses them.
///
/// # Errors
/// When the engine or a journal can't be read.
pub(crate) async fn abandoned(engine: &Engine, directories: &Directories) -> Result<Vec<Created>> {
    let others = others(directories, "")?;
    let mut found = Vec::new();
    if container::inspect(engine, CONTAINER).await?.is_some_and(|inspected| container::is_ours(&inspected, &directories.state)) {
        found.push(Created::Container { name: CONTAINER.to_owned() });
    }
    let volumes = engine.client().list_volumes(None::<ListVolumesOptions>).await.map_err(DockerError::request("list volumes"))?;
    let ours = |volume: &bollard::models::Volume| container::has_our_labels(&volume.labels, &directories.state);
    found.extend(volumes.volumes.unwrap_or_default().into_iter().filter(ours).map(|volume| Created::Volume { name: volume.name }));
    found.retain(|entry| !others.needs(entry));
    let in_use = !found.is_empty() && is_known_elsewhere(engine, CONTAINER, "").await;
    Ok(if in_use { Vec::new() } else { found })
}

/// Removes what [`abandoned`] found, if that is still so.
///
/// # Errors
/// When the engine fails.
pub(crate) async fn remove_abandoned(context: &Context, engine: &Engine, directories: &Directories, entry: &Created) -> Result<()> {
    let _lock = lock(context, directories).await?;
    if abandoned(engine, directories).await?.contains(entry) {
        remove(engine, entry, &directories.state).await?;
    }
    Ok(())
}

async fn remove(engine: &Engine, entry: &Created, state: &Path) -> Result<(), DockerError> {
    match entry {
        Created::Container { name } => {
            // Somebody may have put one of their own in its place.
            let ours = container::inspect(engine, name).await?.as_ref().is_some_and(|inspected| container::is_ours(inspected, state));
            if ours { container::remove(engine, name).await } else { Ok(()) }
        }
        Created::Volume { name } => {
            let removed = engine.client().remove_volume(name, None::<RemoveVolumeOptions>).await;
            absent_is_fine(removed.map_err(DockerError::request(format!("remove volume {name}"))))
        }
        Created::NetworkConnection { network, container } => {
            let request = NetworkDisconnectRequest { container: container.clone(), force: Some(true) };
            let disconnected = engine.client().disconnect_network(network, request).await;
            let doing = format!("disconnect container {container} from network {network}");
            absent_is_fine(disconnected.map_err(DockerError::request(doing)))
        }
        _ => Ok(()),
    }
}

/// 403: the container is not in that network; Docker 20.10 says 500 and a
/// sentence.
fn absent_is_fine(result: Result<(), DockerError>) -> Result<(), DockerError> {
    let says_so = |error: &DockerError| std::error::Error::source(error).is_some_and(|said| said.to_string().contains("is not connected"));
    match result {
        Err(error) if matches!(error.status(), Some(403 | 404)) || says_so(&error) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_environment_has_stays() {
        let folder = tempfile::tempdir().unwrap();
        let directories = Directories { state: folder.path().into(), cache: folder.path().into() };
        let container = Created::Container { name: CONTAINER.into() };
        for name in ["one", "two"] {
            std::fs::create_dir_all(directories.environment(name).root()).unwrap();
            Journal::open(&directories.environment(name)).unwrap().add(container.clone()).unwrap();
        }
        assert!(others(&directories, "one").unwrap().needs(&container));
        Journal::open(&directories.environment("two")).unwrap().remove(&container).unwrap();
        assert!(!others(&directories, "one").unwrap().needs(&container));
        std::fs::write(directories.environment("two").root().join("journal.json"), "[").unwrap();
        assert!(others(&directories, "one").unwrap().needs(&container));
    }
}
