//! What in a configuration contradicts itself or the flags. Every message names
//! the path of the value to change.

use super::Config;
use crate::request::PortMapping;
use devloop_core::error::{CommandError, Result};
use serde_yaml_ng::Value;
use std::net::IpAddr;

/// A port of this machine that a cluster takes, and where that is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    pub(super) path: String,
    address: Option<IpAddr>,
    port: u16,
    protocol: String,
}

impl HostPort {
    pub(super) fn of_flag(mapping: &PortMapping) -> Self {
        let PortMapping { address, host, node, protocol } = mapping;
        let path = format!("--port {address}:{host}:{node}/{}", protocol.to_ascii_lowercase());
        Self { path, address: Some(*address), port: *host, protocol: (*protocol).to_owned() }
    }

    pub(super) fn of_api(path: &str, address: Option<&str>, port: u16) -> Self {
        let address = address.unwrap_or("127.0.0.1").parse().ok();
        Self { path: path.to_owned(), address, port, protocol: "TCP".to_owned() }
    }

    /// Whether the two can't be listened at together. An address that can't be
    /// read counts as all addresses.
    pub(super) fn collides(&self, other: &Self) -> bool {
        let everywhere = |address: Option<IpAddr>| address.is_none_or(|address| address.is_unspecified());
        let same_address = self.address == other.address || everywhere(self.address) || everywhere(other.address);
        self.port == other.port && self.protocol == other.protocol && same_address
    }
}

/// Every port of this machine that the configuration itself takes.
pub(super) fn host_ports(config: &Config) -> Vec<HostPort> {
    let mut ports = Vec::new();
    for (node_index, node) in config.nodes().iter().enumerate() {
        for (index, mapping) in items(node, "extraPortMappings").iter().enumerate() {
            // 0 and -1 let kind or the engine choose.
            let Some(port) =
                mapping.get("hostPort").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
            else {
                continue;
            };
            let address = super::text(mapping, "listenAddress").unwrap_or("0.0.0.0");
            ports.push(HostPort {
                path: format!("nodes[{node_index}].extraPortMappings[{index}].hostPort"),
                address: address.parse().ok(),
                port,
                protocol: super::text(mapping, "protocol").unwrap_or("TCP").to_ascii_uppercase(),
            });
        }
    }
    let networking = config.root.get("networking");
    let api = networking.and_then(|networking| networking.get("apiServerPort")).and_then(Value::as_u64);
    if let Some(port) = api.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0) {
        let address = networking.and_then(|networking| super::text(networking, "apiServerAddress"));
        ports.push(HostPort::of_api("networking.apiServerPort", address, port));
    }
    ports
}

/// Refuses two uses of one port of this machine.
pub(super) fn refuse_collisions(label: &str, ports: &[HostPort]) -> Result<()> {
    for (index, port) in ports.iter().enumerate() {
        if let Some(earlier) = ports[..index].iter().find(|earlier| earlier.collides(port)) {
            let message = format!("{label}: {} takes port {} of this machine, which {} takes, too", port.path, port.port, earlier.path);
            return Err(CommandError::usage(message).with_hint("choose another host port for one of them"));
        }
    }
    Ok(())
}

/// Refuses roles that there are not, and values of a kind that can't be added to. What else kind doesn't like,
/// it says itself.
pub(super) fn refuse_shapes(config: &Config) -> Result<()> {
    let refuse = |path: &str, expected: &str| Err(CommandError::usage(format!("{}: {path} is not {expected}", config.label)));
    let is_list = |value: Option<&Value>| value.is_none_or(|value| value.is_null() || value.is_sequence());
    let is_mapping = |value: Option<&Value>| value.is_none_or(|value| value.is_null() || value.is_mapping());
    for key in ["nodes", "kubeadmConfigPatches", "containerdConfigPatches", "containerdConfigPatchesJSON6902"] {
        if !is_list(config.root.get(key)) {
            return refuse(key, "a list");
        }
    }
    for key in ["networking", "featureGates"] {
        if !is_mapping(config.root.get(key)) {
            return refuse(key, "a mapping");
        }
    }
    for (index, node) in config.nodes().iter().enumerate() {
        if !node.is_mapping() {
            return refuse(&format!("nodes[{index}]"), "a mapping");
        }
        let role = node.get("role").map_or(Some("control-plane"), Value::as_str);
        if !matches!(role, Some("control-plane" | "worker")) {
            return refuse(&format!("nodes[{index}].role"), "control-plane or worker");
        }
        for key in ["extraMounts", "extraPortMappings"] {
            if !is_list(node.get(key)) {
                return refuse(&format!("nodes[{index}].{key}"), "a list");
            }
        }
    }
    Ok(())
}

/// The list under `key`, or none.
pub(super) fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_sequence).map_or(&[], Vec::as_slice)
}
