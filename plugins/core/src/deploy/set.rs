//! What a project has in a cluster, so that what it no longer has can be found:
//! an ApplySet, the convention of kubectl's own `apply --prune --applyset`
//! (<https://github.com/kubernetes/enhancements/tree/master/keps/sig-cli/3659-kubectl-apply-prune>).
//!
//! Each object carries the set's id as a label; a ConfigMap, the set's parent,
//! says which kinds and namespaces to look in. Pure.

use super::manifest::Manifest;
use super::order::reason_to_keep;
use super::{FIELD_MANAGER, ObjectId};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// On the members.
pub(super) const PART_OF_LABEL: &str = "applyset.kubernetes.io/part-of";
const ID_LABEL: &str = "applyset.kubernetes.io/id";
const TOOLING: &str = "applyset.kubernetes.io/tooling";
const KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";
const NAMESPACES: &str = "applyset.kubernetes.io/additional-namespaces";
/// What was last applied to an object, as a hash.
pub(super) const HASH_ANNOTATION: &str = "devloop.dev/applied-hash";

/// What a project has in a namespace of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplySet {
    /// The parent's name.
    name: String,
    /// The parent's namespace.
    namespace: String,
    id: String,
}

impl ApplySet {
    /// The set of a project: `name` is for people, `identity` tells it from
    /// others of that name.
    pub fn new(name: &str, identity: &str, namespace: &str) -> Self {
        let plain: String =
            name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' }).collect();
        let plain = plain.trim_matches('-');
        let plain = if plain.is_empty() { "project" } else { &plain[..plain.len().min(40)] };
        let hash = blake3::hash(identity.as_bytes()).to_hex();
        let name = format!("devloop-{}-{}", plain.trim_matches('-'), &hash[..8]);
        Self { id: id_of(&name, namespace), name, namespace: namespace.to_owned() }
    }

    /// The parent's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The parent's namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Selects the members.
    pub(super) fn selector(&self) -> String {
        format!("{PART_OF_LABEL}={}", self.id)
    }

    /// Marks an object as a member, and with what is applied to it.
    pub(super) fn stamp(&self, manifest: &mut Manifest, default_namespace: &str) {
        mark(manifest, "labels", PART_OF_LABEL, &self.id);
        let text = format!("{default_namespace}\0{}", manifest.object);
        let hash = blake3::hash(text.as_bytes()).to_hex();
        mark(manifest, "annotations", HASH_ANNOTATION, &hash[..32]);
    }

    /// The parent as it is applied.
    pub(super) fn parent(&self, reach: &Reach) -> Value {
        let kinds: Vec<String> =
            reach.kinds.iter().map(|(kind, group)| if group.is_empty() { kind.clone() } else { format!("{kind}.{group}") }).collect();
        let namespaces: Vec<&str> = reach.namespaces.iter().map(String::as_str).filter(|namespace| *namespace != self.namespace).collect();
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": {ID_LABEL: self.id},
                "annotations": {
                    TOOLING: concat!("devloop/v", env!("CARGO_PKG_VERSION")),
                    KINDS: kinds.join(","),
                    NAMESPACES: namespaces.join(","),
                },
            },
        })
    }
}

/// The convention fixes it: the parent's NAME.NAMESPACE.KIND.GROUP, hashed.
fn id_of(name: &str, namespace: &str) -> String {
    let hash = Sha256::digest(format!("{name}.{namespace}.ConfigMap."));
    format!("applyset-{}-v1", URL_SAFE_NO_PAD.encode(hash))
}

fn mark(manifest: &mut Manifest, field: &str, key: &str, value: &str) {
    let marks = &mut manifest.object["metadata"][field];
    // The server will say what is wrong with another value.
    if marks.is_null() || marks.is_object() {
        marks[key] = value.into();
    }
}

/// Where members of a set may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// Kind and group.
    pub(super) kinds: BTreeSet<(String, String)>,
    pub(super) namespaces: BTreeSet<String>,
}

