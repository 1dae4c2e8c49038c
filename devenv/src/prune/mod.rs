//! `kubectl devenv prune`: frees the space of what nothing uses any more.
//!
//! Gather ([`nodes`], [`registries`], [`caches`], [`leftovers`]) -> [`plan`],
//! which a dry run prints -> the same modules carry it out, item by item.

mod caches;
mod leftovers;
mod nodes;
mod plan;
mod registries;
mod render;

use crate::embedded::node_binary;
use crate::provider::Providers;
use crate::request::{EnvironmentName, PruneRequest, Which};
use devloop_core::docker::Engine;
use devloop_core::environment::Directories;
use devloop_core::error::Result;
use devloop_core::node::Node;
use devloop_core::{Context, ExitStatus, output};
use plan::{Action, Item, Snapshot};

/// Finds what can go, and removes it unless it is a dry run.
pub(crate) async fn run(context: &Context, providers: &Providers, directories: &Directories, request: &PruneRequest) -> Result<ExitStatus> {
    let step = context.ui.step("Looking for what nothing uses");
    let place =
        Place { engine: Engine::connect().await.ok(), nodes: running_nodes(providers, directories, &request.which).await?, directories };
    let snapshot = context.shutdown.guard(gather(&place, &request.which)).await?;
    step.clear();
    let items = plan::plan(&snapshot);
    let mut done = Vec::new();
    for item in items {
        if request.dry_run {
            done.push(render::Done { item, error: None });
            continue;
        }
        if context.shutdown.is_requested() {
            return Err(devloop_core::CommandError::interrupted());
        }
        let step = context.ui.step(format!("Removing {}", item.name));
        // One that can't be removed must not keep the others.
        let error = execute(context, providers, &place, &item).await.err().map(|error| error.chain().join(": "));
        step.clear();
        done.push(render::Done { item, error });
    }
    let report = render::Report::new(request.dry_run, done, snapshot.notes);
    output::print(request.output, &report, || render::text(&report))?;
    Ok(if report.failed() { ExitStatus::Failure } else { ExitStatus::Success })
}

/// Where is looked.
struct Place<'a> {
    /// Nothing is looked for in an engine that doesn't answer.
    engine: Option<Engine>,
    /// With the name of their environment.
    nodes: Vec<(EnvironmentName, Node)>,
    directories: &'a Directories,
}

impl Place<'_> {
    fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().map(|(_, node)| node).find(|node| node.name() == name)
    }
}

/// The nodes of environments that run.
async fn running_nodes(providers: &Providers, directories: &Directories, which: &Which) -> Result<Vec<(EnvironmentName, Node)>> {
    let names = match which {
        Which::One(name) => vec![name.clone()],
        Which::All => directories.environment_names()?.iter().filter_map(|name| name.parse().ok()).collect(),
    };
    let mut nodes = Vec::new();
    for name in names {
        match providers.of(&name).nodes(&name).await {
            Ok(found) => nodes.extend(found.into_iter().map(|node| (name.clone(), node))),
            // One that was named must be there; of all, some may be down.
            Err(error) if matches!(which, Which::One(_)) => return Err(error),
            Err(error) => tracing::debug!(%error, environment = name.as_str(), "has no nodes now"),
        }
    }
    Ok(nodes)
}

async fn gather(place: &Place<'_>, which: &Which) -> Result<Snapshot> {
    let mut snapshot = Snapshot::default();
    for (_, node) in &place.nodes {
        snapshot.nodes.push(nodes::gather(node).await?);
    }
    registries::gather(place, which, &mut snapshot).await;
    if *which == Which::All {
        snapshot.caches = caches::gather(&place.directories.cache, &node_binary::folder(place.directories));
        leftovers::gather(place, &mut snapshot).await;
    }
    Ok(snapshot)
}

async fn execute(context: &Context, providers: &Providers, place: &Place<'_>, item: &Item) -> Result<()> {
    match &item.action {
        Action::RemoveImage { node, digest, references } => match place.node(node) {
            Some(node) => nodes::remove(node, digest, references).await,
            None => Ok(()),
        },
        Action::CollectNode { node } => match place.node(node) {
            Some(node) => registries::collect_node(place, node).await,
            None => Ok(()),
        },
        Action::CollectContainer => match &place.engine {
            Some(engine) => crate::registry::collect_container(context, engine, place.directories).await,
            None => Ok(()),
        },
        Action::RemovePaths { paths } => caches::remove(paths),
        Action::RemoveLayers { paths } => caches::remove_layers(&place.directories.cache, paths),
        Action::RemoveEnvironment { name } => leftovers::remove(context, providers, place.directories, name).await,
        Action::RemoveCreated { created } => match &place.engine {
            Some(engine) => crate::registry::remove_abandoned(context, engine, place.directories, created).await,
            None => Ok(()),
        },
    }
}
