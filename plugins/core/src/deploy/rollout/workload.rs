//! What a workload of any kind says about itself.

use crate::target::Kind;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

/// What a workload says about itself, in the same words for every kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Version of its specification.
    pub generation: i64,
    /// The version that the rest here is about.
    pub observed_generation: i64,
    /// Pods that are asked for.
    pub desired: i64,
    /// Pods of the newest version.
    pub updated: i64,
    /// Pods that are ready, and have been for as long as they must.
    pub available: i64,
    /// Pods of all versions.
    pub total: i64,
    /// The conditions that are true.
    pub conditions: Vec<Condition>,
}

/// A true condition of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `ReplicaFailure`, `Complete`, ...
    pub kind: String,
    /// A sentence for people.
    pub message: String,
    /// Since when.
    pub since: Option<Timestamp>,
}

impl Workload {
    /// Reads a workload of a kind that has pods of its own; none for others.
    pub fn read(kind: Kind, object: &DynamicObject) -> Option<Self> {
        let (spec, status) = (&object.data["spec"], &object.data["status"]);
        let number = |value: &Value| value.as_i64().unwrap_or(0);
        let replicas = spec["replicas"].as_i64().unwrap_or(1);
        let (desired, updated, available, total) = match kind {
            Kind::Deployment => (replicas, &status["updatedReplicas"], &status["availableReplicas"], &status["replicas"]),
            Kind::StatefulSet => (replicas, &status["updatedReplicas"], &status["availableReplicas"], &status["replicas"]),
            Kind::ReplicaSet => (replicas, &status["replicas"], &status["availableReplicas"], &status["replicas"]),
            Kind::DaemonSet => (
                number(&status["desiredNumberScheduled"]),
                &status["updatedNumberScheduled"],
                &status["numberAvailable"],
                &status["currentNumberScheduled"],
            ),
            Kind::Job => (1, &status["active"], &status["ready"], &status["active"]),
            Kind::Pod | Kind::Service => return None,
        };
        let conditions = status["conditions"].as_array().into_iter().flatten().filter(|condition| condition["status"] == "True");
        Some(Self {
            kind,
            name: object.name_any(),
            generation: object.metadata.generation.unwrap_or(0),
            observed_generation: number(&status["observedGeneration"]),
            desired,
            updated: number(updated),
            available: number(available),
            total: number(total),
            conditions: conditions
                .map(|condition| Condition {
                    kind: condition["type"].as_str().unwrap_or_default().to_owned(),
                    message: condition["message"].as_str().unwrap_or_default().to_owned(),
                    since: condition["lastTransitionTime"].as_str().and_then(|time| time.parse().ok()),
                })
                .collect(),
        })
    }

    /// The condition of that type, if it is true.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn workloads_of_all_kinds_are_read_alike() {
        let deployment = object(json!({
            "metadata": {"name": "shop", "generation": 3},
            "spec": {"replicas": 2},
            "status": {"observedGeneration": 3, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 1, "conditions": [
                {"type": "ReplicaFailure", "status": "True", "message": "quota", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "Available", "status": "False"}]}
        }));
        let workload = Workload::read(Kind::Deployment, &deployment).unwrap();
        assert_eq!((workload.desired, workload.updated, workload.available, workload.total), (2, 2, 1, 3));
        assert_eq!(workload.conditions.len(), 1);
        assert_eq!(workload.condition("ReplicaFailure").unwrap().message, "quota");
        let daemons = object(json!({"metadata": {"name": "d"}, "status": {"desiredNumberScheduled": 1, "numberAvailable": 1}}));
        assert_eq!(Workload::read(Kind::DaemonSet, &daemons).unwrap().desired, 1);
        assert_eq!(Workload::read(Kind::Service, &daemons), None);
    }
}
