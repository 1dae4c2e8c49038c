//! From `deploy/web` to pods.

use crate::cluster::explain;
use crate::error::{CommandError, ErrorHint, Result};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use std::fmt;
use std::str::FromStr;

/// A kind of object that leads to pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A pod itself.
    Pod,
    /// `apps/v1` Deployment.
    Deployment,
    /// `apps/v1` StatefulSet.
    StatefulSet,
    /// `apps/v1` DaemonSet.
    DaemonSet,
    /// `apps/v1` ReplicaSet.
    ReplicaSet,
    /// `batch/v1` Job.
    Job,
    /// `v1` Service, by its selector.
    Service,
}

impl Kind {
    const ALL: [(Self, &'static [&'static str]); 7] = [
        (Self::Pod, &["pod", "pods", "po"]),
        (Self::Deployment, &["deployment", "deployments", "deploy"]),
        (Self::StatefulSet, &["statefulset", "statefulsets", "sts"]),
        (Self::DaemonSet, &["daemonset", "daemonsets", "ds"]),
        (Self::ReplicaSet, &["replicaset", "replicasets", "rs"]),
        (Self::Job, &["job", "jobs"]),
        (Self::Service, &["service", "services", "svc"]),
    ];

    /// Its name in messages, as kubectl prints it.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, names)| names[0])
    }
}

/// What the user pointed at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `deploy/web`, `pod/web-0`, ...; a bare `web` is a Deployment, as the
    /// plugins' common case.
    Object {
        /// The object's kind.
        kind: Kind,
        /// The object's name.
        name: String,
    },
    /// A label selector in kubectl's syntax (`-l`).
    Selector(String),
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object { kind, name } => write!(formatter, "{}/{name}", kind.name()),
            Self::Selector(selector) => write!(formatter, "pods with {selector}"),
        }
    }
}

/// A target that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseTargetError {
    /// No name, or a part of it is missing.
    #[error("target {0:?} is not KIND/NAME")]
    Malformed(String),
    /// A kind that has no pods, or that we don't know.
    #[error("unknown kind {0:?} in target; known: pod, deploy, sts, ds, rs, job, svc")]
    UnknownKind(String),
}

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => {
                // kubectl's long form: deployments.v1.apps/web
                let short = kind.split('.').next().unwrap_or(kind).to_ascii_lowercase();
                let found = Kind::ALL.iter().find(|(_, names)| names.contains(&short.as_str()));
                (found.ok_or_else(|| ParseTargetError::UnknownKind(kind.to_owned()))?.0, name)
            }
            None => (Kind::Deployment, text),
        };
        if name.is_empty() || name.contains('/') || name.contains(char::is_whitespace) {
            return Err(ParseTargetError::Malformed(text.to_owned()));
        }
        Ok(Self::Object { kind, name: name.to_owned() })
    }
}

/// Which pods a target stands for, now and in future.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSelection {
    /// What the user pointed at, for messages.
    pub target: Target,
    /// Narrows a list or watch of pods to the target's.
    pub params: SelectionParams,
}

/// How a selection narrows a list or watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectionParams {
    /// One pod, by name.
    Name(String),
    /// By labels, in the API's selector syntax.
    Labels(String),
}

impl PodSelection {
    /// Parameters for a list of the pods.
    pub fn list_params(&self) -> ListParams {
        match &self.params {
            SelectionParams::Name(name) => ListParams::default().fields(&format!("metadata.name={name}")),
            SelectionParams::Labels(labels) => ListParams::default().labels(labels),
        }
    }

    /// Configuration for a watch of the pods.
    pub fn watch_config(&self) -> kube::runtime::watcher::Config {
        match &self.params {
            SelectionParams::Name(name) => kube::runtime::watcher::Config::default().fields(&format!("metadata.name={name}")),
            SelectionParams::Labels(labels) => kube::runtime::watcher::Config::default().labels(labels),
        }
    }

    /// Lists the pods as they are now, oldest first.
    ///
    /// # Errors
    /// When the API server can't be asked.
    pub async fn pods(&self, client: &Client, namespace: &str) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let list =
            api.list(&self.list_params()).await.map_err(|error| explain(error, format!("could not list the pods of {}", self.target)))?;
        let mut pods = list.items;
        pods.sort_by_key(|pod| (pod.creation_timestamp().map(|time| time.0), pod.name_any()));
        Ok(pods)
    }
}

