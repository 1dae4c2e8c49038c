//! The supervisor, put before a container's own program: pure.

use super::error::PlanError;
use super::plan::Draft;
use serde_json::{Value, json};
use std::time::Duration;

/// The volume that the supervisor is in.
const VOLUME: &str = "devloop";
/// Where the containers see it.
const FOLDER: &str = "/devloop";
/// The supervisor, as the containers see it.
pub(super) const PROGRAM: &str = "/devloop/devloop-agent";
/// What brings it there.
const CONTAINER: &str = "devloop-agent";

/// A user without rights, for a pod that names none; nobody, on most systems.
const NOBODY: i64 = 65_534;

/// Puts container `name` under a supervisor. It then runs the command that the
/// template says, else `seen`.
pub(super) fn edit(draft: &mut Draft<'_>, name: &str, image: &str, seen: &[String], grace: Duration) -> Result<(), PlanError> {
    let (object, container) = (draft.name.clone(), draft.container(name));
    if windows(draft) {
        return Err(PlanError::Windows { object });
    }
    let words = |field: &str| -> Vec<Value> { draft.get(&container.field(field)).and_then(Value::as_array).cloned().unwrap_or_default() };
    let (command, arguments) = (words("command"), words("args"));
    if command.first().is_some_and(|program| program == PROGRAM) {
        return Err(PlanError::Supervised { object, container: name.to_owned() });
    }
    let program: Vec<Value> = if command.is_empty() {
        // As it was seen: not to be expanded again.
        seen.iter().map(|word| word.replace('$', "$$").into()).collect()
    } else {
        command.into_iter().chain(arguments).collect()
    };
    let Some(shown) = program.first().and_then(Value::as_str).map(str::to_owned) else {
        return Err(PlanError::NoCommand { object, container: name.to_owned() });
    };

    let pod = draft.pod();
    let mount = json!({"name": VOLUME, "mountPath": FOLDER, "readOnly": true});
    let init = init_container(draft, &container, image);
    let places = [
        (pod.field("volumes").item("name", VOLUME), json!({"name": VOLUME, "emptyDir": {}}), format!("a volume {VOLUME:?}")),
        (pod.field("initContainers").item("name", CONTAINER), init, format!("an init container {CONTAINER:?}")),
        (container.field("volumeMounts").item("mountPath", FOLDER), mount, format!("a volume at {FOLDER}")),
    ];
    for (path, value, what) in places {
        let ours_already = draft.is_edited(&path);
        match draft.get(&path) {
            Some(there) if !ours_already => {
                tracing::debug!(%there, "in the way of the supervisor");
                return Err(PlanError::Taken { object, what });
            }
            // The one that another container needs, too.
            Some(there) if there["image"] == value["image"] => {}
            Some(_) => return Err(PlanError::Contradiction(format!("two images of the agent for {object}"))),
            None => draft.edit(path, Some(value))?,
        }
    }
    let supervisor = [PROGRAM, "supervise", "--grace", &seconds(grace), "--"].map(Value::from);
    draft.edit(container.field("command"), Some(supervisor.into_iter().chain(program).collect()))?;
    draft.edit(container.field("args"), None)?;
    let seconds = seconds(grace);
    draft.say(format!(
        "container {name}: {shown} runs under a supervisor that restarts it on demand, {seconds} s after SIGTERM at the latest"
    ));
    draft.say(format!(
        "init container {CONTAINER} ({image}) brings the supervisor, in an emptyDir that container {name} sees at {FOLDER}, read-only"
    ));
    Ok(())
}

/// Whether a container of this object is under a supervisor.
pub(super) fn is_supervised(pod: &Value) -> bool {
    pod["containers"].as_array().into_iter().flatten().any(|container| container["command"][0] == PROGRAM)
}

fn seconds(grace: Duration) -> String {
    grace.as_secs_f64().to_string()
}

fn windows(draft: &Draft<'_>) -> bool {
    let pod = draft.pod();
    let is = |value: Option<&Value>| value.is_some_and(|value| value == "windows");
    is(draft.get(&pod.field("os").field("name"))) || is(draft.get(&pod.field("nodeSelector").field("kubernetes.io/os")))
}

/// It passes the strictest of Kubernetes' pod security standards, and leaves the
/// pod's class of service what it is.
fn init_container(draft: &Draft<'_>, container: &super::path::Path, image: &str) -> Value {
    let contexts = [container.field("securityContext"), draft.pod().field("securityContext")];
    // As the container that it works for, which is known to be let in.
    let as_container = |field: &str| contexts.iter().find_map(|context| draft.get(&context.field(field)));
    let id = |field: &str| as_container(field).and_then(Value::as_i64).filter(|id| *id > 0).unwrap_or(NOBODY);
    let seccomp = as_container("seccompProfile").cloned().unwrap_or_else(|| json!({"type": "RuntimeDefault"}));
    let mut made = json!({
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["copy-to", PROGRAM],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": VOLUME, "mountPath": FOLDER}],
        "securityContext": {
            "runAsUser": id("runAsUser"),
            "runAsGroup": id("runAsGroup"),
            "runAsNonRoot": true,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": seccomp,
        },
    });
    let containers = draft.get(&draft.pod().field("containers")).and_then(Value::as_array);
    let asks = |container: &Value| ["requests", "limits"].iter().any(|kind| container["resources"][kind].is_object());
    if containers.into_iter().flatten().any(asks) {
        let little = json!({"cpu": "50m", "memory": "32Mi"});
        made["resources"] = json!({"requests": little, "limits": little});
    }
    made
}
