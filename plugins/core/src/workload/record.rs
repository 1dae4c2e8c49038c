//! What was changed in a workload, and how to undo exactly that: pure.

use super::path::Path;
use super::supervise::is_supervised;
use super::{Edit, ObjectIdentity, plan::POD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What was changed in a workload: enough to undo it without knowing more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Which one.
    #[serde(flatten)]
    pub object: ObjectIdentity,
    /// What was there at each place, and what we wrote.
    pub edits: Vec<Edit>,
    /// Who managed which of its fields before (`metadata.managedFields`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) managers: Vec<Value>,
}

/// What became of a workload that was to be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It was deleted, or is another of the same name: nothing was ours.
    Gone,
    /// All of ours is undone, but for what is named.
    Done {
        /// The places that are as before, by us; none when they were already.
        put_back: Vec<String>,
        /// The places that somebody else changed since; they are as they were
        /// found, and why.
        left: Vec<String>,
    },
}

/// An object without our changes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Undone {
    pub(super) object: Value,
    pub(super) put_back: Vec<String>,
    pub(super) left: Vec<String>,
}

/// Undoes the edits in an object as it is now.
pub(super) fn undo(object: &Value, edits: &[Edit]) -> Undone {
    let mut undone = Undone { object: object.clone(), put_back: Vec::new(), left: Vec::new() };
    // Items that we added may be needed by values that somebody changed: those
    // are decided on first.
    let (added, values): (Vec<&Edit>, Vec<&Edit>) = edits.iter().partition(|edit| edit.before.is_none() && edit.path.is_item());
    for edit in values {
        undone.take_back(edit);
    }
    let needed = Path::new(POD).get(&undone.object).is_some_and(is_supervised);
    for edit in added.into_iter().rev() {
        if needed && !edit.path.has("env") && edit.path.get(&undone.object).is_some() {
            undone.left.push(format!("{}: a container still needs it", edit.path));
        } else {
            undone.take_back(edit);
        }
    }
    undone
}

impl Undone {
    fn take_back(&mut self, edit: &Edit) {
        let Edit { path, before, after } = edit;
        let now = path.get(&self.object);
        if now == before.as_ref() || !path.has_holder(&self.object) {
            return;
        }
        let ours = match (now, after) {
            (Some(now), Some(after)) => covers(now, after),
            (now, after) => now.is_none() && after.is_none(),
        };
        if ours && path.set(&mut self.object, before.clone()) {
            self.put_back.push(path.to_string());
        } else {
            self.left.push(format!("{path}: somebody else changed it"));
        }
    }
}

/// Whether a value is what we wrote: the API server adds what has a default.
fn covers(now: &Value, wrote: &Value) -> bool {
    match (now, wrote) {
        (Value::Object(now), Value::Object(wrote)) => wrote.iter().all(|(name, wrote)| now.get(name).is_some_and(|now| covers(now, wrote))),
        (Value::Array(now), Value::Array(wrote)) => {
            now.len() == wrote.len() && now.iter().zip(wrote).all(|(now, wrote)| covers(now, wrote))
        }
        (now, wrote) => now == wrote,
    }
}
