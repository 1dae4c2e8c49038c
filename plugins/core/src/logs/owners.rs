//! Which object a pod belongs to, through others: a Job of a CronJob, a ReplicaSet
//! of a Deployment of whatever made that.

use crate::cluster::explain;
use crate::error::{CommandError, ErrorHint, Result};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::discovery::{Discovery, Scope};
use kube::{Api, Client, ResourceExt};
use std::collections::HashMap;

/// Longer chains are circles.
const LONGEST_CHAIN: usize = 10;

/// An object that may own pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its uid.
    pub uid: String,
    /// `kind/name`, for messages.
    pub describe: String,
}

/// Finds an object by its kind, as kubectl takes it (`cronjob`, `cj`, `widgets`,
/// `widget.example.com`), and its name.
///
/// # Errors
/// When there is no such kind or object, or the API server can't be asked.
pub async fn find_object(client: &Client, namespace: &str, kind: &str, name: &str) -> Result<Object> {
    let (resource, is_namespaced) = find_kind(client, kind).await?;
    let api: Api<DynamicObject> =
        if is_namespaced { Api::namespaced_with(client.clone(), namespace, &resource) } else { Api::all_with(client.clone(), &resource) };
    let singular = resource.kind.to_ascii_lowercase();
    let found = api.get_opt(name).await.map_err(|error| explain(error, format!("could not get {singular}/{name}")))?;
    let object = found
        .ok_or_else(|| CommandError::new(format!("{singular}/{name} not found in namespace {namespace:?}")))
        .hint(format!("list what is there with `kubectl get {singular} -n {namespace}`"))?;
    Ok(Object { uid: object.uid().unwrap_or_default(), describe: format!("{singular}/{name}") })
}

async fn find_kind(client: &Client, kind: &str) -> Result<(ApiResource, bool)> {
    let (name, group) = kind.split_once('.').map_or((kind, None), |(name, group)| (name, Some(group)));
    let name = name.to_ascii_lowercase();
    if ["cronjob", "cronjobs", "cj"].contains(&name.as_str()) {
        return Ok((ApiResource::from_gvk(&GroupVersionKind::gvk("batch", "v1", "CronJob")), true));
    }
    let discovery =
        Discovery::new(client.clone()).run().await.map_err(|error| explain(error, "could not ask the API server for its kinds"))?;
    let all = discovery.groups().flat_map(|group| group.recommended_resources());
    let fits = |resource: &ApiResource| {
        let is_name = resource.plural == name || resource.kind.to_ascii_lowercase() == name;
        // As kubectl: `deployments.apps`, or with a version before the group.
        let is_group = group.is_none_or(|group| group == resource.group || group == format!("{}.{}", resource.version, resource.group));
        is_name && is_group
    };
    let found = all.into_iter().find(|(resource, _)| fits(resource));
    found
        .map(|(resource, capabilities)| (resource, capabilities.scope == Scope::Namespaced))
        .ok_or_else(|| CommandError::usage(format!("unknown kind {kind:?} in target")))
        .hint("list the kinds that there are with `kubectl api-resources`")
}

/// What is known of objects and their owners.
#[derive(Clone)]
pub(super) struct Owners {
    client: Client,
    known: HashMap<String, Vec<OwnerReference>>,
}

impl Owners {
    pub(super) fn new(client: Client) -> Self {
        Self { client, known: HashMap::new() }
    }

    /// Whether the object with uid `root` owns a pod. What can't be read has no owner.
    pub(super) async fn own(&mut self, root: &str, pod: &Pod) -> bool {
        let namespace = pod.namespace().unwrap_or_default();
        let mut references = pod.owner_references().to_vec();
        for _ in 0..LONGEST_CHAIN {
            if references.iter().any(|reference| reference.uid == root) {
                return true;
            }
            let mut further = Vec::new();
            for reference in &references {
                further.extend(self.owners_of(&namespace, reference).await);
            }
            if further.is_empty() {
                return false;
            }
            references = further;
        }
        false
    }

    async fn owners_of(&mut self, namespace: &str, reference: &OwnerReference) -> Vec<OwnerReference> {
        if let Some(known) = self.known.get(&reference.uid) {
            return known.clone();
        }
        let (group, version) = reference.api_version.split_once('/').unwrap_or(("", &reference.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &reference.kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let owners = match api.get_opt(&reference.name).await {
            Ok(object) => object.map(|object| object.owner_references().to_vec()).unwrap_or_default(),
            Err(error) => {
                tracing::debug!(%error, kind = reference.kind, name = reference.name, "could not read an owner");
                // Perhaps the next time.
                return Vec::new();
            }
        };
        self.known.insert(reference.uid.clone(), owners.clone());
        owners
    }
}
