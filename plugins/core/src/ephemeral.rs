//! Ephemeral containers: a program beside a running container of a pod, by the
//! API alone (<https://kubernetes.io/docs/concepts/workloads/pods/ephemeral-containers/>).
//!
//! It sees the processes of one container of the pod. Kubernetes can't remove
//! it again: when its program has ended, an entry in the pod's spec remains
//! until the pod is replaced. So a program that is started here must end by
//! itself when nobody speaks to it.

mod attach;
mod error;
mod progress;

pub use attach::{Attached, attach, exec};
pub use error::EphemeralError;

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};
use kube::api::{Patch, PatchParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use progress::{Progress, progress};
use serde_json::{Value, json};
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// How long the kubelet may take to pull the image and to start the program.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a pull that failed may be tried again.
const PULL_PATIENCE: Duration = Duration::from_secs(30);

/// Between two tries to reach a container that is being started.
const BETWEEN_TRIES: Duration = Duration::from_millis(60);

/// A program to start in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Begins the name of its container; something random follows, for a name
    /// can be used once in the life of a pod.
    pub name: String,
    /// Its image, as the nodes know it.
    pub image: String,
    /// What the image's entrypoint is given.
    pub arguments: Vec<String>,
    /// The container whose processes it sees.
    pub target: String,
    /// What it may do, beyond being root in its container.
    pub capabilities: Vec<String>,
    /// Its user, in place of root: then it is confined as the Pod Security level
    /// `restricted` wants it.
    pub user: Option<i64>,
}

/// Starts a program and waits until it runs; answers its container's name.
///
/// The kubelet tells of a container that runs only when it has looked at all of them
/// the next time, a second or two later. So a command of the image that prints
/// something is tried meanwhile, such as one that tells its version.
///
/// # Errors
/// [`EphemeralError`]; except for refusals by the API the container is listed in
/// the pod from then on.
pub async fn start(client: &Client, namespace: &str, pod: &str, program: &Program, trial: &[&str]) -> Result<String, EphemeralError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let name = format!("{}-{}", program.name, random_suffix());
    let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": [container(&name, program)]}}));
    pods.patch_ephemeral_containers(pod, &PatchParams::default(), &patch)
        .await
        .map_err(|error| error::of_request(error, namespace, pod, "add an ephemeral container to"))?;
    let trial: Vec<String> = trial.iter().map(|word| (*word).to_owned()).collect();
    let decided = tokio::select! {
        () = answers(client, namespace, (pod, &name), &trial) => Progress::Running,
        decided = decided(&pods, pod, &name) => decided?,
    };
    let pod = pod.to_owned();
    match decided {
        Progress::Running => Ok(name),
        Progress::Gone => Err(EphemeralError::Gone { pod }),
        Progress::Failed(reason) | Progress::Pulling(reason) => {
            Err(EphemeralError::NotStarted { pod, image: program.image.clone(), reason })
        }
        Progress::Ended(reason) => Err(EphemeralError::Ended { pod, reason }),
        Progress::Waiting(_) => Err(EphemeralError::TimedOut { pod, container: name, patience: PATIENCE }),
    }
}

/// Ends when a command in a container has printed something; never where that may
/// not be tried.
async fn answers(client: &Client, namespace: &str, (pod, container): (&str, &str), trial: &[String]) {
    loop {
        tokio::time::sleep(BETWEEN_TRIES).await;
        match exec(client, namespace, pod, container, trial).await {
            // The API server accepts it before the kubelet does.
            Ok(mut attached) => {
                if attached.stdout.read_u8().await.is_ok() {
                    return;
                }
            }
            Err(EphemeralError::Forbidden { .. }) => std::future::pending().await,
            Err(error) => tracing::trace!(%error, container, "not there yet"),
        }
    }
}

/// What became of a start; undecided only when patience ran out.
async fn decided(pods: &Api<Pod>, pod: &str, name: &str) -> Result<Progress, EphemeralError> {
    let failed = |error| EphemeralError::Watch { pod: pod.to_owned(), source: Box::new(error) };
    let is_decided = |pod: Option<&Pod>| !matches!(progress(pod, name), Progress::Waiting(_) | Progress::Pulling(_));
    match tokio::time::timeout(PULL_PATIENCE, await_condition(pods.clone(), pod, is_decided)).await {
        Ok(Ok(seen)) => return Ok(progress(seen.as_ref(), name)),
        Ok(Err(error)) => return Err(failed(error)),
        Err(_) => {}
    }
    // A pull that goes on may take longer than one that only failed so far.
    let is_decided = |pod: Option<&Pod>| !matches!(progress(pod, name), Progress::Waiting(_));
    match tokio::time::timeout(PATIENCE.saturating_sub(PULL_PATIENCE), await_condition(pods.clone(), pod, is_decided)).await {
        Ok(Ok(seen)) => Ok(progress(seen.as_ref(), name)),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Ok(Progress::Waiting(String::new())),
    }
}

