//! What to change in a workload: pure.

use super::error::PlanError;
use super::path::Path;
use super::{Change, Edit, ObjectIdentity, Patch, supervise};
use serde_json::{Value, json};

pub(super) const POD: &str = "spec.template.spec";

/// Works out what `changes` mean for a workload as the API server describes it.
///
/// # Errors
/// [`PlanError`] when it is of a kind or in a state in which they can't be made.
pub fn plan(object: &Value, changes: &[Change]) -> Result<Patch, PlanError> {
    let identity = identify(object)?;
    let name = identity.to_string();
    check(object, &identity)?;
    let mut draft = Draft { name, before: object, object: object.clone(), edits: Vec::new(), lines: Vec::new() };
    for change in changes {
        let container = change.container();
        draft.require(container)?;
        match change {
            Change::Supervise { container, agent_image, command, grace } => {
                supervise::edit(&mut draft, container, agent_image, command, *grace)?;
            }
            Change::PauseProbes { container } => pause_probes(&mut draft, container)?,
            Change::AddOptions { container, variable, seen, options } => {
                add_options(&mut draft, container, variable, seen.as_deref(), options)?;
            }
        }
    }
    let Draft { edits, lines, .. } = draft;
    Ok(Patch { object: identity, edits, lines })
}

/// A patch that is being made.
pub(super) struct Draft<'o> {
    pub(super) name: String,
    before: &'o Value,
    pub(super) object: Value,
    edits: Vec<Edit>,
    lines: Vec<String>,
}

impl Draft<'_> {
    /// The pod that the template describes.
    pub(super) fn pod(&self) -> Path {
        Path::new(POD)
    }

    pub(super) fn container(&self, name: &str) -> Path {
        self.pod().field("containers").item("name", name)
    }

    pub(super) fn get(&self, path: &Path) -> Option<&Value> {
        path.get(&self.object)
    }

    /// Whether this place was changed by one of the changes before.
    pub(super) fn is_edited(&self, path: &Path) -> bool {
        self.edits.iter().any(|edit| edit.path == *path)
    }

    /// Notes an edit, unless all is like that already.
    pub(super) fn edit(&mut self, path: Path, after: Option<Value>) -> Result<(), PlanError> {
        if path.get(&self.object) == after.as_ref() {
            return Ok(());
        }
        if self.is_edited(&path) {
            return Err(PlanError::Contradiction(format!("two changes to {path} of {}", self.name)));
        }
        if !path.set(&mut self.object, after.clone()) {
            return Err(PlanError::Malformed(self.name.clone()));
        }
        self.edits.push(Edit { before: path.get(self.before).cloned(), after, path });
        Ok(())
    }

    /// Adds to what a person reads.
    pub(super) fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    fn require(&self, container: &str) -> Result<(), PlanError> {
        if self.get(&self.container(container)).is_some() {
            return Ok(());
        }
        let containers = self.get(&self.pod().field("containers")).and_then(Value::as_array).into_iter().flatten();
        let known = containers.filter_map(|container| container["name"].as_str()).map(str::to_owned).collect();
        Err(PlanError::NoContainer { object: self.name.clone(), container: container.to_owned(), known })
    }
}

fn identify(object: &Value) -> Result<ObjectIdentity, PlanError> {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let metadata = &object["metadata"];
    let identity = (|| {
        Some(ObjectIdentity {
            kind: text(&object["kind"])?.to_lowercase(),
            name: text(&metadata["name"])?,
            namespace: text(&metadata["namespace"])?,
            uid: text(&metadata["uid"])?,
        })
    })();
    identity.ok_or_else(|| PlanError::Malformed(text(&metadata["name"]).unwrap_or_else(|| "an object".to_owned())))
}

/// Whether a new template would reach the pods.
fn check(object: &Value, identity: &ObjectIdentity) -> Result<(), PlanError> {
    let (spec, name) = (&object["spec"], identity.to_string());
    match identity.kind.as_str() {
        "deployment" | "statefulset" | "daemonset" => {}
        kind => {
            let owners = object["metadata"]["ownerReferences"].as_array();
            let owner = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
            let owner = owner.and_then(|owner| Some(format!("{}/{}", owner["kind"].as_str()?.to_lowercase(), owner["name"].as_str()?)));
            return Err(match (kind, owner) {
                ("pod" | "replicaset", Some(owner)) => PlanError::Owned { object: name, owner },
                ("pod", None) => PlanError::BarePod { name: identity.name.clone() },
                _ => PlanError::NoRollout { object: name },
            });
        }
    }
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return Err(PlanError::Deleting { object: name });
    }
    if spec["paused"] == true {
        return Err(PlanError::Paused { object: name, namespace: identity.namespace.clone() });
    }
    let update = &spec["updateStrategy"];
    if update["type"] == "OnDelete" {
        return Err(PlanError::ByHand { object: name, strategy: "its updateStrategy is OnDelete".to_owned() });
    }
    if let Some(partition) = update["rollingUpdate"]["partition"].as_i64().filter(|partition| *partition > 0) {
        return Err(PlanError::ByHand { object: name, strategy: format!("its updateStrategy has a partition of {partition}") });
    }
    match Path::new(POD).get(object) {
        Some(pod) if pod["containers"].is_array() => Ok(()),
        _ => Err(PlanError::Malformed(name)),
    }
}

/// Takes away the probes that end a container which is being worked on. The one
/// for readiness stays: traffic must know when there is nobody to serve it.
fn pause_probes(draft: &mut Draft<'_>, name: &str) -> Result<(), PlanError> {
    let container = draft.container(name);
    let there = |draft: &Draft<'_>, probe: &str| draft.get(&container.field(probe)).is_some();
    let paused: Vec<&str> = ["livenessProbe", "startupProbe"].into_iter().filter(|probe| there(draft, probe)).collect();
    let kept = there(draft, "readinessProbe");
    if paused.is_empty() {
        draft.say(format!("container {name} has no livenessProbe or startupProbe to pause"));
        return Ok(());
    }
    for probe in &paused {
        draft.edit(container.field(probe), None)?;
    }
    let kept = if kept { "; the readinessProbe stays" } else { "" };
    draft.say(format!("container {name}: no {} during the session{kept}", paused.join(" and ")));
    Ok(())
}

/// Adds to what the template says, else to what was seen.
fn add_options(draft: &mut Draft<'_>, name: &str, variable: &str, seen: Option<&str>, options: &str) -> Result<(), PlanError> {
    let path = draft.container(name).field("env").item("name", variable);
    let joined = |before: &str| format!("{before} {options}").trim_start().to_owned();
    match draft.get(&path) {
        None => {
            // As it was seen: not to be expanded again.
            let value = joined(&seen.unwrap_or_default().replace("$(", "$$("));
            draft.edit(path, Some(json!({"name": variable, "value": value})))?;
        }
        Some(there) if there.get("valueFrom").is_some_and(|from| !from.is_null()) => {
            return Err(PlanError::FromElsewhere { object: draft.name.clone(), container: name.to_owned(), variable: variable.to_owned() });
        }
        Some(there) => {
            let value = joined(there["value"].as_str().unwrap_or_default());
            draft.edit(path.field("value"), Some(value.into()))?;
        }
    }
    draft.say(format!("container {name}: {variable} has {options:?}, too, during the session"));
    Ok(())
}
