//! Who manages which field of an object, as `metadata.managedFields` tells
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>):
//! pure.
//!
//! Whoever writes a field takes it over. When all is as before, the fields are
//! given back, or the next server-side apply by their manager would meet a
//! conflict with us.

use crate::deploy::FIELD_MANAGER;
use serde_json::{Map, Value};

pub(crate) type Fields = Map<String, Value>;

/// The managers after a restore: those of `now`, but what we took over belongs
/// to whom it belonged `before`. Nothing when that changes nothing.
pub(super) fn given_back(now: &[Value], before: &[Value]) -> Option<Vec<Value>> {
    let ours = now.iter().find(|entry| is_ours(entry))?;
    let ours_before = before.iter().find(|entry| is_ours(entry));
    let taken = without(&fields(ours), &ours_before.map(fields).unwrap_or_default());
    let mut managers: Vec<Value> = now.iter().filter(|entry| !is_ours(entry)).cloned().collect();
    managers.extend(ours_before.cloned());
    for entry in before.iter().filter(|entry| !is_ours(entry)) {
        let lost = common(&fields(entry), &taken);
        if lost.is_empty() {
            continue;
        }
        match managers.iter_mut().find(|other| same(other, entry)) {
            Some(other) => {
                let united = united(&fields(other), &lost);
                other["fieldsV1"] = Value::Object(united);
            }
            None => {
                let mut entry = entry.clone();
                entry["fieldsV1"] = Value::Object(lost);
                managers.push(entry);
            }
        }
    }
    (managers != now).then_some(managers)
}

/// Whether it is of our updates. What we apply on the server is another
/// manager's, by its operation.
fn is_ours(entry: &Value) -> bool {
    entry["manager"] == FIELD_MANAGER && entry["operation"] == "Update" && entry["subresource"].is_null()
}

fn same(one: &Value, other: &Value) -> bool {
    ["manager", "operation", "apiVersion", "subresource"].iter().all(|key| one[key] == other[key])
}

fn fields(entry: &Value) -> Fields {
    entry["fieldsV1"].as_object().cloned().unwrap_or_default()
}

/// An empty map is a field as a whole.
fn inner(value: &Value) -> Option<&Fields> {
    value.as_object().filter(|fields| !fields.is_empty())
}

fn common(one: &Fields, other: &Fields) -> Fields {
    let both = one.iter().filter_map(|(key, value)| {
        let in_other = other.get(key)?;
        match (inner(value), inner(in_other)) {
            (Some(value), Some(in_other)) => {
                Some(common(value, in_other)).filter(|fields| !fields.is_empty()).map(|fields| (key.clone(), Value::Object(fields)))
            }
            (None, None) => Some((key.clone(), value.clone())),
            _ => None,
        }
    });
    both.collect()
}

fn without(one: &Fields, other: &Fields) -> Fields {
    let rest = one.iter().filter_map(|(key, value)| match (inner(value), other.get(key).map(inner)) {
        (_, None) => Some((key.clone(), value.clone())),
        (Some(value), Some(Some(in_other))) => {
            Some(without(value, in_other)).filter(|fields| !fields.is_empty()).map(|fields| (key.clone(), Value::Object(fields)))
        }
        (Some(_), Some(None)) => Some((key.clone(), value.clone())),
        (None, Some(_)) => None,
    });
    rest.collect()
}

/// All that is in one or the other.
pub(crate) fn united(one: &Fields, other: &Fields) -> Fields {
    let mut united = one.clone();
    for (key, value) in other {
        let merged = match (united.get(key).and_then(inner), inner(value)) {
            (Some(mine), Some(theirs)) => Value::Object(self::united(mine, theirs)),
            (Some(mine), None) => Value::Object(mine.clone()),
            (None, _) => value.clone(),
        };
        united.insert(key.clone(), merged);
    }
    united
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(manager: &str, operation: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    #[test]
    fn fields_go_back_to_whom_they_belonged() {
        let web = |fields: Value| json!({"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": fields}}});
        let before = [
            entry("argocd", "Apply", web(json!({".": {}, "f:command": {}, "f:image": {}, "f:name": {}}))),
            entry("autoscaler", "Update", json!({"f:spec": {"f:replicas": {}}})),
            entry("patcher", "Update", web(json!({"f:livenessProbe": {"f:periodSeconds": {}}}))),
        ];
        let now = [
            entry("argocd", "Apply", web(json!({".": {}, "f:image": {}, "f:name": {}}))),
            entry("autoscaler", "Update", json!({"f:spec": {"f:replicas": {}}})),
            entry(FIELD_MANAGER, "Update", web(json!({"f:command": {}, "f:livenessProbe": {".": {}, "f:periodSeconds": {}}}))),
        ];
        let sorted = |mut managers: Vec<Value>| {
            managers.sort_by_key(|entry| entry["manager"].to_string());
            managers
        };
        assert_eq!(sorted(given_back(&now, &before).unwrap()), before);
        assert_eq!(given_back(&before, &before), None);
    }

    #[test]
    fn what_was_ours_before_stays_ours() {
        let ours = entry(FIELD_MANAGER, "Update", json!({"f:spec": {"f:a": {}}}));
        let applied = entry(FIELD_MANAGER, "Apply", json!({"f:spec": {"f:b": {}}}));
        let more = entry(FIELD_MANAGER, "Update", json!({"f:spec": {"f:a": {}, "f:b": {}}}));
        let given = given_back(&[more], &[ours.clone(), applied.clone()]).unwrap();
        assert_eq!(given, [ours, applied]);
    }
}
