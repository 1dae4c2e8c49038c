//! What an engine says of itself and of what it holds.

use super::{DockerError, Engine};
use crate::node::kind::CLUSTER_LABEL;
use bollard::models::SystemInfoCgroupVersionEnum;
use bollard::query_parameters::{ListContainersOptions, ListImagesOptions};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// An engine's settings, as far as running clusters depends on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The folder of its data, on its own machine.
    pub root: String,
    /// Whether images are kept by containerd instead of by Docker itself.
    pub containerd_image_store: bool,
    /// 1 or 2; `None` when it doesn't say.
    pub cgroup_version: Option<u8>,
    /// Memory of its machine, in bytes.
    pub memory: Option<u64>,
    /// The runtime of containers that name none.
    pub default_runtime: String,
    /// Whether it runs without root.
    pub rootless: bool,
    /// Its clock, RFC 3339.
    pub time: Option<String>,
    /// What it runs on, such as `Docker Desktop` or a distribution.
    pub operating_system: String,
    /// Proxies that its own pulls go through.
    pub proxies: Vec<String>,
}

impl Engine {
    /// Asks the engine about itself.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub async fn survey(&self) -> Result<Survey, DockerError> {
        let info = self.client().info().await.map_err(DockerError::request("ask the Docker engine about itself"))?;
        let status = info.driver_status.unwrap_or_default();
        Ok(Survey {
            root: info.docker_root_dir.unwrap_or_default(),
            containerd_image_store: status.iter().flatten().any(|word| word == "io.containerd.snapshotter.v1"),
            cgroup_version: match info.cgroup_version {
                Some(SystemInfoCgroupVersionEnum::_1) => Some(1),
                Some(SystemInfoCgroupVersionEnum::_2) => Some(2),
                _ => None,
            },
            memory: info.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0),
            default_runtime: info.default_runtime.unwrap_or_default(),
            rootless: info.security_options.unwrap_or_default().iter().any(|option| option.contains("rootless")),
            time: info.system_time,
            operating_system: info.operating_system.unwrap_or_default(),
            proxies: [info.http_proxy, info.https_proxy].into_iter().flatten().filter(|proxy| !proxy.is_empty()).collect(),
        })
    }

    /// The kind node images that it has, sorted by name.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub async fn kind_node_images(&self) -> Result<Vec<String>, DockerError> {
        let images =
            self.client().list_images(None::<ListImagesOptions>).await.map_err(DockerError::request("list the engine's images"))?;
        // kind's own default names a digest, which shows without a tag.
        let names = images.into_iter().flat_map(|image| image.repo_tags.into_iter().chain(image.repo_digests));
        let names: BTreeSet<String> = names.filter(|name| is_kind_node_image(name)).collect();
        Ok(names.into_iter().collect())
    }

    /// Whether the registry of this image answers the engine that it is there.
    /// It may take as long as the network does: set a limit.
    ///
    /// # Errors
    /// When the registry can't be reached, or doesn't have it.
    pub async fn can_pull(&self, image: &str) -> Result<(), DockerError> {
        let asked = self.client().inspect_registry_image(image, None).await;
        asked.map(|_| ()).map_err(DockerError::request(format!("find {image} in its registry")))
    }

    /// The kind clusters that have a container here, running or not; and
    /// whether one of each runs.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub async fn kind_clusters(&self) -> Result<BTreeMap<String, bool>, DockerError> {
        let filters = HashMap::from([("label".to_owned(), vec![CLUSTER_LABEL.to_owned()])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
        let containers = self.client().list_containers(Some(options)).await.map_err(DockerError::request("list the containers of kind"))?;
        let mut clusters = BTreeMap::new();
        for container in containers {
            if let Some(cluster) = container.labels.as_ref().and_then(|labels| labels.get(CLUSTER_LABEL)) {
                let runs = container.state.is_some_and(|state| state.to_string() == "running");
                *clusters.entry(cluster.clone()).or_default() |= runs;
            }
        }
        Ok(clusters)
    }
}

/// Whether an image is a node of kind, by its name: kind's own, or one that
/// `scripts/kind-node-image` made.
pub fn is_kind_node_image(name: &str) -> bool {
    ["kindest/node:", "kindest/node@", "docker.io/kindest/node", "devloop.local/kind-node:"].iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_images_are_told_by_name() {
        for name in ["kindest/node:v1.34.0", "kindest/node@sha256:00", "devloop.local/kind-node:v1.34.4-0a"] {
            assert!(is_kind_node_image(name), "{name}");
        }
        for name in ["kindest/base:1", "someone/kindest/node:1", "<none>:<none>", ""] {
            assert!(!is_kind_node_image(name), "{name}");
        }
    }
}
