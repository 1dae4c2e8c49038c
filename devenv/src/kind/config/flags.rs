//! What flags add to a configuration. A flag never replaces what a file says: it
//! agrees, adds, or is refused with the path of the other opinion.

use super::conflicts::{self, HostPort, items};
use super::{Config, sequence, text};
use crate::request::{KindOptions, Mount, PortMapping};
use devloop_core::error::{CommandError, Result};
use serde_yaml_ng::{Mapping, Value};

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// The cluster's name.
    pub(crate) name: &'a str,
    /// What its nodes are like.
    pub(crate) options: &'a KindOptions,
    /// The API's port on this machine, if it matters.
    pub(crate) api_port: Option<u16>,
}

/// Adds what is wanted.
///
/// # Errors
/// When the configuration says otherwise; it may be half changed then.
pub(crate) fn add_flags(config: &mut Config, wanted: &Wanted<'_>) -> Result<()> {
    refuse_other_name(config, wanted.name)?;
    conflicts::refuse_collisions(&config.label, &conflicts::host_ports(config))?;
    add_nodes(config, wanted.options)?;
    add_image(config, wanted.options)?;
    add_api_port(config, wanted.api_port)?;
    for mount in &wanted.options.mounts {
        add_mount(config, mount)?;
    }
    for port in &wanted.options.ports {
        add_port(config, port)?;
    }
    for (name, value) in &wanted.options.feature_gates {
        add_gate(config, name, *value)?;
    }
    Ok(())
}

/// kind lets its flag win over the file; here, the name is the environment's,
/// and a file for another cluster was hardly meant.
fn refuse_other_name(config: &Config, name: &str) -> Result<()> {
    match config.root.get("name").and_then(Value::as_str) {
        Some(other) if other != name => {
            Err(CommandError::usage(format!("{}: name is {other:?}, and the environment's is {name:?}", config.label)))
                .map_err(|error| error.with_hint(format!("add --name {other}, or take `name` out of the file")))
        }
        _ => Ok(()),
    }
}

fn add_nodes(config: &mut Config, options: &KindOptions) -> Result<()> {
    if options.control_planes == Some(0) {
        return Err(CommandError::usage("a cluster needs a control plane").with_hint("--control-planes is 1 or more"));
    }
    if config.nodes().is_empty() {
        let wanted = [("control-plane", options.control_planes.unwrap_or(1)), ("worker", options.workers.unwrap_or(0))];
        for (role, count) in wanted {
            for _ in 0..count {
                let node: Mapping = std::iter::once(("role".into(), role.into())).collect();
                config.nodes_mut().push(Value::Mapping(node));
            }
        }
        return Ok(());
    }
    let wanted = [("--control-planes", "control-plane", options.control_planes), ("--workers", "worker", options.workers)];
    for (flag, role, count) in wanted {
        let found = config.nodes().iter().filter(|node| role_of(node) == role).count();
        if let Some(count) = count.filter(|count| usize::from(*count) != found) {
            let message = format!("{}: nodes lists {found} of role {role}, {flag} says {count}", config.label);
            return Err(CommandError::usage(message).with_hint(format!("leave {flag} out, or change the list")));
        }
    }
    Ok(())
}

fn role_of(node: &Value) -> &str {
    text(node, "role").unwrap_or("control-plane")
}

fn add_image(config: &mut Config, options: &KindOptions) -> Result<()> {
    let Some(image) = &options.node_image else { return Ok(()) };
    let images = config.images();
    let other =
        images.iter().enumerate().find_map(|(index, found)| found.as_ref().filter(|found| *found != image).map(|found| (index, found)));
    if let Some((index, found)) = other {
        let message = format!("{}: nodes[{index}].image is {found:?}, --node-image or KIND_NODE_IMAGE says {image:?}", config.label);
        return Err(CommandError::usage(message));
    }
    config.set_default_image(image);
    Ok(())
}

