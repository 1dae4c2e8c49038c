//! What there is: the project's services, the cluster's pods, cargo's graph.

use crate::plan::Layout;
use crate::pods;
use crate::probe::Probe;
use crate::reload::Rules;
use crate::request::{ProbeRequest, Request};
use crate::sources;
use devloop_core::args::Via;
use devloop_core::cluster::{self, Cluster};
use devloop_core::project::{self, Build, ProjectFile, RestartSpec, Service};
use devloop_core::target::{self, PodSelection, Target};
use devloop_core::{CommandError, Context, Result};
use std::path::PathBuf;

/// Everything that a session begins with.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) cluster: Cluster,
    pub(crate) services: Vec<(Facts, Layout)>,
}

/// What doesn't change about a service during a session.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) root: PathBuf,
    pub(crate) build: Option<Build>,
    /// Where the binary is in the container, if one is built.
    pub(crate) binary: Option<String>,
    pub(crate) rules: Rules,
    pub(crate) restart: RestartSpec,
    pub(crate) container: String,
    pub(crate) selection: PodSelection,
    pub(crate) probe: Option<Probe>,
}

pub(crate) async fn gather(context: &Context, request: &Request) -> Result<Gathered> {
    let project = project::load(request.file.as_deref(), &request.start)?;
    let selected = select(&project, &request.services)?;
    let cluster = cluster::connect(&request.cluster).await?;
    if request.via == Via::Node && cluster.nodes.is_empty() {
        return Err(no_node(&cluster.context));
    }
    let step = context.ui.step("finding the pods and sources");
    let mut services = Vec::new();
    for service in selected {
        services.push(gather_service(request, &project, service, &cluster).await?);
    }
    step.clear();
    Ok(Gathered { cluster, services })
}

async fn gather_service(request: &Request, project: &ProjectFile, service: &Service, cluster: &Cluster) -> Result<(Facts, Layout)> {
    let probe = request.probe.as_ref().map(|probe| choose_probe(probe, service)).transpose()?;
    let target = &service.deploy.target;
    let selection = target::resolve(&cluster.client, &cluster.namespace, target).await?;
    let current = selection.pods(&cluster.client, &cluster.namespace).await?;
    let container = pods::choose_container(&target.to_string(), &current, service.deploy.container.as_deref())?;
    let build = service.build.clone().filter(|_| request.build);
    let sources = match &build {
        Some(build) => Some(sources::of_build(&project.root, build).await?),
        None => None,
    };
    let layout = Layout::new(&project.root, &service.synced(), sources)?;
    let facts = Facts {
        name: service.name.clone(),
        root: project.root.clone(),
        build,
        binary: service.binary().map(str::to_owned),
        rules: Rules::new(&project.root, &service.reload)?,
        restart: service.restart.clone(),
        container,
        selection,
        probe,
    };
    Ok((facts, layout))
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

fn choose_probe(request: &ProbeRequest, service: &Service) -> Result<Probe> {
    let port = request.port.or_else(|| service.image.as_ref().and_then(|image| image.ports.first().copied()));
    let port = port.ok_or_else(|| {
        CommandError::usage(format!("service {:?} lists no image.ports to probe", service.name)).with_hint("name one with --probe-port")
    })?;
    Ok(Probe { path: request.path.clone(), port })
}

fn no_node(context: &str) -> CommandError {
    CommandError::new(format!("no node of context {context:?} can be reached without the API"))
        .with_hint("let the way be chosen (--via auto), or take the API (--via api)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use devloop_core::ui::render_error;

    fn project() -> (tempfile::TempDir, ProjectFile) {
        let folder = tempfile::tempdir().unwrap();
        let service = |name: &str| {
            format!(
                "  - name: {name}\n    build: {{cargo: {{package: {name}, binary: {name}}}}}\n    image: {{name: {name}, base: scratch, binary: /app/{name}}}\n    deploy: {{manifests: [k8s], target: deploy/{name}}}\n"
            )
        };
        std::fs::create_dir(folder.path().join("k8s")).unwrap();
        let text = format!("apiVersion: devloop/v1\nservices:\n{}{}", service("shop"), service("api"));
        std::fs::write(folder.path().join("devloop.yaml"), text).unwrap();
        let project = project::load(None, folder.path()).unwrap();
        (folder, project)
    }

    #[test]
    fn services_are_chosen_by_name_or_target() {
        let (_folder, project) = project();
        let names = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
            select(&project, &wanted).map(|services| services.iter().map(|service| service.name.clone()).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), ["shop", "api"]);
        assert_eq!(names(&["deployment/api", "api"]).unwrap(), ["api"]);
        assert_eq!(names(&["nothing"]).unwrap_err().status().code(), 2);
        let errors = [names(&["deploy/nothing"]).unwrap_err(), names(&["cron/x"]).unwrap_err()].map(|error| render_error(&error));
        let text = errors.join("\n\n").replace(&project.path.display().to_string(), "devloop.yaml");
        insta::assert_snapshot!(text, @r#"
        Error: no service in devloop.yaml is deployed as deployment/nothing
        Hint: targets in it: deployment/shop, deployment/api

        Error: a target can't be read
        Caused by: unknown kind "cron" in target; known: pod, deploy, sts, ds, rs, job, svc
        "#);
    }

    #[test]
    fn a_probe_needs_a_port_and_a_cluster_a_node() {
        let (_folder, project) = project();
        let request = ProbeRequest { path: "/".to_owned(), port: None };
        let texts = [choose_probe(&request, &project.services[0]).unwrap_err(), no_node("kind-kind")].map(|error| render_error(&error));
        insta::assert_snapshot!(texts.join("\n\n"), @r#"
        Error: service "shop" lists no image.ports to probe
        Hint: name one with --probe-port

        Error: no node of context "kind-kind" can be reached without the API
        Hint: let the way be chosen (--via auto), or take the API (--via api)
        "#);
    }
}
