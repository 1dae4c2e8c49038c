//! How a cluster says which registry its nodes pull from: KEP-1755
//! (<https://github.com/kubernetes/enhancements/tree/master/keps/sig-cluster-lifecycle/generic/1755-communicating-a-local-registry>).

use crate::cluster::explain;
use crate::error::{CommandError, ErrorContext, ErrorHint, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where the ConfigMap is: everybody may read it there.
pub const HOSTING_NAMESPACE: &str = "kube-public";
/// The ConfigMap's name.
pub const HOSTING_NAME: &str = "local-registry-hosting";
const KEY: &str = "localRegistryHosting.v1";

/// A cluster's local registry, from each side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hosting {
    /// `HOST:PORT` to push to, from the machine that runs the cluster; also what
    /// images in manifests are called, unless another name is given for nodes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// What nodes pull from, when that is another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_from_container_runtime: Option<String>,
    /// What pods can reach it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_from_cluster_network: Option<String>,
    /// A page that tells more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Hosting {
    /// The registry's name in manifests: what the nodes' container runtime knows
    /// it by.
    pub fn from_nodes(&self) -> &str {
        self.host_from_container_runtime.as_deref().filter(|host| !host.is_empty()).unwrap_or(&self.host)
    }
}

/// Reads which local registry the cluster says it has; `None` when it says
/// nothing, or only where to read more.
///
/// # Errors
/// When the API can't be asked, or what it says can't be understood.
pub async fn hosting(client: &Client) -> Result<Option<Hosting>> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), HOSTING_NAMESPACE);
    let found = maps.get_opt(HOSTING_NAME).await.map_err(|error| explain(error, "could not ask the cluster for its local registry"))?;
    found.as_ref().map_or(Ok(None), read)
}

/// Says which local registry the cluster has. `manager` is the field manager.
///
/// # Errors
/// When the API refuses.
pub async fn publish(client: &Client, manager: &str, hosting: &Hosting) -> kube::Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), HOSTING_NAMESPACE);
    let params = PatchParams::apply(manager).force();
    maps.patch(HOSTING_NAME, &params, &Patch::Apply(&write(hosting))).await.map(|_| ())
}

fn read(map: &ConfigMap) -> Result<Option<Hosting>> {
    let Some(text) = map.data.as_ref().and_then(|data| data.get(KEY)) else { return Ok(None) };
    let hosting: Hosting = serde_yaml_ng::from_str(text)
        .map_err(|error| CommandError::new(error.to_string()))
        .with_context(|| format!("ConfigMap {HOSTING_NAMESPACE}/{HOSTING_NAME} is not as KEP-1755 has it"))
        .hint(format!("see `kubectl get configmap {HOSTING_NAME} --namespace {HOSTING_NAMESPACE} --output yaml`"))?;
    Ok((!hosting.host.is_empty()).then_some(hosting))
}

fn write(hosting: &Hosting) -> ConfigMap {
    // Strings are always YAML.
    let text = serde_yaml_ng::to_string(hosting).unwrap_or_default();
    ConfigMap {
        metadata: ObjectMeta { name: Some(HOSTING_NAME.into()), namespace: Some(HOSTING_NAMESPACE.into()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([(KEY.to_owned(), text)])),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> ConfigMap {
        ConfigMap { data: Some(BTreeMap::from([(KEY.to_owned(), text.to_owned())])), ..ConfigMap::default() }
    }

    #[test]
    fn what_kind_and_ctlptl_write_is_understood() {
        let kind = "host: \"localhost:5001\"\nhelp: \"https://kind.sigs.k8s.io/docs/user/local-registry/\"\n";
        let hosting = read(&map(kind)).unwrap().unwrap();
        assert_eq!((hosting.host.as_str(), hosting.from_nodes()), ("localhost:5001", "localhost:5001"));
        let other = "host: localhost:5005\nhostFromContainerRuntime: registry:5000\nhostFromClusterNetwork: registry:5000\nnew: field\n";
        assert_eq!(read(&map(other)).unwrap().unwrap().from_nodes(), "registry:5000");
        assert_eq!(read(&map("help: https://example.com\n")).unwrap(), None);
        assert_eq!(read(&ConfigMap::default()).unwrap(), None);
        let error = read(&map("host: [")).unwrap_err();
        assert!(error.to_string().contains("not as KEP-1755 has it"), "{error}");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let hosting = Hosting { host: "localhost:5001".into(), help: Some("https://example.com".into()), ..Hosting::default() };
        let map = write(&hosting);
        assert_eq!(map.data.as_ref().unwrap()[KEY], "host: localhost:5001\nhelp: https://example.com\n");
        assert_eq!(read(&map).unwrap(), Some(hosting));
    }
}