fn add_api_port(config: &mut Config, port: Option<u16>) -> Result<()> {
    let Some(port) = port else { return Ok(()) };
    let label = config.label.clone();
    let taken = conflicts::host_ports(config);
    let Some(networking) = config.mapping_mut("networking") else { return Ok(()) };
    match networking.get("apiServerPort").and_then(Value::as_i64) {
        Some(found) if found == i64::from(port) => return Ok(()),
        Some(found) if found != 0 => {
            return Err(CommandError::usage(format!("{label}: networking.apiServerPort is {found}, --api-port says {port}")));
        }
        _ => {}
    }
    let address = networking.get("apiServerAddress").and_then(Value::as_str);
    let ours = HostPort::of_api("--api-port", address, port);
    refuse_taken(&label, &taken, &ours)?;
    networking.insert("apiServerPort".into(), port.into());
    Ok(())
}

/// On every node, as that is what `--mount` says.
fn add_mount(config: &mut Config, mount: &Mount) -> Result<()> {
    let (host, inside) = (mount.host.display().to_string(), mount.node.display().to_string());
    let label = config.label.clone();
    for (node_index, node) in config.nodes_mut().iter_mut().enumerate() {
        let same = items(node, "extraMounts").iter().enumerate().find(|(_, found)| text(found, "containerPath") == Some(&inside));
        if let Some((index, found)) = same {
            let read_only = found.get("readOnly").and_then(Value::as_bool).unwrap_or_default();
            if text(found, "hostPath") == Some(&host) && read_only == mount.read_only {
                continue;
            }
            let path = format!("nodes[{node_index}].extraMounts[{index}].containerPath");
            return Err(CommandError::usage(format!("{label}: {path} is {inside:?}, where --mount {host}:{inside} wants to be, too")));
        }
        let mut added: Mapping =
            [("hostPath", host.as_str()), ("containerPath", &inside)].into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        if mount.read_only {
            added.insert("readOnly".into(), true.into());
        }
        if let Value::Mapping(node) = node {
            sequence(node, "extraMounts").push(Value::Mapping(added));
        }
    }
    Ok(())
}

/// On the first control plane: a port of this machine leads to one node.
fn add_port(config: &mut Config, port: &PortMapping) -> Result<()> {
    let label = config.label.clone();
    let taken = conflicts::host_ports(config);
    let Some(node) = config.nodes_mut().iter_mut().find(|node| role_of(node) == "control-plane") else {
        return Err(CommandError::usage(format!("{label}: nodes has no control plane, which --port is for")));
    };
    if items(node, "extraPortMappings").iter().any(|found| is_same_port(found, port)) {
        return Ok(());
    }
    refuse_taken(&label, &taken, &HostPort::of_flag(port))?;
    let mut added = Mapping::new();
    added.insert("containerPort".into(), port.node.into());
    added.insert("hostPort".into(), port.host.into());
    added.insert("listenAddress".into(), port.address.to_string().into());
    added.insert("protocol".into(), port.protocol.into());
    if let Value::Mapping(node) = node {
        sequence(node, "extraPortMappings").push(Value::Mapping(added));
    }
    Ok(())
}

fn is_same_port(found: &Value, wanted: &PortMapping) -> bool {
    let number = |key: &str| found.get(key).and_then(Value::as_u64);
    number("containerPort") == Some(wanted.node.into())
        && number("hostPort") == Some(wanted.host.into())
        && text(found, "listenAddress").unwrap_or("0.0.0.0").parse() == Ok(wanted.address)
        && text(found, "protocol").unwrap_or("TCP").eq_ignore_ascii_case(wanted.protocol)
}

fn refuse_taken(label: &str, taken: &[HostPort], ours: &HostPort) -> Result<()> {
    match taken.iter().find(|taken| taken.collides(ours)) {
        Some(taken) => {
            let message = format!("{label}: {} takes the port of this machine that {} asks for", taken.path, ours.path);
            Err(CommandError::usage(message).with_hint("choose another host port for one of them"))
        }
        None => Ok(()),
    }
}

fn add_gate(config: &mut Config, name: &str, value: bool) -> Result<()> {
    let label = config.label.clone();
    let Some(gates) = config.mapping_mut("featureGates") else { return Ok(()) };
    match gates.get(name) {
        Some(Value::Bool(found)) if *found == value => Ok(()),
        Some(found) => {
            let found = serde_yaml_ng::to_string(found).unwrap_or_default();
            Err(CommandError::usage(format!("{label}: featureGates.{name} is {}, --feature-gate says {value}", found.trim())))
        }
        None => {
            gates.insert(name.into(), value.into());
            Ok(())
        }
    }
}