/// The ephemeral container of an earlier start that still runs such a program,
/// whatever registry its image came from.
pub fn running(pod: &Pod, program: &Program) -> Option<String> {
    let is_such = |container: &&EphemeralContainer| {
        let security = container.security_context.as_ref();
        let capabilities = security.and_then(|security| security.capabilities.as_ref()).and_then(|set| set.add.as_deref());
        container.name.strip_prefix(program.name.as_str()).is_some_and(|rest| rest.starts_with('-'))
            && container.image.as_deref().map(without_registry) == Some(without_registry(&program.image))
            && container.target_container_name.as_deref() == Some(program.target.as_str())
            && capabilities.unwrap_or_default() == program.capabilities.as_slice()
            && security.and_then(|security| security.run_as_user) == Some(program.user.unwrap_or(0))
    };
    let containers = pod.spec.as_ref()?.ephemeral_containers.as_deref().unwrap_or_default();
    let mut such = containers.iter().filter(is_such).map(|container| container.name.clone());
    such.rfind(|name| progress(Some(pod), name) == Progress::Running)
}

fn without_registry(image: &str) -> &str {
    image.rsplit('/').next().unwrap_or(image)
}

/// The container. Root, whatever the pod says of its own containers, but with
/// the named capabilities only.
fn container(name: &str, program: &Program) -> Value {
    let mut container = json!({
        "name": name,
        "image": program.image,
        "imagePullPolicy": "IfNotPresent",
        "args": program.arguments,
        "targetContainerName": program.target,
        "stdin": true,
        // The end of the one connection is the end of its input.
        "stdinOnce": true,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "allowPrivilegeEscalation": false,
            // The agent keeps there what it is to put back.
            "readOnlyRootFilesystem": false,
            "capabilities": {"drop": ["ALL"], "add": program.capabilities},
        },
    });
    if let Some(user) = program.user {
        let security = &mut container["securityContext"];
        security["runAsUser"] = json!(user);
        security["runAsGroup"] = json!(user);
        security["runAsNonRoot"] = json!(user != 0);
        security["seccompProfile"] = json!({"type": "RuntimeDefault"});
    }
    container
}

/// Five of the characters that a name may have.
fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    // The standard library's own source of randomness: its hash maps' keys.
    let mut number = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let mut next = || {
        let letter = ALPHABET[(number % ALPHABET.len() as u64) as usize];
        number /= ALPHABET.len() as u64;
        char::from(letter)
    };
    std::iter::repeat_with(&mut next).take(5).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_asks_for_no_more_than_it_needs() {
        let program = Program {
            name: "devloop-agent".to_owned(),
            image: "localhost:5001/agent:1".to_owned(),
            arguments: vec!["serve".to_owned()],
            target: "web".to_owned(),
            capabilities: vec!["SYS_PTRACE".to_owned()],
            user: None,
        };
        let made = container("devloop-agent-x", &program);
        assert_eq!(made["securityContext"]["capabilities"], json!({"drop": ["ALL"], "add": ["SYS_PTRACE"]}));
        assert_eq!(made["securityContext"].get("privileged"), None);
        assert_eq!(made["targetContainerName"], "web");
        // It is a container as the API knows it.
        let parsed: k8s_openapi::api::core::v1::EphemeralContainer = serde_json::from_value(made.clone()).unwrap();
        assert_eq!(serde_json::to_value(parsed).unwrap(), made);
    }

    #[test]
    fn a_container_that_runs_already_is_found_if_it_is_the_same() {
        let program = Program {
            name: "devloop-debug".to_owned(),
            image: "debug:1".to_owned(),
            arguments: Vec::new(),
            target: "web".to_owned(),
            capabilities: Vec::new(),
            user: Some(1000),
        };
        let made = |name: &str, program: &Program| container(name, program);
        let status =
            |name: &str, state: Value| json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [], "ephemeralContainers": [
                made("devloop-debug-a", &program),
                made("devloop-debug-b", &program),
                made("devloop-debug-c", &Program { image: "debug:2".to_owned(), ..program.clone() }),
            ]},
            "status": {"ephemeralContainerStatuses": [
                status("devloop-debug-a", json!({"running": {}})),
                status("devloop-debug-b", json!({"terminated": {"exitCode": 0, "startedAt": "2026-01-01T00:00:00Z"}})),
                status("devloop-debug-c", json!({"running": {}})),
            ]},
        }))
        .unwrap();
        assert_eq!(running(&pod, &program).as_deref(), Some("devloop-debug-a"));
        assert_eq!(running(&pod, &Program { user: None, ..program.clone() }), None);
        assert_eq!(running(&pod, &Program { target: "other".to_owned(), ..program }), None);
    }

    #[test]
    fn names_differ_and_fit_a_label() {
        let names: std::collections::HashSet<String> = std::iter::repeat_with(random_suffix).take(200).collect();
        assert!(names.len() > 190, "{}", names.len());
        assert!(names.iter().all(|name| name.len() == 5 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())));
    }
}
