//! Which services a session is about: those of devloop.yaml, or what belongs to
//! a target where there is none.

use crate::pods;
use crate::request::Request;
use devloop_core::agent::{Agent, ByteString, Located};
use devloop_core::cluster::Cluster;
use devloop_core::detect::{self, Reason, Remote, RemoteProcess};
use devloop_core::project::{self, Build, ProjectFile, Service};
use devloop_core::target::{self, PodSelection, Target};
use devloop_core::{CommandError, Result};
use k8s_openapi::api::core::v1::Pod;
use std::path::{Path, PathBuf};

/// A service, and where what is known of it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) root: PathBuf,
    pub(crate) service: Service,
    pub(crate) selection: PodSelection,
    pub(crate) container: String,
    pub(crate) reasons: Vec<Reason>,
    /// Whether it was worked out, for want of a devloop.yaml.
    pub(crate) is_worked_out: bool,
}

/// Finds the services that were asked for.
///
/// # Errors
/// When there is no such service, or what a target is made of can't be told.
pub(crate) async fn find(request: &Request, cluster: &Cluster) -> Result<Vec<Found>> {
    let Some(project) = project::load_if_any(request.file.as_deref(), &request.start)? else {
        return work_out(request, cluster).await;
    };
    if let Some(selector) = &request.selector {
        return Err(CommandError::usage(format!("pods with {selector} are no service in {}", project.path.display()))
            .with_hint("name a service of it, or go to a folder without devloop.yaml"));
    }
    let mut found = Vec::new();
    for service in select(&project, &request.services)? {
        let (selection, container, _) = container_of(cluster, &service.deploy.target, service.deploy.container.as_deref()).await?;
        let reasons = reasons_of(&project.path, service);
        found.push(Found { root: project.root.clone(), service: service.clone(), selection, container, reasons, is_worked_out: false });
    }
    Ok(found)
}

/// What belongs to the targets, whether there is a devloop.yaml or not.
///
/// # Errors
/// When it can't be told.
pub(crate) async fn work_out(request: &Request, cluster: &Cluster) -> Result<Vec<Found>> {
    let targets = targets_of(request)?;
    let local = detect::look(&request.start).await?;
    let mut found = Vec::new();
    for target in targets {
        let (selection, container, pods) = container_of(cluster, &target, None).await?;
        let process = process_of(cluster, &pods, &container).await;
        let remote = remote(target, container.clone(), &pods, process);
        let detected = detect::detect(&local, &remote)?;
        let detect::Detected { service, reasons } = detected;
        found.push(Found { root: local.root.clone(), service, selection, container, reasons, is_worked_out: true });
    }
    Ok(found)
}

fn targets_of(request: &Request) -> Result<Vec<Target>> {
    if let Some(selector) = &request.selector {
        return Ok(vec![Target::Selector(selector.clone())]);
    }
    if request.services.is_empty() {
        // The same words as when a file is asked for.
        return Err(project::load(None, &request.start)
            .err()
            .unwrap_or_else(|| CommandError::usage("no service was named"))
            .with_hint("or name a target, such as deploy/web: what belongs to it is worked out (--explain says how)"));
    }
    let parse = |text: &String| text.parse().map_err(|error| CommandError::usage("a target can't be read").caused_by(error));
    request.services.iter().map(parse).collect()
}

async fn container_of(cluster: &Cluster, target: &Target, wanted: Option<&str>) -> Result<(PodSelection, String, Vec<Pod>)> {
    let selection = target::resolve(&cluster.client, &cluster.namespace, target).await?;
    let pods = selection.pods(&cluster.client, &cluster.namespace).await?;
    let container = pods::choose_container(&target.to_string(), &pods, wanted)?;
    Ok((selection, container, pods))
}

/// The process in the newest pod, where its node can be reached without the API.
pub(crate) async fn process_of(cluster: &Cluster, pods: &[Pod], container: &str) -> Option<RemoteProcess> {
    for pod in pods.iter().rev() {
        let Some(running) = pods::running(pod, container) else { continue };
        let Some(node) = cluster.nodes.iter().find(|node| Some(node.name()) == running.node.as_deref()) else { continue };
        let located = async { Agent::start(node).await?.locate(&running.id).await };
        match located.await {
            Ok(located) => return Some(process(&located)),
            Err(error) => tracing::info!(error = devloop_core::telemetry::error_chain(&error), "the process can't be looked at"),
        }
    }
    None
}

/// What an agent found, as text.
pub(crate) fn process(located: &Located) -> RemoteProcess {
    let text = |bytes: &ByteString| String::from_utf8_lossy(&bytes.0).into_owned();
    RemoteProcess {
        executable: text(&located.executable),
        argv: located.argv.iter().map(text).collect(),
        cwd: text(&located.cwd),
        main_argv: located.main_argv.iter().map(text).collect(),
    }
}

fn remote(target: Target, container: String, pods: &[Pod], process: Option<RemoteProcess>) -> Remote {
    let specs = pods.last().and_then(|pod| pod.spec.as_ref()).into_iter().flat_map(|spec| &spec.containers);
    let spec = specs.into_iter().find(|spec| spec.name == container).cloned().unwrap_or_default();
    Remote {
        target,
        container,
        image: spec.image.unwrap_or_default(),
        command: spec.command.unwrap_or_default(),
        args: spec.args.unwrap_or_default(),
        working_dir: spec.working_dir,
        process,
    }
}

/// The services of these names or targets, each once; all for none.
fn select<'a>(project: &'a ProjectFile, wanted: &[String]) -> Result<Vec<&'a Service>> {
    let name_of = |wanted: &String| {
        let target = wanted.contains('/').then(|| wanted.parse::<Target>()).transpose();
        let target = target.map_err(|error| CommandError::usage("a target can't be read").caused_by(error))?;
        let Some(target) = target else { return Ok(wanted.clone()) };
        let service = project.services.iter().find(|service| service.deploy.target == target);
        service.map(|service| service.name.clone()).ok_or_else(|| {
            let known: Vec<String> = project.services.iter().map(|service| service.deploy.target.to_string()).collect();
            CommandError::usage(format!("no service in {} is deployed as {target}", project.path.display()))
                .with_hint(format!("targets in it: {}", known.join(", ")))
        })
    };
    let names = wanted.iter().map(name_of).collect::<Result<Vec<String>>>()?;
    project.select(&names)
}

/// What a devloop.yaml says of a service.
fn reasons_of(file: &Path, service: &Service) -> Vec<Reason> {
    let why = file.file_name().map_or_else(String::new, |name| format!("{} says so", name.to_string_lossy()));
    let build = service.build.as_ref().map(|build| match build {
        Build::Cargo(cargo) => format!("build: cargo, binary {} of package {}", cargo.binary, cargo.package),
        Build::Go(go) => format!("build: go, package {}", go.package),
        Build::Command(command) => format!("build: {}", command.run.join(" ")),
        Build::Dockerfile(dockerfile) => format!("build: {}", dockerfile.file().display()),
        Build::Node(_) | Build::Python(_) => "build: none, the sources run as they are".to_owned(),
    });
    let binary = service.binary().map(|path| format!("binary: {path}"));
    let sync = service.synced();
    let sync = sync.iter().map(|rule| format!("sync: {} -> {}", rule.from.display(), rule.to));
    build.into_iter().chain(binary).chain(sync).map(|what| Reason { what, why: why.clone() }).collect()
}

#[cfg(test)]
#[path = "services_tests.rs"]
pub(crate) mod tests;
