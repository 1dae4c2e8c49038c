//! The kinds that a server has, and where their objects are.

use super::explain_api;
use super::manifest::Manifest;
use crate::cluster::Cluster;
use crate::error::{CommandError, Result};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersion};
use kube::discovery::{self, ApiGroup, Scope, pinned_group};
use kube::{Api, Client};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Requests to the API server at the same time.
pub(super) const PARALLEL: usize = 8;

/// How long the server may take to serve a kind whose definition is established.
const SERVED: Duration = Duration::from_secs(15);

/// The kinds that the server has, asked once for each group and version.
pub(super) struct Kinds {
    client: Client,
    groups: HashMap<String, Option<ApiGroup>>,
}

impl Kinds {
    pub(super) async fn of(client: &Client, manifests: &[&Manifest]) -> Result<Self> {
        let mut versions: Vec<&str> = manifests.iter().map(|manifest| manifest.api_version()).collect();
        versions.sort_unstable();
        versions.dedup();
        let requests = versions.into_iter().map(|version| fetch(client, version));
        let groups = stream::iter(requests).buffered(PARALLEL).try_collect().await?;
        Ok(Self { client: client.clone(), groups })
    }

    pub(super) fn find(&self, manifest: &Manifest) -> Option<KindOnServer> {
        let group = self.groups.get(manifest.api_version())?.as_ref()?;
        let version = manifest.api_version().rsplit('/').next()?;
        let found = group.versioned_resources(version).into_iter().find(|(resource, _)| resource.kind == manifest.kind())?;
        Some(KindOnServer { resource: found.0, namespaced: found.1.scope == Scope::Namespaced })
    }

    /// A kind of a group, in the version that a manifest has, else in the one
    /// that the server prefers. None when the server doesn't have it.
    pub(super) async fn find_in_group(&self, group: &str, kind: &str) -> Result<Option<KindOnServer>> {
        let known = self.groups.values().flatten().filter(|known| known.name() == group);
        let found = known.flat_map(|known| known.versions().map(|version| known.versioned_resources(version)).collect::<Vec<_>>());
        let mut found = found.flatten().filter(|(resource, _)| resource.kind == kind);
        if let Some((resource, capabilities)) = found.next() {
            return Ok(Some(KindOnServer { resource, namespaced: capabilities.scope == Scope::Namespaced }));
        }
        match discovery::group(&self.client, group).await {
            Ok(known) => Ok(known
                .recommended_resources()
                .into_iter()
                .find(|(resource, _)| resource.kind == kind)
                .map(|(resource, capabilities)| KindOnServer { resource, namespaced: capabilities.scope == Scope::Namespaced })),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(kube::Error::Discovery(_)) => Ok(None),
            Err(error) => Err(explain_api(error, format!("could not ask the cluster for its kinds in {group:?}"))),
        }
    }

    /// Waits until the server serves a kind whose definition was just applied.
    pub(super) async fn wait_for(&mut self, manifest: &Manifest) -> Result<KindOnServer> {
        let started = Instant::now();
        loop {
            let (version, group) = fetch(&self.client, manifest.api_version()).await?;
            self.groups.insert(version, group);
            match self.find(manifest) {
                Some(kind) => return Ok(kind),
                None if started.elapsed() > SERVED => return Err(unknown_kind(manifest)),
                // Established is said by another component than serves it; there
                // is nothing to watch in between.
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

pub(super) fn unknown_kind(manifest: &Manifest) -> CommandError {
    CommandError::new(format!("{}: the cluster has no kind {} in {}", manifest.place(), manifest.kind(), manifest.api_version()))
        .with_hint("check the spelling against `kubectl api-resources`, or install the CustomResourceDefinition first")
}

async fn fetch(client: &Client, version: &str) -> Result<(String, Option<ApiGroup>)> {
    let Ok(parsed) = version.parse::<GroupVersion>() else { return Ok((version.to_owned(), None)) };
    match pinned_group(client, &parsed).await {
        Ok(group) => Ok((version.to_owned(), Some(group))),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok((version.to_owned(), None)),
        Err(error) => Err(explain_api(error, format!("could not ask the cluster for its kinds in {version}"))),
    }
}

/// A kind, as the server names it.
#[derive(Clone, Debug)]
pub(super) struct KindOnServer {
    pub(super) resource: ApiResource,
    pub(super) namespaced: bool,
}

impl KindOnServer {
    /// The objects of this kind: in a namespace, where the kind has them.
    pub(super) fn api(&self, client: &Client, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource),
            None => Api::all_with(client.clone(), &self.resource),
        }
    }

    pub(super) fn place(&self, cluster: &Cluster, manifest: &Manifest) -> Place {
        let namespace = self.namespaced.then(|| manifest.namespace().unwrap_or(&cluster.namespace).to_owned());
        Place { api: self.api(&cluster.client, namespace.as_deref()), kind: self.clone(), namespace }
    }
}

/// An object's place on the server.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) api: Api<DynamicObject>,
    pub(super) kind: KindOnServer,
    /// None for kinds that have none.
    pub(super) namespace: Option<String>,
}
