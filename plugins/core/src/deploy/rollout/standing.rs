//! Workloads that run as they should already, as objects that were just read tell:
//! nothing is watched for them.

use super::{Rollout, Workload};
use crate::cluster::Cluster;
use crate::deploy::apply::AppliedObject;
use crate::deploy::assess::{Verdict, assess};
use crate::deploy::explain_api;
use crate::error::{CommandError, Result};
use crate::target::Kind;
use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DynamicObject, ListParams, ObjectMeta};
use std::collections::BTreeMap;

type Labels = BTreeMap<String, String>;

/// Whether a workload runs as its specification asks, as an object that was just
/// read tells; not, where it has to be waited for, or can't be told.
pub fn stands(object: &AppliedObject) -> bool {
    live_of(object).is_some()
}

/// The pods of each workload that stands, in the order of the objects; none for one
/// that doesn't. However many there are, the server is asked once for each namespace.
///
/// # Errors
/// When the API server can't be asked for the pods.
pub async fn standing(cluster: &Cluster, objects: &[&AppliedObject]) -> Result<Vec<Option<Rollout>>> {
    let selected: Vec<Option<(&str, Labels)>> = objects
        .iter()
        .map(|object| Some((object.namespace.as_deref().unwrap_or(&cluster.namespace), labels_of(&live_of(object)?)?)))
        .collect();
    let mut by_namespace: BTreeMap<&str, Vec<&Labels>> = BTreeMap::new();
    for (namespace, labels) in selected.iter().flatten() {
        by_namespace.entry(namespace).or_default().push(labels);
    }
    let lists = by_namespace.into_iter().map(|(namespace, all)| async move {
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
        let pods = api.list_metadata(&ListParams::default().labels(&selector(&all))).await;
        let pods = pods.map_err(|error| explain_api(error, format!("could not list the pods in namespace {namespace}")))?;
        Ok::<_, CommandError>((namespace, pods.items.into_iter().map(|pod| pod.metadata).collect::<Vec<ObjectMeta>>()))
    });
    let pods: BTreeMap<&str, Vec<ObjectMeta>> = try_join_all(lists).await?.into_iter().collect();
    Ok(selected
        .iter()
        .map(|selected| {
            let (namespace, labels) = selected.as_ref()?;
            Some(Rollout { pods: names(pods.get(namespace)?, labels) })
        })
        .collect())
}

/// The workload as it was read, if it stands.
fn live_of(object: &AppliedObject) -> Option<DynamicObject> {
    let kinds = [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet];
    let kind = kinds.into_iter().find(|kind| object.kind.eq_ignore_ascii_case(kind.name()))?;
    let live = serde_json::from_value::<DynamicObject>(object.after.clone()?).ok()?;
    let workload = Workload::read(kind, &live)?;
    (assess(Some(&workload), &[], &[], Timestamp::now()) == Verdict::Ready).then_some(live)
}

/// What a workload's pods are known by; none where it takes more than labels.
fn labels_of(live: &DynamicObject) -> Option<Labels> {
    let selector = &live.data["spec"]["selector"];
    let labels = selector["matchLabels"].as_object().filter(|_| selector["matchExpressions"].is_null())?;
    Some(labels.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect())
}

/// A selector that fits the pods of all, and as few others as it can.
fn selector(all: &[&Labels]) -> String {
    if let [one] = all {
        return one.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    }
    let mut keys = all.first().into_iter().flat_map(|labels| labels.keys());
    let Some(key) = keys.find(|key| all.iter().all(|labels| labels.contains_key(*key))) else { return String::new() };
    let mut values: Vec<&str> = all.iter().filter_map(|labels| labels.get(key)).map(String::as_str).collect();
    values.sort_unstable();
    values.dedup();
    format!("{key} in ({})", values.join(","))
}

fn names(pods: &[ObjectMeta], labels: &Labels) -> Vec<String> {
    let fits = |pod: &&ObjectMeta| {
        let own = pod.labels.as_ref();
        pod.deletion_timestamp.is_none() && labels.iter().all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
    };
    let mut names: Vec<String> = pods.iter().filter(fits).filter_map(|pod| pod.name.clone()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn labels(all: &[(&str, &str)]) -> Labels {
        all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn one_question_is_about_all_pods() {
        let (a, b, c) = (labels(&[("app", "a"), ("tier", "x")]), labels(&[("app", "b")]), labels(&[("name", "c")]));
        assert_eq!(selector(&[&a]), "app=a,tier=x");
        assert_eq!(selector(&[&b, &a, &b]), "app in (a,b)");
        assert_eq!(selector(&[&a, &b, &c]), "");
    }

    #[test]
    fn pods_are_told_apart_by_their_labels() {
        let pod = |name: &str, own: Labels| ObjectMeta { name: Some(name.to_owned()), labels: Some(own), ..ObjectMeta::default() };
        let going = ObjectMeta { deletion_timestamp: Some(Time(Timestamp::UNIX_EPOCH)), ..pod("a-0", labels(&[("app", "a")])) };
        let pods = [
            pod("b-1", labels(&[("app", "b")])),
            pod("a-2", labels(&[("app", "a"), ("more", "x")])),
            pod("a-1", labels(&[("app", "a")])),
            going,
        ];
        assert_eq!(names(&pods, &labels(&[("app", "a")])), ["a-1", "a-2"]);
        assert_eq!(names(&pods, &labels(&[("app", "c")])), [""; 0]);
    }
}
