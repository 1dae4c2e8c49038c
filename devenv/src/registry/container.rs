//! The registry's container: finding one, making ours.

use super::convention::{CONTAINER, INNER_PORT};
use super::port;
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, HostConfig, Mount, MountType, PortBinding, RestartPolicy, RestartPolicyNameEnum,
    VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, ListContainersOptions, RemoveContainerOptions, StartContainerOptions,
};
use devloop_core::Context;
use devloop_core::docker::{DockerError, Endpoint, Engine};
use devloop_core::error::{CommandError, ErrorHint, Result};
use std::collections::HashMap;
use std::path::Path;

/// On what is ours, with the value `registry`.
const LABEL: &str = "dev.devloop.role";
const ROLE: &str = "registry";
/// The folder of whoever made it: a registry that was made with another one is
/// somebody else's, for its journals can't be seen.
const STATE_LABEL: &str = "dev.devloop.state";
/// Where our registry keeps its images.
pub(crate) const VOLUME: &str = "devloop-registry";
/// Where a registry's images are in its container, whichever image it is of.
pub(super) const DATA: &str = "/var/lib/registry";
/// The name that ctlptl gives its registries unless told otherwise, and the
/// label that it gives them always.
const CTLPTL: &str = "ctlptl-registry";
const CTLPTL_LABEL: (&str, &str) = ("dev.tilt.ctlptl.role", "registry");
/// So many ports are tried when others take them between our look and the
/// engine's.
const MAX_TRIES: u16 = 5;

/// A registry's container that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: String,
    /// On this machine; `None` when it publishes none, or any free one.
    pub(super) port: Option<u16>,
    pub(super) running: bool,
    pub(super) ours: bool,
}

/// The registries that are there, the one of kind's convention first.
pub(super) async fn find(engine: &Engine, state: &Path) -> Result<Vec<Found>, DockerError> {
    let options = ListContainersOptions { all: true, ..ListContainersOptions::default() };
    let listed = engine.client().list_containers(Some(options)).await.map_err(DockerError::request("list containers"))?;
    let mut names: Vec<String> = listed
        .iter()
        .filter_map(|container| {
            let name = container.names.as_ref()?.first()?.trim_start_matches('/').to_owned();
            let label = container.labels.as_ref().and_then(|labels| labels.get(CTLPTL_LABEL.0));
            let known = name == CONTAINER || name == CTLPTL || label.is_some_and(|value| value == CTLPTL_LABEL.1);
            known.then_some(name)
        })
        .collect();
    names.sort_by_key(|name| (name != CONTAINER, name.clone()));
    let mut found = Vec::new();
    for name in names {
        found.extend(inspect(engine, &name).await?.map(|inspected| describe(&name, &inspected, state)));
    }
    Ok(found)
}

/// `None` when there is no such container.
pub(super) async fn inspect(engine: &Engine, name: &str) -> Result<Option<ContainerInspectResponse>, DockerError> {
    let inspected = engine.client().inspect_container(name, None::<InspectContainerOptions>).await;
    match inspected.map_err(DockerError::request(format!("inspect container {name}"))) {
        Err(error) if error.status() == Some(404) => Ok(None),
        other => other.map(Some),
    }
}

fn describe(name: &str, inspected: &ContainerInspectResponse, state: &Path) -> Found {
    Found {
        name: name.to_owned(),
        port: published_port(inspected),
        running: inspected.state.as_ref().and_then(|state| state.running).unwrap_or_default(),
        ours: is_ours(inspected, state),
    }
}

/// Whether it was made here, for this purpose.
pub(super) fn is_ours(inspected: &ContainerInspectResponse, state: &Path) -> bool {
    let labels = inspected.config.as_ref().and_then(|config| config.labels.as_ref());
    labels.is_some_and(|labels| has_our_labels(labels, state))
}

/// The same of a container or volume's labels.
pub(super) fn has_our_labels(found: &HashMap<String, String>, state: &Path) -> bool {
    labels(state).iter().all(|(name, value)| found.get(name) == Some(value))
}

pub(super) fn published_port(inspected: &ContainerInspectResponse) -> Option<u16> {
    let inner = format!("{INNER_PORT}/tcp");
    let running = inspected.network_settings.as_ref().and_then(|network| network.ports.as_ref());
    let configured = inspected.host_config.as_ref().and_then(|config| config.port_bindings.as_ref());
    let port = |map: &HashMap<String, Option<Vec<PortBinding>>>| {
        map.get(&inner)?.as_ref()?.iter().find_map(|binding| binding.host_port.as_ref()?.parse::<u16>().ok())
    };
    running.and_then(port).or_else(|| configured.and_then(port)).filter(|port| *port > 0)
}

/// Starts it if it is stopped; answers its port.
pub(super) async fn ensure_running(context: &Context, engine: &Engine, found: &Found) -> Result<u16> {
    if !found.running {
        if !found.ours {
            context.ui.say(format!("Starting registry container {}, which was stopped", found.name));
        }
        start(engine, &found.name).await?;
    }
    let inspected = inspect(engine, &found.name).await?;
    inspected
        .as_ref()
        .and_then(published_port)
        .ok_or_else(|| CommandError::new(format!("registry container {} publishes no port", found.name)))
        .hint(format!("remove it with `docker rm --force {}`, and one is made that does", found.name))
}

