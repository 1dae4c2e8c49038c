//! What there is to work with: project, manifests, cluster. Changes nothing.

use crate::destination::Destination;
use crate::plan::{self, Plan, Source};
use crate::request::Request;
use devloop_core::cluster::{self, Cluster};
use devloop_core::deploy;
use devloop_core::project::{self, ImageSpec, ProjectFile, Service};
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
    pub(crate) destination: Destination,
}

pub(crate) async fn gather(request: &Request) -> Result<Gathered> {
    let project = project::load(request.file.as_deref(), &request.start)?;
    let selected = with_images(project.select(&request.services)?, &project, request)?;
    let mut sources = Vec::with_capacity(selected.len());
    for (service, image) in selected {
        // Relative to where the user is, so that messages are short.
        let root = shorten(&project.root, &request.start);
        let paths: Vec<PathBuf> = service.deploy.manifests.iter().map(|path| root.join(path)).collect();
        sources.push(Source { service: service.clone(), image: image.clone(), manifests: deploy::load(&paths)? });
    }
    let plan = plan::plan(sources, &project.services)?;
    let cluster = cluster::connect(&request.cluster).await?;
    let destination = Destination::of(&cluster, &request.wishes, plan.services.len()).await?;
    let cache = devloop_core::environment::Directories::from_env()?.cache;
    Ok(Gathered { root: project.root, cache, plan, cluster, destination })
}

/// The services whose images are made here. Of all, the others are passed over;
/// by name, none can be asked for.
fn with_images<'a>(selected: Vec<&'a Service>, project: &ProjectFile, request: &Request) -> Result<Vec<(&'a Service, &'a ImageSpec)>> {
    let without = selected.iter().find(|service| service.image.is_none());
    let found: Vec<_> = selected.iter().filter_map(|service| Some((*service, service.image.as_ref()?))).collect();
    match without {
        Some(service) if found.is_empty() || !request.services.is_empty() => {
            Err(CommandError::usage(format!("service {:?} in {} has no image to build", service.name, project.path.display()))
                .with_hint("describe it under `image`; `kubectl hot-reload` does without"))
        }
        _ => Ok(found),
    }
}

fn shorten(root: &std::path::Path, start: &std::path::Path) -> PathBuf {
    let start = start.canonicalize().unwrap_or_else(|_| start.to_owned());
    root.strip_prefix(&start).map_or_else(|_| root.to_owned(), PathBuf::from)
}
