//! An image that another one is built upon: its layers, untouched, and what its
//! configuration hands down.

use super::ImageError;
use super::blob::Layer;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A base, for one platform.
#[derive(Clone, Debug)]
pub struct BaseImage {
    /// As the user names it.
    pub name: String,
    /// As Go names it.
    pub architecture: String,
    /// From the lowest to the uppermost.
    pub layers: Vec<Layer>,
    pub(super) config: Inherited,
}

/// The parts of an image's configuration that an image upon it takes over
/// (<https://github.com/opencontainers/image-spec/blob/main/config.md>).
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Inherited {
    architecture: String,
    #[serde(default)]
    os: String,
    /// Such as `v8` of arm64.
    #[serde(default)]
    pub(super) variant: Option<String>,
    #[serde(default)]
    config: Option<Process>,
    #[serde(default)]
    pub(super) history: Vec<Value>,
    rootfs: RootFs,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// What a process in an image gets unless the pod says otherwise. `null` and
/// absent are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Process {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(skip_serializing_if = "is_empty")]
    pub(super) exposed_ports: Option<BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_none")]
    pub(super) entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_none")]
    pub(super) cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_empty")]
    pub(super) volumes: Option<BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) working_dir: Option<String>,
    #[serde(skip_serializing_if = "is_empty_map")]
    pub(super) labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stop_signal: Option<String>,
    /// Docker's own, such as `Healthcheck` and `Shell`.
    #[serde(flatten)]
    pub(super) others: BTreeMap<String, Value>,
}

fn is_none(list: &Option<Vec<String>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

fn is_empty(map: &Option<BTreeMap<String, Value>>) -> bool {
    map.as_ref().is_none_or(BTreeMap::is_empty)
}

fn is_empty_map(map: &Option<BTreeMap<String, String>>) -> bool {
    map.as_ref().is_none_or(BTreeMap::is_empty)
}

impl BaseImage {
    /// A base of its configuration and its layers.
    ///
    /// # Errors
    /// [`ImageError::Base`] when the configuration is none, doesn't fit the layers
    /// or is of another system.
    pub(crate) fn new(name: &str, config: &[u8], layers: Vec<Layer>) -> Result<Self, ImageError> {
        let refused = |reason: String| ImageError::Base { name: name.to_owned(), reason };
        let config: Inherited = serde_json::from_slice(config).map_err(|error| refused(format!("its configuration is none: {error}")))?;
        if !matches!(config.os.as_str(), "" | "linux") {
            return Err(refused(format!("it is for {}, pods run Linux", config.os)));
        }
        if !config.rootfs.diff_ids.iter().eq(layers.iter().map(|layer| &layer.diff_id)) {
            return Err(refused("its configuration names other layers than its manifest".to_owned()));
        }
        Ok(Self { name: name.to_owned(), architecture: config.architecture.clone(), layers, config })
    }

    /// What is handed down. `ONBUILD` is not: it would have been done by the
    /// build that this one is instead of.
    pub(super) fn process(&self) -> Process {
        let mut process = self.config.config.clone().unwrap_or_default();
        // Of the container that Docker once made the image of.
        process.others.retain(|name, value| !value.is_null() && ["Healthcheck", "Shell"].contains(&name.as_str()));
        process.user = process.user.filter(|user| !user.is_empty());
        process.working_dir = process.working_dir.filter(|folder| !folder.is_empty());
        process.stop_signal = process.stop_signal.filter(|signal| !signal.is_empty());
        process
    }
}

/// The layers that a configuration names, by the digests of their tars.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn diff_ids(config: &[u8]) -> Result<Vec<String>, String> {
    let config: Inherited = serde_json::from_slice(config).map_err(|error| error.to_string())?;
    Ok(config.rootfs.diff_ids)
}

/// The architecture that a configuration names.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn architecture(config: &[u8]) -> Result<String, String> {
    let config: Inherited = serde_json::from_slice(config).map_err(|error| error.to_string())?;
    Ok(config.architecture)
}
