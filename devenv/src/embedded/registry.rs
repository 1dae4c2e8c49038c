//! The node's image registry: Debian's `docker-registry` program as one more
//! component, reachable from the node's containerd and, by the supervisor, at a
//! port of the host's loopback.

use super::preflight::program_is_there;
use crate::registry::convention::{self, INNER_PORT};
use crate::registry::port;
use crate::request::RegistryChoice;
use devloop_core::Context;
use devloop_core::error::{CommandError, ErrorHint, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use std::net::TcpListener;

/// The component, its program and its log.
pub(crate) const COMPONENT: &str = "registry";
pub(crate) const PROGRAM: &str = "docker-registry";
pub(crate) const CONFIG: &str = "/etc/docker/registry/config.yml";
/// What it keeps, on the node.
pub(crate) const DATA: &str = "/var/lib/registry";

/// Listens for the registry on the host, if there is to be one and there can be
/// one. `before` is the port that it had the last time.
///
/// # Errors
/// When the user named a port and it can't be had.
pub(crate) fn listen(context: &Context, choice: RegistryChoice, before: Option<u16>) -> Result<Option<TcpListener>> {
    let RegistryChoice::Local { port: named } = choice else { return Ok(None) };
    if !program_is_there(PROGRAM) {
        let hint = format!("install it with `apt-get install --no-install-recommends {PROGRAM}`");
        if named.is_some() {
            return Err(CommandError::new(format!("{PROGRAM} is missing; the image registry is run by it"))).hint(hint);
        }
        context.ui.say(format!("No image registry in this environment: {PROGRAM} is missing; {hint}"));
        return Ok(None);
    }
    port::listen(named, before).map(Some)
}

/// What differs between a running environment's registry and the one asked for.
///
/// # Errors
/// When something does.
pub(crate) fn check_running(name: &str, choice: RegistryChoice, running: Option<u16>) -> Result<()> {
    let (state, flag) = match (choice, running) {
        (RegistryChoice::None, Some(port)) => (format!("with an image registry on port {port}"), "--no-registry"),
        (RegistryChoice::Local { port: Some(named) }, Some(port)) if named != port => {
            (format!("with its image registry on port {port}"), "--registry-port")
        }
        (RegistryChoice::Local { port: Some(_) }, None) => ("without an image registry".to_owned(), "--registry-port"),
        _ => return Ok(()),
    };
    Err(CommandError::new(format!("environment {name:?} is up {state}"))).hint(format!("take it down first, or leave {flag} out"))
}

/// The command line.
pub(crate) fn argv() -> Vec<String> {
    [PROGRAM, "serve", CONFIG].map(str::to_owned).into()
}

/// Its configuration and the nodes' names for it, by path on the node.
pub(crate) fn files(port: u16) -> Vec<(String, String)> {
    let mut files = convention::hosts_files(port, &format!("127.0.0.1:{INNER_PORT}"));
    files.push((CONFIG.to_owned(), configuration()));
    files
}

fn configuration() -> String {
    // Only the node's own loopback: pods and other machines don't reach it.
    format!(
        "\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {DATA}}}
  delete: {{enabled: true}}
  cache: {{blobdescriptor: inmemory}}
# Signs the state of uploads, which are then survived by a restart; it keeps no
# secret, for whoever reaches the registry may write to it anyway.
http: {{addr: '127.0.0.1:{INNER_PORT}', secret: devloop}}
"
    )
}

/// Marks the ConfigMap as ours; another one is somebody's own registry.
const MANAGER: &str = "devloop-bootstrap";

/// Says in the cluster which registry it has, or that it has none any more.
/// What somebody else said is left as it is.
pub(crate) async fn announce(client: &Client, port: Option<u16>) -> kube::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), devloop_core::registry::HOSTING_NAMESPACE);
    let found = maps.get_opt(devloop_core::registry::HOSTING_NAME).await?;
    if found.as_ref().is_some_and(|map| !is_ours(map)) {
        return Ok(());
    }
    match (port, found) {
        (Some(port), _) => devloop_core::registry::publish(client, MANAGER, &convention::hosting(port, None)).await,
        (None, Some(_)) => maps.delete(devloop_core::registry::HOSTING_NAME, &kube::api::DeleteParams::default()).await.map(|_| ()),
        (None, None) => Ok(()),
    }
}

fn is_ours(map: &ConfigMap) -> bool {
    map.metadata.managed_fields.iter().flatten().all(|fields| fields.manager.as_deref() == Some(MANAGER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_yaml_that_listens_on_loopback_only() {
        let files = files(5001);
        let (_, text) = files.iter().find(|(path, _)| path == CONFIG).unwrap();
        let parsed: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).unwrap();
        assert_eq!(parsed["http"]["addr"], "127.0.0.1:5000");
        assert_eq!(parsed["storage"]["filesystem"]["rootdirectory"], DATA);
        assert_eq!(files.len(), 3);
    }

    #[test]
    fn a_running_environment_is_not_changed() {
        let local = |port| RegistryChoice::Local { port };
        for (choice, running) in
            [(local(None), None), (local(None), Some(5001)), (local(Some(5001)), Some(5001)), (RegistryChoice::None, None)]
        {
            assert!(check_running("dev", choice, running).is_ok());
        }
        for (choice, running) in [(local(Some(5001)), None), (local(Some(5002)), Some(5001)), (RegistryChoice::None, Some(5001))] {
            assert!(check_running("dev", choice, running).is_err());
        }
    }
}
