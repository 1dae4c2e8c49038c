//! What is in use: all images that pods and the templates of workloads name.

use devloop_core::Result;
use devloop_core::cluster::explain;
use devloop_core::image::reference;
use futures::future::try_join_all;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What may name an image: group, version, kind and plural. ReplicaSets and
/// ControllerRevisions hold what a workload is rolled back to.
const KINDS: [(&str, &str, &str, &str); 10] = [
    ("", "v1", "Pod", "pods"),
    ("apps", "v1", "Deployment", "deployments"),
    ("apps", "v1", "ReplicaSet", "replicasets"),
    ("apps", "v1", "StatefulSet", "statefulsets"),
    ("apps", "v1", "DaemonSet", "daemonsets"),
    ("apps", "v1", "ControllerRevision", "controllerrevisions"),
    ("batch", "v1", "Job", "jobs"),
    ("batch", "v1", "CronJob", "cronjobs"),
    ("", "v1", "ReplicationController", "replicationcontrollers"),
    ("", "v1", "PodTemplate", "podtemplates"),
];

/// Who uses which image: `pod/NAMESPACE/NAME` and the like, by what they call it:
/// a name spelled out, or a digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage(BTreeMap<String, BTreeSet<String>>);

/// Asks for all namespaces.
///
/// # Errors
/// When one of the lists is refused: an image may be in use by what is on it.
pub(super) async fn ask(client: &Client) -> Result<Usage> {
    let lists = KINDS.map(|(group, version, kind, plural)| async move {
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let list =
            api.list(&ListParams::default()).await.map_err(|error| explain(error, format!("could not list {plural} of all namespaces")))?;
        Ok::<_, devloop_core::CommandError>((kind.to_lowercase(), list.items))
    });
    let mut usage = Usage::default();
    for (kind, objects) in try_join_all(lists).await? {
        for object in objects {
            let holder = format!("{kind}/{}/{}", object.namespace().unwrap_or_default(), object.name_any());
            usage.add(&object.data, &holder);
        }
    }
    Ok(usage)
}

impl Usage {
    /// Adds all images that an object names, wherever: its containers of all
    /// kinds, and what it says that they run. Pure.
    pub(super) fn add(&mut self, object: &Value, holder: &str) {
        match object {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value.as_str() {
                        Some(text) if name == "image" || name == "imageID" => self.insert(text, holder),
                        _ => self.add(value, holder),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.add(item, holder)),
            _ => {}
        }
    }

    fn insert(&mut self, text: &str, holder: &str) {
        // A runtime's id may have its scheme in front.
        let text = text.rsplit("://").next().unwrap_or(text);
        if let Some(start) = text.find("sha256:") {
            self.0.entry(text[start..].to_owned()).or_default().insert(holder.to_owned());
        }
        let name = text.split('@').next().unwrap_or(text);
        if let Ok(name) = reference::normalize(name) {
            self.0.entry(name).or_default().insert(holder.to_owned());
        }
    }

    /// Who uses an image that has any of these names and digests.
    pub(super) fn of(&self, keys: &[&str]) -> Vec<String> {
        let holders: BTreeSet<&String> = keys.iter().filter(|key| !key.is_empty()).filter_map(|key| self.0.get(*key)).flatten().collect();
        holders.into_iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn images_are_found_wherever_they_are_named() {
        let mut usage = Usage::default();
        let pod = json!({
            "spec": {"initContainers": [{"image": "devloop.local/init:1"}], "containers": [{"image": "shop"}],
                     "ephemeralContainers": [{"image": "devloop.local/agent:2"}], "volumes": [{"image": {"reference": "x"}}]},
            "status": {"containerStatuses": [{"image": "sha256:ab", "imageID": "docker-pullable://localhost:5001/shop@sha256:cd"}]},
        });
        usage.add(&pod, "pod/dev/a");
        usage.add(
            &json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"image": "devloop.local/init:1"}]}}}}}}),
            "cronjob/dev/b",
        );
        usage.add(
            &json!({"data": {"spec": {"template": {"spec": {"containers": [{"image": "localhost:5001/web:1@sha256:ef"}]}}}}}),
            "controllerrevision/dev/c",
        );
        assert_eq!(usage.of(&["devloop.local/init:1"]), ["cronjob/dev/b", "pod/dev/a"]);
        for used in ["docker.io/library/shop:latest", "devloop.local/agent:2", "sha256:ab", "sha256:cd"] {
            assert_eq!(usage.of(&[used, ""]), ["pod/dev/a"], "{used}");
        }
        assert_eq!(usage.of(&["sha256:ef"]), ["controllerrevision/dev/c"]);
        assert!(usage.of(&["devloop.local/init:2", "sha256:abc", ""]).is_empty());
    }
}