impl Reach {
    /// What a parent says.
    pub(super) fn of_parent(parent: &Value) -> Self {
        let annotations = &parent["metadata"]["annotations"];
        let list = |key: &str| -> Vec<String> {
            let text = annotations[key].as_str().unwrap_or_default();
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        };
        let kinds = list(KINDS).into_iter().map(|kind| match kind.split_once('.') {
            Some((kind, group)) => (kind.to_owned(), group.to_owned()),
            None => (kind, String::new()),
        });
        let own = parent["metadata"]["namespace"].as_str().map(str::to_owned);
        Self { kinds: kinds.collect(), namespaces: list(NAMESPACES).into_iter().chain(own).collect() }
    }

    pub(super) fn of_objects<'a>(ids: impl IntoIterator<Item = &'a ObjectId>) -> Self {
        let mut reach = Self::default();
        for id in ids {
            reach.kinds.insert((id.kind.clone(), id.group.clone()));
            reach.namespaces.extend(id.namespace.clone());
        }
        reach
    }

    pub(super) fn joined(mut self, other: Self) -> Self {
        self.kinds.extend(other.kinds);
        self.namespaces.extend(other.namespaces);
        self
    }
}

/// An object that this project applied and no longer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Which.
    pub id: ObjectId,
    /// Why it is left alone all the same, if it is.
    pub kept: Option<&'static str>,
}

