//! What a pod says about the container that is worked on. Pure.

use devloop_core::{CommandError, Result};
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use std::collections::BTreeSet;

/// The container of a pod, while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunningContainer {
    /// The runtime's id, with its scheme.
    pub(crate) id: String,
    /// The pod's address, for the probe.
    pub(crate) address: Option<String>,
    /// The node that the pod is on.
    pub(crate) node: Option<String>,
}

/// The running container `name` of a pod; `None` while it doesn't run or the
/// pod is on its way out.
pub(crate) fn running(pod: &Pod, name: &str) -> Option<RunningContainer> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let status = pod.status.as_ref()?;
    let container = status.container_statuses.iter().flatten().find(|container| container.name == name)?;
    container.state.as_ref()?.running.as_ref()?;
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    Some(RunningContainer { id: container.container_id.clone()?, address: status.pod_ip.clone(), node })
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Whether its log is the "previous" one, or still the current one.
    pub(crate) is_previous: bool,
    /// Whether it was killed by a signal that programs don't end by on their
    /// own, and not for its use of memory.
    pub(crate) was_killed: bool,
}

/// How the container with this id ended; `None` while the kubelet has not
/// noticed.
pub(crate) fn end_of(pod: &Pod, name: &str, id: &str) -> Option<End> {
    /// 128 and SIGKILL.
    const KILLED: i32 = 137;
    let container = pod.status.as_ref()?.container_statuses.iter().flatten().find(|container| container.name == name)?;
    let ended = |state: &Option<ContainerState>, is_previous| {
        let terminated = state.as_ref()?.terminated.as_ref().filter(|terminated| terminated.container_id.as_deref() == Some(id))?;
        let was_killed = terminated.exit_code == KILLED && terminated.reason.as_deref() != Some("OOMKilled");
        Some(End { is_previous, was_killed })
    };
    ended(&container.state, false).or_else(|| ended(&container.last_state, true))
}

/// Chooses the container to work on, and makes sure that all pods belong to one
/// workload.
///
/// # Errors
/// When there is nothing to choose, or too much.
pub(crate) fn choose_container(target: &str, pods: &[Pod], wanted: Option<&str>) -> Result<String> {
    let Some(pod) = pods.first() else {
        return Err(CommandError::new(format!("{target} has no pods")).with_hint("deploy it with `kubectl rebuild`, or scale it up"));
    };
    let workloads: BTreeSet<String> = pods.iter().map(workload).collect();
    if workloads.len() > 1 {
        let workloads = workloads.into_iter().collect::<Vec<_>>().join(", ");
        return Err(CommandError::new(format!("{target} stands for several workloads: {workloads}"))
            .with_hint("name one of them as deploy.target in devloop.yaml"));
    }
    let names: Vec<&str> = pod.spec.iter().flat_map(|spec| &spec.containers).map(|container| container.name.as_str()).collect();
    match (wanted, names.as_slice()) {
        (Some(wanted), names) if names.contains(&wanted) => Ok(wanted.to_owned()),
        (Some(wanted), names) => Err(CommandError::new(format!("the pods of {target} have no container {wanted:?}"))
            .with_hint(format!("containers in them: {}", names.join(", ")))),
        (None, [only]) => Ok((*only).to_owned()),
        (None, names) => Err(CommandError::new(format!("the pods of {target} have several containers: {}", names.join(", ")))
            .with_hint("name one as deploy.container in devloop.yaml")),
    }
}

/// What a pod belongs to, as well as the pod alone can tell.
fn workload(pod: &Pod) -> String {
    let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let Some(owner) = owner else { return format!("pod/{}", pod.metadata.name.as_deref().unwrap_or_default()) };
    // A Deployment's ReplicaSets differ in the hash at the end of their names.
    let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get("pod-template-hash"));
    match hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())) {
        Some(deployment) if owner.kind == "ReplicaSet" => format!("deployment/{}", deployment.trim_end_matches('-')),
        _ => format!("{}/{}", owner.kind.to_lowercase(), owner.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(owner: &str, hash: &str, containers: &[&str]) -> Pod {
        let containers: Vec<_> = containers.iter().map(|name| json!({"name": name})).collect();
        serde_json::from_value(json!({
            "metadata": {
                "name": "p", "labels": {"pod-template-hash": hash},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{owner}-{hash}"), "uid": "u", "controller": true}],
            },
            "spec": {"containers": containers, "nodeName": "n"},
            "status": {"podIP": "10.0.0.1", "containerStatuses": [{
                "name": "web", "containerID": "containerd://c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {}},
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn a_container_counts_while_it_runs() {
        let mut pod = pod("web", "1", &["web"]);
        let expected =
            RunningContainer { id: "containerd://c".to_owned(), address: Some("10.0.0.1".to_owned()), node: Some("n".to_owned()) };
        assert_eq!(running(&pod, "web"), Some(expected));
        assert_eq!(running(&pod, "other"), None);
        pod.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        assert_eq!(running(&pod, "web"), None);
    }

    #[test]
    fn the_end_of_a_container_is_known_once_the_kubelet_knows() {
        let mut pod = pod("web", "1", &["web"]);
        assert_eq!(end_of(&pod, "web", "containerd://c"), None);
        let state = |key: &str, code: i32, reason: &str, pod: &mut Pod| {
            let mut value = serde_json::to_value(&*pod).unwrap();
            value["status"]["containerStatuses"][0][key] =
                json!({"terminated": {"exitCode": code, "reason": reason, "containerID": "containerd://c"}});
            *pod = serde_json::from_value(value).unwrap();
        };
        state("lastState", 137, "Error", &mut pod);
        assert_eq!(end_of(&pod, "web", "containerd://c"), Some(End { is_previous: true, was_killed: true }));
        assert_eq!(end_of(&pod, "web", "containerd://older"), None);
        state("state", 137, "OOMKilled", &mut pod);
        assert_eq!(end_of(&pod, "web", "containerd://c"), Some(End { is_previous: false, was_killed: false }));
        state("state", 1, "Error", &mut pod);
        assert_eq!(end_of(&pod, "web", "containerd://c"), Some(End { is_previous: false, was_killed: false }));
    }

    #[test]
    fn two_generations_of_a_deployment_are_one_workload() {
        let pods = [pod("web", "1a", &["web"]), pod("web", "2b", &["web"])];
        assert_eq!(choose_container("deployment/web", &pods, None).unwrap(), "web");
    }

    #[test]
    fn what_can_not_be_chosen_is_said_with_the_choices() {
        let error = |pods: &[Pod], wanted: Option<&str>| {
            devloop_core::ui::render_error(&choose_container("service/web", pods, wanted).unwrap_err())
        };
        let two = [pod("web", "1", &["web", "proxy"])];
        let texts = [
            error(&[], None),
            error(&two, None),
            error(&two, Some("app")),
            error(&[pod("web", "1", &["web"]), pod("api", "2", &["web"])], None),
        ];
        insta::assert_snapshot!(texts.join("\n\n"));
    }
}
