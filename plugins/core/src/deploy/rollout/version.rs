//! Which of a workload's versions is the newest, and which pods are of it.

use super::workload::Workload;
use crate::target::Kind;
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::Value;

/// How the pods of a workload's newest version are told from older ones.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum VersionLabel {
    /// There is only one version.
    Any,
    /// No pod of it exists yet.
    Unknown,
    /// By a label that the controller gives them.
    Is(&'static str, String),
}

/// What the pod template of a ReplicaSet has in addition to the Deployment's.
const HASH: &str = "pod-template-hash";

/// The Deployment controller finds its newest ReplicaSet the same way: it has the
/// same template but for the hash.
fn newest_set<'a>(object: &DynamicObject, mut replica_sets: impl Iterator<Item = &'a DynamicObject>) -> Option<&'a DynamicObject> {
    replica_sets.find(|set| {
        let mut template = set.data["spec"]["template"].clone();
        if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.remove(HASH);
        }
        let owned = set.owner_references().iter().any(|owner| Some(&owner.uid) == object.metadata.uid.as_ref());
        owned && template == object.data["spec"]["template"]
    })
}

/// A Deployment says that pods are refused whichever of its versions they are of;
/// only those of the newest count.
pub(super) fn refusals_of_newest<'a>(
    workload: &mut Workload,
    object: &DynamicObject,
    replica_sets: impl Iterator<Item = &'a DynamicObject>,
) {
    workload.conditions.retain(|condition| condition.kind != "ReplicaFailure");
    let newest = newest_set(object, replica_sets).and_then(|set| Workload::read(Kind::ReplicaSet, set));
    workload.conditions.extend(newest.into_iter().flat_map(|set| set.conditions).filter(|condition| condition.kind == "ReplicaFailure"));
}

pub(super) fn version_label<'a>(kind: Kind, object: &DynamicObject, replica_sets: impl Iterator<Item = &'a DynamicObject>) -> VersionLabel {
    match kind {
        Kind::Deployment => {
            let hash = newest_set(object, replica_sets).and_then(|set| set.labels().get(HASH).cloned());
            hash.map_or(VersionLabel::Unknown, |hash| VersionLabel::Is(HASH, hash))
        }
        Kind::StatefulSet => match object.data["status"]["updateRevision"].as_str() {
            Some(revision) => VersionLabel::Is("controller-revision-hash", revision.to_owned()),
            None => VersionLabel::Unknown,
        },
        Kind::DaemonSet => match object.annotations().get("deprecated.daemonset.template.generation") {
            Some(generation) => VersionLabel::Is("pod-template-generation", generation.clone()),
            None => VersionLabel::Any,
        },
        _ => VersionLabel::Any,
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
    fn the_newest_replica_set_is_the_one_with_the_same_template() {
        let deployment = object(
            json!({"metadata": {"name": "shop", "uid": "u"}, "spec": {"template": {"metadata": {"labels": {"app": "shop"}}, "spec": {"x": 2}}}}),
        );
        let set = |hash: &str, x: i32, owner: &str| {
            object(json!({
                "metadata": {"name": hash, "labels": {"pod-template-hash": hash}, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": owner}]},
                "spec": {"template": {"metadata": {"labels": {"app": "shop", "pod-template-hash": hash}}, "spec": {"x": x}}}
            }))
        };
        let (old, new, other) = (set("a", 1, "u"), set("b", 2, "u"), set("c", 2, "v"));
        assert_eq!(version_label(Kind::Deployment, &deployment, [&other, &old].into_iter()), VersionLabel::Unknown);
        assert_eq!(
            version_label(Kind::Deployment, &deployment, [&other, &old, &new].into_iter()),
            VersionLabel::Is("pod-template-hash", "b".into())
        );
    }

    #[test]
    fn only_refusals_of_the_newest_version_count() {
        let deployment = object(json!({
            "metadata": {"name": "shop", "uid": "u"}, "spec": {"template": {"spec": {"x": 2}}},
            "status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "old"}]}
        }));
        let set = |x: i32, message: &str| {
            object(json!({
                "metadata": {"name": message, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "u"}]},
                "spec": {"template": {"spec": {"x": x}}},
                "status": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": message}]}
            }))
        };
        let (old, new) = (set(1, "old"), set(2, "new"));
        let refused = |sets: &[&DynamicObject]| {
            let mut workload = Workload::read(Kind::Deployment, &deployment).unwrap();
            refusals_of_newest(&mut workload, &deployment, sets.iter().copied());
            workload.condition("ReplicaFailure").map(|condition| condition.message.clone())
        };
        assert_eq!(refused(&[&old]), None);
        assert_eq!(refused(&[&old, &new]).as_deref(), Some("new"));
    }
}
