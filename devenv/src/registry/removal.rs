//! Removing our registry when the last environment that uses it goes.

use super::container;
use super::convention::CONTAINER;
use super::{VOLUME, lock};
use crate::journal::{Created, Journal};
use bollard::models::NetworkDisconnectRequest;
use bollard::query_parameters::RemoveVolumeOptions;
use devloop_core::Context;
use devloop_core::docker::{DockerError, Engine};
use devloop_core::environment::Directories;
use devloop_core::error::Result;

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
        if !others.needs(&entry) {
            remove(engine, &entry).await?;
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

async fn remove(engine: &Engine, entry: &Created) -> Result<(), DockerError> {
    match entry {
        Created::Container { name } => {
            // Somebody may have put one of their own in its place.
            let ours = container::inspect(engine, name).await?.as_ref().is_some_and(container::is_ours);
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

/// 403: the container is not in that network.
fn absent_is_fine(result: Result<(), DockerError>) -> Result<(), DockerError> {
    match result {
        Err(error) if matches!(error.status(), Some(403 | 404)) => Ok(()),
        Err(error) if error.to_string().contains("is not connected") => Ok(()),
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
