//! What the decision looks at. Every question has a time limit.

use super::decide::{Machine, Records};
use crate::embedded::{node_binary, preflight};
use crate::provider::Providers;
use crate::request::{EnvironmentName, ProviderChoice};
use devloop_core::cluster;
use devloop_core::docker::Engine;
use devloop_core::environment::{Directories, Phase, find_on_path};
use devloop_core::error::{CommandError, Result};
use devloop_core::node::{Node, Owner};
use std::time::Duration;

/// How long environments and engines may take to say what they are.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a registry may take to say whether it has a node image.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(3);
/// The image that is asked for; where it is, kind's own default is, too.
const PULLABLE: &str = "kindest/node:v1.34.0";

/// The engine of every environment that has a record that can be read. One that
/// is damaged is the embedded engine's to report.
pub(super) fn records(directories: &Directories) -> Result<Records> {
    let names = directories.environment_names()?;
    let known = names.iter().filter_map(|name| {
        let provider = match directories.environment(name).record() {
            Ok(record) => match record?.provider.as_str() {
                "kind" => ProviderChoice::Kind,
                "context" => ProviderChoice::Context,
                _ => ProviderChoice::Embedded,
            },
            Err(_) => ProviderChoice::Embedded,
        };
        Some((name.parse::<EnvironmentName>().ok()?, provider))
    });
    Ok(known.collect())
}

/// The environments that are up or coming up; one that doesn't say so in time
/// is not.
pub(super) async fn running(providers: &Providers, records: &Records) -> Result<Records> {
    let mut running = Records::new();
    for (name, provider) in records {
        let asked = tokio::time::timeout(PATIENCE, providers.of(name).snapshot(name)).await;
        if let Ok(Ok(Some(snapshot))) = asked
            && matches!(snapshot.status.phase, Phase::Ready | Phase::Starting)
        {
            running.insert(name.clone(), *provider);
        }
    }
    Ok(running)
}

/// What this machine can run.
pub(super) async fn machine(directories: &Directories, variable: Option<String>) -> Result<Machine> {
    let (current_kind, kind) = tokio::join!(current_kind(directories), kind(directories, variable));
    Ok(Machine { current_kind, kind, embedded: embedded(directories) })
}

/// The kind cluster that the kubeconfig's current context leads to. Where there
/// is none, the kubeconfig may be damaged or the engine gone: no matter why.
async fn current_kind(directories: &Directories) -> Option<String> {
    let found = async {
        let config = cluster::load_kubeconfig(None).ok()?;
        let context = config.current_context.clone().filter(|context| !context.is_empty())?;
        let server = cluster::client_config(config, &context).await.ok()?.cluster_url.to_string();
        let nodes = Node::of_context(directories, &context, &server).await.ok()?;
        nodes.iter().find_map(|node| match node.owner() {
            Owner::Kind { cluster } => Some(cluster.clone()),
            _ => None,
        })
    };
    tokio::time::timeout(PATIENCE, found).await.ok().flatten()
}

/// What speaks for kind, or against it.
async fn kind(directories: &Directories, variable: Option<String>) -> Result<String, String> {
    let engine = match tokio::time::timeout(PATIENCE, Engine::connect()).await {
        Ok(engine) => engine.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("the Docker engine does not answer within {} s", PATIENCE.as_secs())),
    };
    let answers = format!("Docker {} answers", engine.version());
    let installed = find_on_path("kind").is_some() || directories.cache.join("bin/kind").is_file();
    if !installed && find_on_path("go").is_none() {
        return Err(format!("{answers}, but there is neither kind nor Go to install it with"));
    }
    if let Some(image) = variable.filter(|image| !image.is_empty()) {
        return Ok(format!("{answers} and KIND_NODE_IMAGE names {image}"));
    }
    let images = tokio::time::timeout(PATIENCE, engine.kind_node_images()).await;
    match images {
        Ok(images) => {
            if let Some(image) = images.map_err(|error| error.to_string())?.pop() {
                return Ok(format!("{answers} and has {image}"));
            }
        }
        Err(_) => return Err(format!("{answers}, but does not list its images within {} s", PATIENCE.as_secs())),
    }
    match tokio::time::timeout(REGISTRY_PATIENCE, engine.can_pull(PULLABLE)).await {
        Ok(Ok(())) => Ok(format!("{answers} and can pull its node image")),
        _ => Err(format!("{answers}, but has no kind node image and can't pull one (`scripts/kind-node-image` makes one)")),
    }
}

/// What the embedded engine lacks.
fn embedded(directories: &Directories) -> Result<(), String> {
    preflight::check().map_err(|error| one_line(&error))?;
    if !node_binary::is_built(directories) && find_on_path("go").is_none() {
        return Err("Go is missing, which its components are built with once".to_owned());
    }
    Ok(())
}

fn one_line(error: &CommandError) -> String {
    let hints = error.hints();
    if hints.is_empty() { error.to_string() } else { format!("{error}; {}", hints.join("; ")) }
}