/// The members that are no manifest's. What we did not apply, what belongs to
/// another object and what is going away already are none.
pub(super) fn orphans(members: &BTreeMap<ObjectId, Value>, manifests: &BTreeSet<ObjectId>) -> Vec<Orphan> {
    let ours = |object: &Value| {
        let managers = object["metadata"]["managedFields"].as_array().into_iter().flatten();
        let applied = managers.clone().any(|entry| entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply");
        let owned = object["metadata"]["ownerReferences"].as_array().is_some_and(|owners| !owners.is_empty());
        applied && !owned && object["metadata"]["deletionTimestamp"].is_null()
    };
    let left = members.iter().filter(|(id, object)| !manifests.contains(*id) && ours(object));
    left.map(|(id, _)| Orphan { id: id.clone(), kept: reason_to_keep(&id.kind) }).collect()
}

/// Whether what a manifest says is in force in the object on the server, so that
/// applying it would change nothing: it is what was last applied, and nobody has
/// changed a value of it since. When in doubt, it is not.
pub(super) fn in_force(manifest: &Manifest, object: &Value) -> bool {
    let hash = &manifest.object["metadata"]["annotations"][HASH_ANNOTATION];
    let same = hash.is_string() && object["metadata"]["annotations"][HASH_ANNOTATION] == *hash;
    same && object["metadata"]["deletionTimestamp"].is_null() && holds(object, &manifest.object)
}

/// Whether all that is wanted is there, maybe among other things.
fn holds(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| there.get(key).is_some_and(|there| holds(there, value)))
        }
        (Value::Array(there), Value::Array(wanted)) if there.len() == wanted.len() => {
            there.iter().zip(wanted).all(|(there, wanted)| holds(there, wanted))
        }
        // An admission controller or a person added items beside ours.
        (Value::Array(there), Value::Array(wanted)) => wanted.iter().all(|wanted| {
            let name = &wanted["name"];
            name.is_string() && there.iter().any(|there| there["name"] == *name && holds(there, wanted))
        }),
        // It means "not to be there", which an object does not show.
        (_, Value::Null) => false,
        (there, wanted) => there == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(kind: &str, group: &str, name: &str) -> ObjectId {
        ObjectId { group: group.into(), kind: kind.into(), namespace: Some("dev".into()), name: name.into() }
    }

    #[test]
    fn the_parent_is_as_the_convention_says_and_reads_back() {
        let set = ApplySet::new("My Shop", "git@host:shop", "dev");
        assert_eq!(set.name, format!("devloop-my-shop-{}", &blake3::hash(b"git@host:shop").to_hex()[..8]));
        assert_ne!(set.id, ApplySet::new("My Shop", "git@host:shop", "prod").id);
        assert_ne!(set.name, ApplySet::new("My Shop", "git@host:other", "dev").name);
        let other = ObjectId { namespace: Some("extra".into()), ..id("Deployment", "apps", "a") };
        let reach = Reach::of_objects([&id("ConfigMap", "", "a"), &other]);
        let parent = set.parent(&reach);
        assert_eq!(parent["metadata"]["annotations"][KINDS], "ConfigMap,Deployment.apps");
        assert_eq!(parent["metadata"]["annotations"][NAMESPACES], "extra");
        assert_eq!(Reach::of_parent(&parent), reach);
        assert_eq!(ApplySet::new("---", "", "dev").name[..16], *"devloop-project-");
    }

    #[test]
    fn the_id_is_what_kubectl_makes_of_the_parent() {
        // From `printf 'web.dev.ConfigMap.' | openssl dgst -sha256 -binary | base64`.
        assert_eq!(id_of("web", "dev"), "applyset-vLIULDnQH5I4tDZAIXRIyHda3pMns984Aw63BBzphc8-v1");
    }

    #[test]
    fn only_what_we_applied_and_nothing_owns_is_an_orphan() {
        let object = |manager: &str, operation: &str, more: Value| {
            let mut object = json!({"metadata": {"managedFields": [{"manager": manager, "operation": operation}]}});
            object["metadata"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            object
        };
        let members = BTreeMap::from([
            (id("ConfigMap", "", "gone"), object(FIELD_MANAGER, "Apply", json!({}))),
            (id("ConfigMap", "", "there"), object(FIELD_MANAGER, "Apply", json!({}))),
            (id("ConfigMap", "", "theirs"), object("kubectl", "Update", json!({}))),
            (id("ConfigMap", "", "owned"), object(FIELD_MANAGER, "Apply", json!({"ownerReferences": [{"name": "x"}]}))),
            (id("ConfigMap", "", "going"), object(FIELD_MANAGER, "Apply", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}))),
            (id("PersistentVolumeClaim", "", "data"), object(FIELD_MANAGER, "Apply", json!({}))),
        ]);
        let found = orphans(&members, &BTreeSet::from([id("ConfigMap", "", "there")]));
        let found: Vec<(&str, bool)> = found.iter().map(|orphan| (orphan.id.name.as_str(), orphan.kept.is_some())).collect();
        assert_eq!(found, [("gone", false), ("data", true)]);
    }

    fn stamped(object: Value) -> Manifest {
        let mut manifest = Manifest { object, path: "a.yaml".into(), document: 1, line: 1 };
        ApplySet::new("a", "a", "dev").stamp(&mut manifest, "dev");
        manifest
    }

    #[test]
    fn only_what_is_as_it_was_applied_is_in_force() {
        let manifest = stamped(json!({"kind": "X", "metadata": {"name": "a"}, "spec": {"list": [{"name": "a", "x": 1}], "plain": ["b"]}}));
        let live = |change: fn(&mut Value)| {
            let mut live = manifest.object.clone();
            live["metadata"]["uid"] = "1".into();
            live["spec"]["replicas"] = 3.into();
            change(&mut live);
            in_force(&manifest, &live)
        };
        assert!(live(|_| {}));
        assert!(live(|object| object["spec"]["list"] = json!([{"name": "side"}, {"name": "a", "x": 1, "y": 2}])));
        assert!(!live(|object| object["spec"]["list"][0]["x"] = 2.into()));
        assert!(!live(|object| object["spec"]["plain"] = json!(["a", "b"])));
        assert!(!live(|object| object["metadata"]["annotations"] = json!({})));
        assert!(!live(|object| object["metadata"]["deletionTimestamp"] = "now".into()));
        let other = stamped(json!({"kind": "X", "metadata": {"name": "a"}, "spec": {"list": []}}));
        assert!(!in_force(&other, &manifest.object), "what is not wanted any more has to go");
    }

    proptest::proptest! {
        #[test]
        fn an_object_holds_itself(keys in proptest::collection::vec("[a-c]", 0..4), number in 0..9i64) {
            let mut object = json!({});
            for key in keys {
                object[key.as_str()] = json!({"n": number, "list": [number, {"name": key.clone()}]});
            }
            proptest::prop_assert!(holds(&object, &object));
        }
    }
}
