//! Where pods are looked for.

use crate::cluster::Cluster;
use crate::node::Node;
use crate::target::{PodSelection, SelectionParams};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::runtime::watcher;
use kube::{Api, Client};
use std::sync::Arc;

/// A cluster, as far as logs go.
#[derive(Clone)]
pub struct Place {
    /// Speaks to its API server.
    pub client: Client,
    /// Its kubeconfig context, where there are several.
    pub context: Option<String>,
    /// Its nodes that can be reached without the API.
    pub nodes: Vec<Node>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Place").field("context", &self.context).field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

/// Pods of a namespace, or of all.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The cluster.
    pub place: Arc<Place>,
    /// The namespace; none for all.
    pub namespace: Option<String>,
    /// A label selector in the API's syntax.
    pub labels: Option<String>,
    /// A field selector in the API's syntax.
    pub fields: Option<String>,
    /// Only pods that the object with this uid owns, through others, perhaps.
    pub owner: Option<String>,
    /// Only pods whose names one of these matches, if there are any.
    pub names: Vec<regex::Regex>,
}

impl Scope {
    /// All pods of a namespace.
    pub fn new(place: Arc<Place>, namespace: Option<String>) -> Self {
        Self { place, namespace, labels: None, fields: None, owner: None, names: Vec::new() }
    }

    /// The pods of a target.
    #[must_use]
    pub fn of(mut self, selection: &PodSelection) -> Self {
        match &selection.params {
            SelectionParams::Name(name) => self.add_fields(&format!("metadata.name={name}")),
            SelectionParams::Labels(labels) => self.labels = Some(labels.clone()),
        }
        self
    }

    /// Narrows it by a field selector.
    pub fn add_fields(&mut self, fields: &str) {
        self.fields = Some(match self.fields.take() {
            Some(before) => format!("{before},{fields}"),
            None => fields.to_owned(),
        });
    }

    pub(super) fn api(&self) -> Api<Pod> {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.place.client.clone(), namespace),
            None => Api::all(self.place.client.clone()),
        }
    }

    pub(super) fn list_params(&self) -> ListParams {
        ListParams { label_selector: self.labels.clone(), field_selector: self.fields.clone(), ..ListParams::default() }
    }

    pub(super) fn watch_config(&self) -> watcher::Config {
        watcher::Config { label_selector: self.labels.clone(), field_selector: self.fields.clone(), ..watcher::Config::default() }
    }

    pub(super) fn wants_name(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|pattern| pattern.is_match(name))
    }

    /// For messages.
    pub fn describe(&self) -> String {
        let namespace = match &self.namespace {
            Some(namespace) => format!("namespace {namespace:?}"),
            None => "all namespaces".to_owned(),
        };
        match &self.place.context {
            Some(context) => format!("{namespace} of context {context:?}"),
            None => namespace,
        }
    }
}

impl From<&Cluster> for Place {
    fn from(cluster: &Cluster) -> Self {
        Self { client: cluster.client.clone(), context: None, nodes: cluster.nodes.clone() }
    }
}
