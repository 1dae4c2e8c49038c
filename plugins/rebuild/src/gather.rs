//! What there is to work with: project, manifests, cluster. Changes nothing.

use crate::plan::{self, Plan, Source};
use crate::request::Request;
use devloop_core::cluster::{self, Cluster};
use devloop_core::deploy;
use devloop_core::error::ErrorHint;
use devloop_core::node::Node;
use devloop_core::project;
use devloop_core::{CommandError, Result};
use std::path::PathBuf;

/// All that the work needs.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// The folder that the project's paths are relative to.
    pub(crate) root: PathBuf,
    /// Where layers are kept.
    pub(crate) cache: PathBuf,
    pub(crate) plan: Plan,
    pub(crate) cluster: Cluster,
    pub(crate) node: Node,
}

pub(crate) async fn gather(request: &Request) -> Result<Gathered> {
    let project = project::load(request.file.as_deref(), &request.start)?;
    let selected = project.select(&request.services)?;
    let mut sources = Vec::with_capacity(selected.len());
    for service in selected {
        // Relative to where the user is, so that messages are short.
        let root = shorten(&project.root, &request.start);
        let paths: Vec<PathBuf> = service.deploy.manifests.iter().map(|path| root.join(path)).collect();
        sources.push(Source { service: service.clone(), manifests: deploy::load(&paths)? });
    }
    let plan = plan::plan(sources, &project.services)?;
    let cluster = cluster::connect(&request.cluster).await?;
    let node = cluster
        .nodes
        .first()
        .cloned()
        .ok_or_else(|| {
            CommandError::new(format!(
                "context {:?} is not an environment of `kubectl devenv`: images can only be delivered to those yet",
                cluster.context
            ))
        })
        .hint("bring one up with `kubectl devenv up`, and choose it with --context devloop-NAME")?;
    let cache = devloop_core::environment::Directories::from_env()?.cache;
    Ok(Gathered { root: project.root, cache, plan, cluster, node })
}

fn shorten(root: &std::path::Path, start: &std::path::Path) -> PathBuf {
    let start = start.canonicalize().unwrap_or_else(|_| start.to_owned());
    root.strip_prefix(&start).map_or_else(|_| root.to_owned(), PathBuf::from)
}
