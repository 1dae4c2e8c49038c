//! What a pod says about one of its ephemeral containers. Pure.

use k8s_openapi::api::core::v1::{ContainerState, Pod};

/// Why a pull may yet succeed: the kubelet tries again by itself.
const PULLING: &[&str] = &["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"];
/// What says that it won't, in the words of containerd and of registries.
const FINAL: &[&str] = &["not found", "manifest unknown", "unauthorized", "forbidden", "denied", "no match for platform"];
/// Why the kubelet does not go on by itself.
const STUCK: &[&str] = &[
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// How far the start of a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not decided yet, with the kubelet's reason if it names one.
    Waiting(String),
    /// The image could not be pulled, and that is tried again.
    Pulling(String),
    Running,
    /// It won't start.
    Failed(String),
    /// It ran, and is over.
    Ended(String),
    /// The pod is gone or on its way out.
    Gone,
}

pub(super) fn progress(pod: Option<&Pod>, container: &str) -> Progress {
    let Some(pod) = pod.filter(|pod| pod.metadata.deletion_timestamp.is_none()) else { return Progress::Gone };
    let statuses = pod.status.iter().flat_map(|status| status.ephemeral_container_statuses.iter().flatten());
    match statuses.into_iter().find(|status| status.name == container).and_then(|status| status.state.as_ref()) {
        Some(state) => of_state(state),
        None => Progress::Waiting(String::new()),
    }
}

fn of_state(state: &ContainerState) -> Progress {
    if state.running.is_some() {
        return Progress::Running;
    }
    if let Some(terminated) = &state.terminated {
        let message = terminated.message.as_deref().map(str::trim).filter(|message| !message.is_empty());
        let reason = message.or(terminated.reason.as_deref()).unwrap_or("it said nothing");
        // The runtime could not even start it, such as a program for another processor.
        let never_ran = terminated.started_at.is_none() || terminated.reason.as_deref() == Some("StartError");
        return if never_ran {
            Progress::Failed(reason.to_owned())
        } else {
            Progress::Ended(format!("exit code {}: {reason}", terminated.exit_code))
        };
    }
    let waiting = state.waiting.as_ref();
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default();
    let text = match waiting.and_then(|waiting| waiting.message.as_deref()) {
        Some(message) if !message.is_empty() => format!("{reason}: {message}"),
        _ => reason.to_owned(),
    };
    let is_final = || FINAL.iter().any(|words| text.to_ascii_lowercase().contains(words));
    match reason {
        reason if STUCK.contains(&reason) || PULLING.contains(&reason) && is_final() => Progress::Failed(text),
        reason if PULLING.contains(&reason) => Progress::Pulling(text),
        _ => Progress::Waiting(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(state: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "status": {"ephemeralContainerStatuses": [
                {"name": "x", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {}}},
                {"name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state},
            ]},
        }))
        .unwrap()
    }

    #[test]
    fn each_state_is_told_apart() {
        let of = |state: Value| progress(Some(&pod(&state)), "agent");
        assert_eq!(of(json!({"running": {}})), Progress::Running);
        assert_eq!(of(json!({})), Progress::Waiting(String::new()));
        assert_eq!(of(json!({"waiting": {"reason": "PodInitializing"}})), Progress::Waiting("PodInitializing".to_owned()));
        let refused = json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}});
        assert_eq!(of(refused), Progress::Failed("ErrImagePull: not found".to_owned()));
        let busy = json!({"waiting": {"reason": "ErrImagePull", "message": "500 Internal Server Error"}});
        assert_eq!(of(busy), Progress::Pulling("ErrImagePull: 500 Internal Server Error".to_owned()));
        let other = json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": "exec format error"}});
        assert_eq!(of(other), Progress::Failed("exec format error".to_owned()));
        let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "startedAt": "2026-01-01T00:00:00Z"}});
        assert_eq!(of(ended), Progress::Ended("exit code 1: Error".to_owned()));
    }

    #[test]
    fn a_pod_that_goes_away_has_no_containers() {
        let mut leaving = pod(&json!({"running": {}}));
        leaving.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        assert_eq!(progress(Some(&leaving), "agent"), Progress::Gone);
        assert_eq!(progress(None, "agent"), Progress::Gone);
        assert_eq!(progress(Some(&Pod::default()), "agent"), Progress::Waiting(String::new()));
    }
}