/// Finds out which pods a target stands for.
///
/// # Errors
/// When the object doesn't exist, selects no pods by nature, or the API server
/// can't be asked.
pub async fn resolve(client: &Client, namespace: &str, target: &Target) -> Result<PodSelection> {
    let params = match target {
        Target::Selector(selector) => SelectionParams::Labels(selector.clone()),
        Target::Object { kind, name } => resolve_object(client, namespace, *kind, name).await?,
    };
    Ok(PodSelection { target: target.clone(), params })
}

async fn resolve_object(client: &Client, namespace: &str, kind: Kind, name: &str) -> Result<SelectionParams> {
    macro_rules! selector_of {
        ($type:ty, $object:ident => $selector:expr) => {{
            let $object = get::<$type>(client, namespace, kind, name).await?;
            $selector
        }};
    }
    let selector: Option<LabelSelector> = match kind {
        Kind::Pod => {
            get::<Pod>(client, namespace, kind, name).await?;
            return Ok(SelectionParams::Name(name.to_owned()));
        }
        Kind::Service => {
            let service = get::<Service>(client, namespace, kind, name).await?;
            service.spec.and_then(|spec| spec.selector).map(|labels| LabelSelector { match_labels: Some(labels), match_expressions: None })
        }
        Kind::Deployment => selector_of!(Deployment, object => object.spec.map(|spec| spec.selector)),
        Kind::StatefulSet => selector_of!(StatefulSet, object => object.spec.map(|spec| spec.selector)),
        Kind::DaemonSet => selector_of!(DaemonSet, object => object.spec.map(|spec| spec.selector)),
        Kind::ReplicaSet => selector_of!(ReplicaSet, object => object.spec.map(|spec| spec.selector)),
        Kind::Job => selector_of!(Job, object => object.spec.and_then(|spec| spec.selector)),
    };
    let labels = selector.as_ref().map(render_selector).unwrap_or_default();
    if labels.is_empty() {
        return Err(CommandError::new(format!("{}/{name} selects no pods", kind.name())));
    }
    Ok(SelectionParams::Labels(labels))
}

async fn get<K>(client: &Client, namespace: &str, kind: Kind, name: &str) -> Result<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + for<'de> serde::Deserialize<'de>,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await.map_err(|error| explain(error, format!("could not get {}/{name}", kind.name())))?;
    found
        .ok_or_else(|| CommandError::new(format!("{}/{name} not found in namespace {namespace:?}", kind.name())))
        .hint(format!("list what is there with `kubectl get {} -n {namespace}`", kind.name()))
}

/// A label selector in the API's string syntax
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>).
pub fn render_selector(selector: &LabelSelector) -> String {
    let equalities = selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    let expressions = selector.match_expressions.iter().flatten().map(|expression| {
        let values = expression.values.as_deref().unwrap_or_default().join(",");
        match expression.operator.as_str() {
            "In" => format!("{} in ({values})", expression.key),
            "NotIn" => format!("{} notin ({values})", expression.key),
            "DoesNotExist" => format!("!{}", expression.key),
            _ => expression.key.clone(),
        }
    });
    equalities.chain(expressions).collect::<Vec<_>>().join(",")
}

/// Whether a pod is Ready and not on its way out.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none() && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    #[test]
    fn targets_are_read_as_kubectl_reads_them() {
        let deployment = Target::Object { kind: Kind::Deployment, name: "web".into() };
        for text in ["web", "deploy/web", "Deployment/web", "deployments.v1.apps/web"] {
            assert_eq!(text.parse::<Target>().unwrap(), deployment, "{text}");
        }
        assert_eq!("po/web-0".parse::<Target>().unwrap().to_string(), "pod/web-0");
        assert!(matches!("node/a".parse::<Target>(), Err(ParseTargetError::UnknownKind(_))));
        for text in ["", "deploy/", "deploy/a/b", "a b"] {
            assert!(matches!(text.parse::<Target>(), Err(ParseTargetError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn selectors_render_in_the_apis_syntax() {
        let requirement = |key: &str, operator: &str, values: &[&str]| LabelSelectorRequirement {
            key: key.into(),
            operator: operator.into(),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        };
        let selector = LabelSelector {
            match_labels: Some([("app".to_owned(), "web".to_owned())].into()),
            match_expressions: Some(vec![
                requirement("tier", "In", &["a", "b"]),
                requirement("canary", "DoesNotExist", &[]),
                requirement("zone", "Exists", &[]),
            ]),
        };
        assert_eq!(render_selector(&selector), "app=web,tier in (a,b),!canary,zone");
    }
}
