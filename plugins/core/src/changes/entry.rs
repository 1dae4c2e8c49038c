//! What a session writes down.

use crate::workload;
use serde::{Deserialize, Serialize};

/// Which session it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// The kubeconfig context that it works in.
    #[serde(default)]
    pub context: String,
    /// The services that it reloads.
    #[serde(default)]
    pub services: Vec<String>,
    /// Its process, for people: another may have that number by now.
    #[serde(default)]
    pub pid: u32,
    /// RFC 3339.
    #[serde(default)]
    pub started: String,
}

/// Something that a session changed, or is about to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "camelCase")]
pub enum Entry {
    /// A workload's template.
    Workload(workload::Record),
    /// Files and processes of a container.
    Container(ContainerEntry),
}

/// A container that a session changed files or processes of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerEntry {
    /// The kubeconfig context.
    pub context: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The container's name.
    pub container: String,
    /// The container itself: after a restart of it there is nothing to undo.
    pub container_id: String,
    /// The node, where that could be reached without the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The way that the changes took, as in `--via`.
    #[serde(default)]
    pub via: String,
}

impl Entry {
    /// Whether both are about the same thing, so that the later one counts.
    pub(super) fn same_subject(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Workload(one), Self::Workload(other)) => one.object == other.object,
            (Self::Container(one), Self::Container(other)) => one.uid == other.uid && one.container_id == other.container_id,
            _ => false,
        }
    }
}
