//! Registries: what a collection would free, and the collection.

use super::Place;
use super::plan::{Action, RegistryBlobs, Snapshot};
use crate::embedded::registry::{COMPONENT, CONFIG, DATA, PROGRAM};
use crate::registry::collection::{PATIENCE, arguments, has_index};
use crate::registry::{Collection, convention};
use crate::request::Which;
use devloop_core::environment::EnvironmentDirectory;
use devloop_core::error::{CommandError, ErrorContext, Result};
use devloop_core::node::{Node, NodeOutput, Owner};
use std::path::PathBuf;

/// Looks at the registries of embedded nodes, and at the shared one of kind.
/// One that can't be asked is noted.
pub(super) async fn gather(place: &Place<'_>, which: &Which, snapshot: &mut Snapshot) {
    for (name, node) in &place.nodes {
        let Some(environment) = embedded(place, node) else { continue };
        let Some(port) = environment.record().ok().flatten().and_then(|record| record.registry_port) else { continue };
        match preview(&environment, node).await {
            Ok(found) => snapshot.registries.push(RegistryBlobs {
                registry: convention::host(port),
                blobs: found.blobs.len(),
                bytes: found.bytes,
                action: Action::CollectNode { node: node.name().to_owned() },
            }),
            Err(error) => snapshot.notes.push(format!("the registry of {:?}: {}", name.as_str(), error.chain().join(": "))),
        }
    }
    let shares = *which == Which::All || place.nodes.iter().any(|(_, node)| matches!(node.owner(), Owner::Kind { .. }));
    let Some(engine) = place.engine.as_ref().filter(|_| shares) else { return };
    match crate::registry::preview_container(engine, place.directories).await {
        Ok(None) => {}
        Ok(Some(found)) => snapshot.registries.push(RegistryBlobs {
            registry: convention::CONTAINER.to_owned(),
            blobs: found.blobs.len(),
            bytes: found.bytes,
            action: Action::CollectContainer,
        }),
        Err(error) => snapshot.notes.push(format!("registry {}: {}", convention::CONTAINER, error.chain().join(": "))),
    }
}

fn embedded(place: &Place<'_>, node: &Node) -> Option<EnvironmentDirectory> {
    let Owner::Embedded { environment } = node.owner() else { return None };
    Some(place.directories.environment(environment))
}

fn data(environment: &EnvironmentDirectory) -> PathBuf {
    environment.root().join("node").join(DATA.trim_start_matches('/'))
}

async fn preview(environment: &EnvironmentDirectory, node: &Node) -> Result<Collection> {
    let data = data(environment);
    if !data.join("docker").exists() {
        // Nothing was ever pushed, which the collector takes for an error.
        return Ok(Collection::default());
    }
    let arguments = arguments(true, has_index(&data), CONFIG);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = finished(node, PROGRAM, &arguments).await?;
    Ok(Collection::of(&String::from_utf8_lossy(&said.stdout), Some(&data)))
}

/// Holds the registry while the collector works, then ends it: the supervisor
/// starts it again at once, without memory of what is gone.
const SCRIPT: &str = r#"pid=$1; shift
kill -STOP "$pid" || exit 1
trap 'kill -KILL "$pid"' EXIT
"$@""#;

/// Frees what no tag of an embedded node's registry refers to.
pub(super) async fn collect_node(place: &Place<'_>, node: &Node) -> Result<()> {
    let Some(environment) = embedded(place, node) else { return Ok(()) };
    let status = environment.status()?.unwrap_or_default();
    let pid = status.components.get(COMPONENT).map(|component| component.pid).filter(|pid| *pid > 0);
    let pid = pid.ok_or_else(|| CommandError::new("the registry does not run"))?.to_string();
    let collector = arguments(false, has_index(&data(&environment)), CONFIG);
    let script = ["-c", SCRIPT, "sh", &pid, PROGRAM].into_iter().chain(collector.iter().map(String::as_str));
    finished(node, "sh", &script.collect::<Vec<_>>()).await?;
    let Some(port) = environment.record()?.and_then(|record| record.registry_port) else { return Ok(()) };
    let serving = devloop_core::registry::wait_until_serving(&format!("127.0.0.1:{port}")).await;
    serving.context("the registry did not come back")
}

async fn finished(node: &Node, program: &str, arguments: &[&str]) -> Result<NodeOutput> {
    let output =
        tokio::time::timeout(PATIENCE, node.output(program, arguments)).await.context("the registry's collector takes too long")?;
    let output = output.context("could not run the registry's collector")?;
    if output.code != 0 {
        return Err(CommandError::new(format!("the registry's collector failed: {}", output.stderr.trim())));
    }
    Ok(output)
}
