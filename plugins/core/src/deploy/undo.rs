//! Back to what was before an apply, exactly.
//!
//! What we managed before or manage now is applied again with the values from
//! before: fields that came with the failed apply go, those that it changed or
//! dropped come back, and what others changed meanwhile is left alone. So a
//! Deployment has the very template of its former ReplicaSet, which is scaled up
//! again instead of a new one being made.

use super::apply::{AppliedObject, Change, essence};
use super::{FIELD_MANAGER, explain_api};
use crate::cluster::Cluster;
use crate::error::Result;
use crate::workload::managers::{Fields, united};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersion, GroupVersionKind};
use kube::discovery::pinned_kind;
use kube::{Api, Client};
use serde_json::{Map, Value};

/// What became of an object that an apply had changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undone {
    /// It is as before.
    PutBack(String),
    /// It is as before but for what others changed meanwhile.
    Nearly(String),
    /// It is new: there is nothing to go back to, and it is left to be looked at.
    New(String),
}

/// Puts back what an apply changed, the last first.
///
/// # Errors
/// When the server refuses one; the others are put back all the same.
pub async fn undo(cluster: &Cluster, objects: &[AppliedObject]) -> Result<Vec<Undone>> {
    let mut undone = Vec::new();
    let mut failure = None;
    for object in objects.iter().rev() {
        match object.change {
            Change::Unchanged => {}
            Change::Created => undone.push(Undone::New(object.describe())),
            Change::Configured => match put_back(&cluster.client, object).await {
                Ok(Some(outcome)) => undone.push(outcome),
                Ok(None) => {}
                Err(error) => failure = failure.or(Some(error)),
            },
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(undone),
    }
}

async fn put_back(client: &Client, object: &AppliedObject) -> Result<Option<Undone>> {
    let (Some(before), Some(after)) = (&object.before, &object.after) else { return Ok(None) };
    let failed = |error| explain_api(error, format!("could not put {} back", object.describe()));
    let resource = resource(client, object).await.map_err(failed)?;
    let api: Api<DynamicObject> = match &object.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let now = api.patch(&object.name, &params, &Patch::Apply(former(before, after))).await.map_err(failed)?;
    let now = serde_json::to_value(now).unwrap_or_default();
    let name = object.describe();
    Ok(Some(if essence(&now) == essence(before) { Undone::PutBack(name) } else { Undone::Nearly(name) }))
}

async fn resource(client: &Client, object: &AppliedObject) -> Result<ApiResource, kube::Error> {
    let version = object.api_version.parse::<GroupVersion>().unwrap_or_else(|_| GroupVersion::gv("", &object.api_version));
    let kind = GroupVersionKind::gvk(&version.group, &version.version, &object.kind);
    Ok(pinned_kind(client, &kind).await?.0)
}

/// What is applied to put an object back.
fn former(before: &Value, after: &Value) -> Value {
    let fields = united(&ours(before), &ours(after));
    let mut former = extract(before, &fields);
    former["apiVersion"] = after["apiVersion"].clone();
    former["kind"] = after["kind"].clone();
    former["metadata"]["name"] = after["metadata"]["name"].clone();
    if after["metadata"]["namespace"].is_string() {
        former["metadata"]["namespace"] = after["metadata"]["namespace"].clone();
    }
    former
}

/// The fields that we applied, as `managedFields` writes them down.
fn ours(object: &Value) -> Fields {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let applied = entries.filter(|entry| {
        entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply" && entry["subresource"].as_str().unwrap_or_default().is_empty()
    });
    applied.filter_map(|entry| entry["fieldsV1"].as_object()).fold(Fields::new(), |all, fields| united(&all, fields))
}

/// The values of these fields. `f:` is a key of a map, `k:` the item of a list
/// that has these keys, `v:` the item of a set that is this value, `.` the value
/// itself (<https://pkg.go.dev/k8s.io/apimachinery/pkg/apis/meta/v1#FieldsV1>).
fn extract(value: &Value, fields: &Fields) -> Value {
    match value {
        // Without more to say it is one value as a whole.
        _ if fields.is_empty() => value.clone(),
        Value::Object(map) => {
            let mut found = Map::new();
            for (key, inner) in fields {
                let Some(name) = key.strip_prefix("f:") else { continue };
                if let Some(value) = map.get(name) {
                    found.insert(name.to_owned(), extract(value, &inner.as_object().cloned().unwrap_or_default()));
                }
            }
            Value::Object(found)
        }
        Value::Array(items) => Value::Array(items.iter().filter_map(|item| extract_item(item, fields)).collect()),
        other => other.clone(),
    }
}

fn extract_item(item: &Value, fields: &Fields) -> Option<Value> {
    for (key, inner) in fields {
        let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
        if let Some(keys) = key.strip_prefix("k:").and_then(parse) {
            let keys = keys.as_object().cloned().unwrap_or_default();
            if keys.iter().all(|(name, value)| item[name] == *value) {
                let mut found = extract(item, &inner.as_object().cloned().unwrap_or_default());
                if let Some(found) = found.as_object_mut() {
                    // The keys make it this item, whoever manages them.
                    found.extend(keys);
                }
                return Some(found);
            }
        } else if key.strip_prefix("v:").and_then(parse).is_some_and(|value| value == *item) {
            return Some(item.clone());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(fields: Value, spec: Value) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "shop", "namespace": "dev", "managedFields": [
                {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields},
                {"manager": FIELD_MANAGER, "operation": "Apply", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                {"manager": "other", "operation": "Update", "fieldsV1": {"f:spec": {"f:paused": {}}}},
            ]},
            "spec": spec
        })
    }

    #[test]
    fn what_we_manage_gets_its_former_values() {
        let before = object(
            json!({"f:spec": {"f:a": {}, "f:list": {"k:{\"name\":\"x\"}": {".": {}, "f:name": {}, "f:image": {}}}, "f:gone": {}}}),
            json!({"a": 1, "gone": 2, "paused": true, "replicas": 3, "grace": 30,
                "list": [{"name": "side", "image": "s"}, {"name": "x", "image": "old", "policy": "Always"}]}),
        );
        let after = object(
            json!({"f:spec": {"f:a": {}, "f:grace": {}, "f:new": {}, "f:list": {"k:{\"name\":\"x\"}": {"f:image": {}, "f:env": {}}}}}),
            json!({"a": 2, "new": 1, "grace": 5, "list": [{"name": "side"}, {"name": "x", "image": "new", "env": []}]}),
        );
        assert_eq!(
            former(&before, &after),
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop", "namespace": "dev"},
                "spec": {"a": 1, "gone": 2, "grace": 30, "list": [{"name": "x", "image": "old"}]}
            })
        );
    }

    #[test]
    fn sets_and_whole_values_are_taken_as_they_are() {
        let fields = json!({"f:finalizers": {"v:\"a\"": {}}, "f:whole": {}, "f:empty": {".": {}}, "f:none": {}});
        let value = json!({"finalizers": ["a", "b"], "whole": {"x": [1]}, "empty": {"theirs": 1}});
        assert_eq!(extract(&value, fields.as_object().unwrap()), json!({"finalizers": ["a"], "whole": {"x": [1]}, "empty": {}}));
    }

    proptest::proptest! {
        /// Fields of all of an object give the object.
        #[test]
        fn all_fields_are_the_whole(a in 0..9, names in proptest::collection::btree_set("[a-d]", 0..4)) {
            let items: Vec<Value> = names.iter().map(|name| json!({"name": name, "n": a})).collect();
            let mut keys = Map::new();
            for name in &names {
                keys.insert(format!("k:{{\"name\":\"{name}\"}}"), json!({".": {}, "f:name": {}, "f:n": {}}));
            }
            keys.insert(".".into(), json!({}));
            let fields = json!({"f:list": keys, "f:a": {}});
            let value = json!({"list": items, "a": a});
            proptest::prop_assert_eq!(extract(&value, fields.as_object().unwrap()), value);
        }
    }
}
