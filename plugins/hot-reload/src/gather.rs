//! What there is: the project's services, the cluster's pods, cargo's graph.

use crate::plan::Layout;
use crate::probe::Probe;
use crate::reload::Rules;
use crate::request::{ProbeRequest, Request};
use crate::services::{self, Found};
use crate::sources;
use devloop_core::args::Via;
use devloop_core::cluster::{self, Cluster};
use devloop_core::project::{Build, RestartBy, RestartSpec, Service};
use devloop_core::target::PodSelection;
use devloop_core::{CommandError, Context, Result};
use std::path::PathBuf;

/// Everything that a session begins with.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) cluster: Cluster,
    pub(crate) found: Vec<Found>,
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

impl Facts {
    /// Whether a supervisor starts the app again.
    pub(crate) fn is_supervised(&self) -> bool {
        self.restart.by == RestartBy::Supervisor
    }
}

pub(crate) async fn gather(context: &Context, request: &Request) -> Result<Gathered> {
    let cluster = cluster::connect(&request.cluster).await?;
    if request.via == Via::Node && cluster.nodes.is_empty() {
        return Err(no_node(&cluster.context));
    }
    let step = context.ui.step("finding the pods and sources");
    let found = services::find(request, &cluster).await?;
    step.clear();
    Ok(Gathered { cluster, found })
}

/// What is done for a service, and with which files.
///
/// # Errors
/// When its sources can't be read, or what was asked for doesn't fit it.
pub(crate) async fn prepare(request: &Request, found: &Found) -> Result<(Facts, Layout)> {
    let Found { root, service, selection, container, .. } = found;
    let probe = request.probe.as_ref().map(|probe| choose_probe(probe, service)).transpose()?;
    let build = service.build.clone().filter(|build| request.build && build.makes_something());
    let sources = match &build {
        Some(build) => Some(sources::of_build(root, build).await?),
        None => None,
    };
    let layout = Layout::new(root, &service.synced(), sources)?;
    let mut restart = service.restart.clone();
    if request.supervise {
        restart.by = RestartBy::Supervisor;
    }
    let facts = Facts {
        name: service.name.clone(),
        root: root.clone(),
        build,
        binary: service.binary().map(str::to_owned),
        rules: Rules::new(root, &service.reload)?,
        restart,
        container: container.clone(),
        selection: selection.clone(),
        probe,
    };
    Ok((facts, layout))
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

    #[test]
    fn a_probe_needs_a_port_and_a_cluster_a_node() {
        let (_folder, project) = crate::services::tests::project();
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
