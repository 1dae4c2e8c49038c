//! From the target's pods to one container. Pure.

use devloop_core::args::Via;
use devloop_core::target::is_ready;
use devloop_core::{CommandError, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// What kubectl looks at for the same purpose
/// (<https://kubernetes.io/docs/reference/labels-annotations-taints/>).
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// A running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) pod: String,
    pub(crate) container: String,
    /// The runtime's id, with its scheme.
    pub(crate) id: String,
    /// The node that the pod is on.
    pub(crate) node: Option<String>,
    /// The container's user, as far as the pod says.
    pub(crate) user: Option<i64>,
}

/// The way to the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Through its node.
    Node,
    /// Through the API: an ephemeral container.
    Pod,
}

impl Way {
    /// As `--via` has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Pod => "api",
        }
    }
}

/// The pod to work on: the named one, else the newest of those that are ready,
/// else the newest. `pods` come oldest first.
///
/// # Errors
/// When there is none.
pub(crate) fn pod<'a>(target: &str, pods: &'a [Pod], wanted: Option<&str>) -> Result<&'a Pod> {
    if let Some(wanted) = wanted {
        return pods.iter().find(|pod| pod.name_any() == wanted).ok_or_else(|| {
            let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
            CommandError::new(format!("{target} has no pod {wanted:?}")).with_hint(format!("its pods: {}", names.join(", ")))
        });
    }
    let is_staying = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
    let newest = pods.iter().rfind(|pod| is_ready(pod)).or_else(|| pods.iter().rfind(is_staying));
    newest.ok_or_else(|| CommandError::new(format!("{target} has no pods")).with_hint("scale it up, or see why with `kubectl get events`"))
}

/// The container of a pod to work on.
///
/// # Errors
/// When there is none of that name, several without a name, or it does not run.
pub(crate) fn container(pod: &Pod, wanted: Option<&str>) -> Result<Chosen> {
    let name = pod.name_any();
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
    let annotated = pod.annotations().get(DEFAULT_CONTAINER).map(String::as_str).filter(|name| names.contains(name));
    let chosen = match (wanted.or(annotated), names.as_slice()) {
        (Some(wanted), names) if names.contains(&wanted) => wanted,
        (Some(wanted), names) => {
            let error = CommandError::new(format!("pod {name} has no container {wanted:?}"));
            return Err(error.with_hint(format!("its containers: {}", names.join(", "))));
        }
        (None, [only]) => only,
        (None, names) => {
            let error = CommandError::new(format!("pod {name} has several containers: {}", names.join(", ")));
            return Err(error.with_hint("name one with -c"));
        }
    };
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let status = statuses.into_iter().find(|status| status.name == chosen);
    let is_running = status.and_then(|status| status.state.as_ref()).is_some_and(|state| state.running.is_some());
    let id = status.and_then(|status| status.container_id.clone()).filter(|_| is_running);
    let spec = pod.spec.as_ref();
    let of_container =
        containers.iter().find(|container| container.name == chosen).and_then(|container| container.security_context.as_ref());
    let of_pod = spec.and_then(|spec| spec.security_context.as_ref()).and_then(|context| context.run_as_user);
    Ok(Chosen {
        pod: name.clone(),
        container: chosen.to_owned(),
        id: id.ok_or_else(|| {
            CommandError::new(format!("container {chosen:?} of pod {name} does not run"))
                .with_hint(format!("see why with `kubectl describe pod {name}`"))
        })?,
        node: spec.and_then(|spec| spec.node_name.clone()),
        user: of_container.and_then(|context| context.run_as_user).or(of_pod),
    })
}

/// The way to a container, and the reason for messages. `is_reachable` tells
/// whether its node can be reached without the API.
///
/// # Errors
/// When the way that was asked for does not lead there.
pub(crate) fn way(via: Via, chosen: &Chosen, is_reachable: bool) -> Result<(Way, &'static str)> {
    match (via, is_reachable) {
        (Via::Auto, true) => Ok((Way::Node, "its node is on this machine")),
        (Via::Auto, false) => Ok((Way::Pod, "its node is not on this machine")),
        (Via::Node, true) => Ok((Way::Node, "it was asked for")),
        (Via::Api, _) => Ok((Way::Pod, "it was asked for")),
        (Via::Node, false) => {
            let node = chosen.node.as_deref().unwrap_or("unknown");
            Err(CommandError::new(format!("node {node} of pod {} can't be reached without the API", chosen.pod))
                .with_hint("let the way be chosen (--via auto), or take the API (--via api)"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devloop_core::ui::render_error;
    use serde_json::json;

    fn made(name: &str, ready: bool, containers: &[&str]) -> Pod {
        let specs: Vec<_> = containers.iter().map(|name| json!({"name": name})).collect();
        let status = |name: &&str| {
            json!({"name": name, "containerID": "containerd://c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": if *name == "sleepy" { json!({"waiting": {}}) } else { json!({"running": {}}) }})
        };
        let statuses: Vec<_> = containers.iter().map(status).collect();
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"containers": specs, "nodeName": "n", "securityContext": {"runAsUser": 1000}},
            "status": {"containerStatuses": statuses, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        }))
        .unwrap()
    }

    #[test]
    fn the_newest_ready_pod_is_taken() {
        let pods = [made("a", true, &["web"]), made("b", true, &["web"]), made("c", false, &["web"])];
        assert_eq!(pod("deployment/web", &pods, None).unwrap().name_any(), "b");
        assert_eq!(pod("deployment/web", &pods, Some("a")).unwrap().name_any(), "a");
        assert_eq!(pod("deployment/web", &pods[2..], None).unwrap().name_any(), "c");
    }

    #[test]
    fn the_container_is_the_only_the_named_or_the_annotated_one() {
        let mut two = made("a", true, &["web", "proxy"]);
        assert_eq!(container(&two, Some("proxy")).unwrap().container, "proxy");
        two.annotations_mut().insert(DEFAULT_CONTAINER.to_owned(), "web".to_owned());
        let chosen = container(&two, None).unwrap();
        assert_eq!((chosen.container.as_str(), chosen.node.as_deref(), chosen.user), ("web", Some("n"), Some(1000)));
    }

    #[test]
    fn what_can_not_be_chosen_is_said_with_the_choices() {
        let two = made("a", true, &["web", "sleepy"]);
        let chosen = container(&two, Some("web")).unwrap();
        let errors = [
            pod("deployment/web", &[], None).map(drop).unwrap_err(),
            pod("deployment/web", std::slice::from_ref(&two), Some("z")).map(drop).unwrap_err(),
            container(&two, None).unwrap_err(),
            container(&two, Some("z")).unwrap_err(),
            container(&two, Some("sleepy")).unwrap_err(),
            way(Via::Node, &chosen, false).unwrap_err(),
        ];
        insta::assert_snapshot!(errors.map(|error| render_error(&error)).join("\n\n"));
    }
}
