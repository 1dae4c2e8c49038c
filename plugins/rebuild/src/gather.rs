//! What there is to work with: project, manifests, cluster. Changes nothing.

use crate::destination::Destination;
use crate::plan::{self, Plan, Source};
use crate::project::{self, Found, shorten};
use crate::request::Request;
use devloop_core::cluster::{self, Cluster};
use devloop_core::deploy::{ApplySet, Loader, Manifest};
use devloop_core::project::{ImageSpec, ProjectFile, Service};
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
    /// Whether the plan knows all manifests of the project.
    pub(crate) is_whole: bool,
    /// What the project has in the cluster.
    pub(crate) set: ApplySet,
    pub(crate) cluster: Cluster,
    pub(crate) destination: Destination,
}

pub(crate) async fn gather(request: &Request, found: &Found) -> Result<Gathered> {
    let project = &found.project;
    let reached = async {
        let plan = read_plan(request, project).await?;
        let cluster = cluster::connect(&request.cluster).await?;
        let destination = Destination::of(&cluster, &request.wishes, plan.services.len()).await?;
        Ok::<_, CommandError>((plan, cluster, destination))
    };
    // Git, which is asked for the identity, takes its time meanwhile.
    let (identity, reached) = tokio::join!(project::identity(project), reached);
    let (plan, cluster, destination) = reached?;
    let cache = devloop_core::environment::Directories::from_env()?.cache;
    let name = project.root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let set = ApplySet::new(&name, &identity, &cluster.namespace);
    Ok(Gathered { root: project.root.clone(), cache, plan, is_whole: request.needs_whole_project(), set, cluster, destination })
}

/// What is to be done, from the files alone.
async fn read_plan(request: &Request, project: &ProjectFile) -> Result<Plan> {
    let selected = with_images(project.select(&request.services)?, project, request)?;
    let mut loader = Loader::new(shorten(&project.root, &request.start), request.helm_cluster());
    let mut sources = Vec::with_capacity(selected.len());
    for (service, image) in &selected {
        let manifests = loader.load(&service.name, &service.deploy).await?;
        sources.push(Source { service: (*service).clone(), image: (*image).clone(), manifests });
    }
    let mut others: Vec<Manifest> = Vec::new();
    if request.needs_whole_project() {
        for service in project.services.iter().filter(|service| !selected.iter().any(|(other, _)| other.name == service.name)) {
            others.extend(loader.load(&service.name, &service.deploy).await?);
        }
    }
    plan::plan(sources, others, &project.services)
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
