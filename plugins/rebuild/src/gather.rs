//! What there is to work with: project, manifests, cluster. Changes nothing.

use crate::destination::Destination;
use crate::plan::{self, Plan, Source};
use crate::request::Request;
use devloop_core::Result;
use devloop_core::cluster::{self, Cluster};
use devloop_core::deploy;
use devloop_core::project;
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
    pub(crate) destination: Destination,
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
    let destination = Destination::of(&cluster, request.via, request.registry.as_deref()).await?;
    let cache = devloop_core::environment::Directories::from_env()?.cache;
    Ok(Gathered { root: project.root, cache, plan, cluster, destination })
}

fn shorten(root: &std::path::Path, start: &std::path::Path) -> PathBuf {
    let start = start.canonicalize().unwrap_or_else(|_| start.to_owned());
    root.strip_prefix(&start).map_or_else(|_| root.to_owned(), PathBuf::from)
}
