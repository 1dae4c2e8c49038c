//! What a project has in the cluster, looked up and removed.

use super::kinds::{KindOnServer, Kinds, PARALLEL};
use super::order::rank;
use super::set::{ApplySet, Orphan, Reach};
use super::{FIELD_MANAGER, ObjectId, explain_api};
use crate::cluster::Cluster;
use crate::error::{CommandError, Result};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::Value;
use std::collections::BTreeMap;

/// The members of a set, as they are in the cluster.
pub(super) struct Inventory {
    set: ApplySet,
    /// The parent as it is; none before the first apply.
    parent: Option<Value>,
    /// What the manifests at hand need the parent to say.
    needed: Reach,
    pub(super) members: BTreeMap<ObjectId, Value>,
}

impl Inventory {
    /// The set's parent, if there is one.
    ///
    /// # Errors
    /// When the server refuses or can't be asked.
    pub(super) async fn parent(client: &Client, set: &ApplySet) -> Result<Option<Value>> {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), set.namespace());
        let parent = api.get_opt(set.name()).await;
        let parent = parent.map_err(|error| explain_api(error, format!("could not read configmap/{}", set.name())))?;
        Ok(parent.and_then(|parent| serde_json::to_value(parent).ok()))
    }

    /// Lists the members, one request for each kind and namespace.
    pub(super) async fn look(cluster: &Cluster, kinds: &Kinds, set: &ApplySet, parent: Option<Value>, ids: &[ObjectId]) -> Result<Self> {
        let needed = Reach::of_objects(ids);
        // Without a parent nothing was ever applied.
        let Some(known) = parent.as_ref().map(Reach::of_parent) else {
            return Ok(Self { set: set.clone(), parent, needed, members: BTreeMap::new() });
        };
        let mut places: Vec<(KindOnServer, Option<String>)> = Vec::new();
        let reach = known.joined(needed.clone());
        for (kind, group) in &reach.kinds {
            match kinds.find_in_group(group, kind).await? {
                Some(kind) if kind.namespaced => {
                    places.extend(reach.namespaces.iter().map(|namespace| (kind.clone(), Some(namespace.clone()))));
                }
                Some(kind) => places.push((kind, None)),
                // Its definition is gone, and with it the objects.
                None => {}
            }
        }
        let requests = places.into_iter().map(|(kind, namespace)| list(cluster, kind, namespace, set));
        let lists: Vec<Vec<(ObjectId, Value)>> = stream::iter(requests).buffered(PARALLEL).try_collect().await?;
        Ok(Self { set: set.clone(), parent, needed, members: lists.into_iter().flatten().collect() })
    }

    /// Says in the parent where members are, before there are new ones.
    pub(super) async fn announce(&self, client: &Client) -> Result<()> {
        let known = self.parent.as_ref().map(Reach::of_parent);
        let wanted = known.clone().unwrap_or_default().joined(self.needed.clone());
        let own = Reach { namespaces: [self.set.namespace().to_owned()].into(), ..Reach::default() };
        if known.is_some_and(|known| known.joined(own.clone()) == wanted.clone().joined(own)) {
            return Ok(());
        }
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), self.set.namespace());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let parent = api.patch(self.set.name(), &params, &Patch::Apply(self.set.parent(&wanted))).await;
        parent.map(drop).map_err(|error| explain_api(error, format!("could not note what is applied in configmap/{}", self.set.name())))
    }

    pub(super) async fn prune(&self, cluster: &Cluster, kinds: &Kinds, orphans: &[Orphan]) -> Result<Vec<ObjectId>> {
        let mut order: Vec<&Orphan> = orphans.iter().filter(|orphan| orphan.kept.is_none()).collect();
        order.sort_by_key(|orphan| std::cmp::Reverse(rank(&orphan.id.kind)));
        let mut gone = Vec::new();
        for orphan in order {
            let id = &orphan.id;
            let Some(kind) = kinds.find_in_group(&id.group, &id.kind).await? else { continue };
            // One that was made anew in the meantime is somebody else's.
            let uid = self.members.get(id).and_then(|object| object["metadata"]["uid"].as_str()).map(str::to_owned);
            let params = DeleteParams { preconditions: Some(Preconditions { uid, resource_version: None }), ..DeleteParams::background() };
            match kind.api(&cluster.client, id.namespace.as_deref()).delete(&id.name, &params).await {
                Ok(_) => gone.push(id.clone()),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    let error = explain_api(error, format!("could not remove {id}"));
                    return Err(match gone.is_empty() {
                        true => error,
                        false => error.with_hint(format!("removed before that: {}", join(&gone))),
                    });
                }
            }
        }
        Ok(gone)
    }
}

fn join(ids: &[ObjectId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

async fn list(cluster: &Cluster, kind: KindOnServer, namespace: Option<String>, set: &ApplySet) -> Result<Vec<(ObjectId, Value)>> {
    let api = kind.api(&cluster.client, namespace.as_deref());
    let objects = match api.list(&ListParams::default().labels(&set.selector())).await {
        Ok(objects) => objects,
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 403 || status.code == 405 => {
            tracing::info!(kind = kind.resource.kind, ?namespace, status = status.code, "objects of this kind can't be listed");
            return Ok(Vec::new());
        }
        Err(error) => return Err(explain_api(error, format!("could not list what is applied: {}", kind.resource.plural))),
    };
    let mut members = Vec::with_capacity(objects.items.len());
    for mut object in objects.items {
        // Items of a list don't say what they are.
        object.types = Some(kube::core::TypeMeta { api_version: kind.resource.api_version.clone(), kind: kind.resource.kind.clone() });
        let id = ObjectId {
            group: kind.resource.group.clone(),
            kind: kind.resource.kind.clone(),
            namespace: object.metadata.namespace.clone(),
            name: object.metadata.name.clone().unwrap_or_default(),
        };
        let value =
            serde_json::to_value(object).map_err(|error| CommandError::new("an object of the cluster can't be read").caused_by(error))?;
        members.push((id, value));
    }
    Ok(members)
}