async fn start(engine: &Engine, name: &str) -> Result<(), DockerError> {
    let started = engine.client().start_container(name, None::<StartContainerOptions>).await;
    started.map_err(DockerError::request(format!("start container {name}")))
}

/// Makes ours and starts it; answers its port. Without a named port, one that
/// somebody takes meanwhile is replaced by the next.
pub(super) async fn make(engine: &Engine, image: &str, named: Option<u16>, state: &Path) -> Result<u16> {
    let volume = VolumeCreateRequest { name: Some(VOLUME.to_owned()), labels: Some(labels(state)), ..VolumeCreateRequest::default() };
    engine.client().create_volume(volume).await.map_err(DockerError::request(format!("create volume {VOLUME}")))?;
    let mut tries = 0;
    loop {
        let port = free_port(engine, named, tries)?;
        let options = CreateContainerOptions { name: Some(CONTAINER.to_owned()), ..CreateContainerOptions::default() };
        let created = engine.client().create_container(Some(options), body(image, port, state)).await;
        created.map_err(DockerError::request(format!("create container {CONTAINER}")))?;
        let error = match start(engine, CONTAINER).await {
            Ok(()) => return Ok(port),
            Err(error) => error,
        };
        remove(engine, CONTAINER).await?;
        tries += 1;
        if named.is_some() || tries == MAX_TRIES || !is_port_taken(&error) {
            return Err(error.into());
        }
    }
}

/// Whether the engine's loopback is likely ours.
pub(super) fn is_local(engine: &Engine) -> bool {
    matches!(engine.endpoint(), Endpoint::Unix(_))
}

/// A port that is free here; an engine elsewhere has ports of its own.
fn free_port(engine: &Engine, named: Option<u16>, tries: u16) -> Result<u16> {
    if !is_local(engine) {
        return Ok(named.unwrap_or(super::convention::FIRST_PORT + tries));
    }
    let address = port::listen(named, None)?.local_addr();
    Ok(address.map_or(super::convention::FIRST_PORT, |address| address.port()))
}

fn is_port_taken(error: &DockerError) -> bool {
    let DockerError::Request { source, .. } = error else { return false };
    let said = source.to_string();
    said.contains("port is already allocated") || said.contains("address already in use")
}

fn labels(state: &Path) -> HashMap<String, String> {
    HashMap::from([(LABEL.to_owned(), ROLE.to_owned()), (STATE_LABEL.to_owned(), state.display().to_string())])
}

/// As in kind's script, with images that outlive the container.
fn body(image: &str, port: u16, state: &Path) -> ContainerCreateBody {
    let binding = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(port.to_string()) };
    let mount = Mount { target: Some(DATA.to_owned()), source: Some(VOLUME.to_owned()), typ: Some(MountType::VOLUME), ..Mount::default() };
    ContainerCreateBody {
        image: Some(image.to_owned()),
        labels: Some(labels(state)),
        exposed_ports: Some(vec![format!("{INNER_PORT}/tcp")]),
        env: Some(vec!["REGISTRY_STORAGE_DELETE_ENABLED=true".to_owned(), "OTEL_TRACES_EXPORTER=none".to_owned()]),
        host_config: Some(HostConfig {
            port_bindings: Some(HashMap::from([(format!("{INNER_PORT}/tcp"), Some(vec![binding]))])),
            restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::ALWAYS), maximum_retry_count: None }),
            mounts: Some(vec![mount]),
            network_mode: Some("bridge".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// Removes a container, running or not; absent is fine.
pub(super) async fn remove(engine: &Engine, name: &str) -> Result<(), DockerError> {
    let options = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
    let removed = engine.client().remove_container(name, Some(options)).await;
    match removed.map_err(DockerError::request(format!("remove container {name}"))) {
        Err(error) if error.status() == Some(404) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_those_that_are_published_or_will_be() {
        let bindings = |port: &str| {
            let binding = PortBinding { host_ip: None, host_port: Some(port.to_owned()) };
            Some(HashMap::from([("5000/tcp".to_owned(), Some(vec![binding]))]))
        };
        let stopped = |port: &str| ContainerInspectResponse {
            host_config: Some(HostConfig { port_bindings: bindings(port), ..HostConfig::default() }),
            ..ContainerInspectResponse::default()
        };
        assert_eq!(published_port(&stopped("5001")), Some(5001));
        assert_eq!(published_port(&stopped("")), None);
        assert_eq!(published_port(&ContainerInspectResponse::default()), None);
        assert!(!is_ours(&stopped("5001"), Path::new("/state")));
    }

    #[test]
    fn ours_is_on_loopback_only_and_labelled() {
        let body = body("registry:3", 5001, Path::new("/state"));
        let bindings = body.host_config.unwrap().port_bindings.unwrap();
        assert_eq!(bindings["5000/tcp"].as_ref().unwrap()[0].host_ip.as_deref(), Some("127.0.0.1"));
        assert_eq!(body.labels.unwrap()[LABEL], "registry");
    }
}
