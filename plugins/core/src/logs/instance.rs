//! What a pod's status says about its containers, and what to read next. Pure.

use super::choice::ContainerState;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use std::time::Duration;

/// A container of a pod, as it is known by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The newest instance that has started.
    pub latest: Option<Instance>,
    /// Whether the API can still give the log of the one before (`previous`).
    pub has_previous: bool,
    /// Whether the pod is on its way out.
    pub pod: PodState,
}

/// One run of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its restart count.
    pub number: u32,
    /// Whether it runs.
    pub state: InstanceState,
}

/// Where an instance is in its life, and how the API gives its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// It runs.
    Running,
    /// It has ended, and is still the container's current one.
    Ended,
    /// It has ended, and its successor is waiting to start: it is the `previous` one.
    Superseded,
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodState {
    /// It is there to stay.
    Present,
    /// Its deletion was asked for.
    Deleting,
    /// The API server no longer has it.
    Gone,
}

/// A container's name and state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedContainer {
    /// The container's name.
    pub name: String,
    /// What it is in its pod.
    pub kind: ContainerKind,
    /// Its state, by the API's names.
    pub state: ContainerState,
    /// What is known of it.
    pub observed: Observed,
}

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerKind {
    /// It runs before the others, or beside them as a sidecar.
    Init,
    /// One of the pod's own.
    Regular,
    /// It was added to a running pod.
    Ephemeral,
}

/// All containers that a pod has: init, regular, ephemeral, in that order.
pub fn containers(pod: &Pod) -> Vec<NamedContainer> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let status = pod.status.as_ref();
    let init = spec.init_containers.iter().flatten().map(|container| (container.name.as_str(), ContainerKind::Init));
    let regular = spec.containers.iter().map(|container| (container.name.as_str(), ContainerKind::Regular));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| (container.name.as_str(), ContainerKind::Ephemeral));
    let statuses: Vec<&ContainerStatus> = status
        .map(|status| [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses])
        .into_iter()
        .flatten()
        .flat_map(|list| list.iter().flatten())
        .collect();
    let pod_state = if pod.metadata.deletion_timestamp.is_some() { PodState::Deleting } else { PodState::Present };
    let all = init.chain(regular).chain(ephemeral);
    all.map(|(name, kind)| {
        let status = statuses.iter().find(|status| status.name == name).copied();
        NamedContainer { name: name.to_owned(), kind, state: state_of(status), observed: observe(status, pod_state) }
    })
    .collect()
}

fn state_of(status: Option<&ContainerStatus>) -> ContainerState {
    let state = status.and_then(|status| status.state.as_ref());
    match state {
        Some(state) if state.running.is_some() => ContainerState::Running,
        Some(state) if state.terminated.is_some() => ContainerState::Terminated,
        _ => ContainerState::Waiting,
    }
}

/// Follows the kubelet's own choice of instance (`validateContainerLogStatus`).
fn observe(status: Option<&ContainerStatus>, pod: PodState) -> Observed {
    let Some(status) = status else { return Observed { latest: None, has_previous: false, pod } };
    let number = u32::try_from(status.restart_count).unwrap_or(0);
    let is_there = |id: Option<&String>| id.is_some_and(|id| !id.is_empty());
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let has_previous = last.is_some_and(|last| is_there(last.container_id.as_ref()));
    let state = status.state.as_ref();
    let running = state.is_some_and(|state| state.running.is_some());
    let ended = state.and_then(|state| state.terminated.as_ref()).is_some_and(|ended| is_there(ended.container_id.as_ref()));
    let latest = match (running, ended) {
        (true, _) => Some(InstanceState::Running),
        (false, true) => Some(InstanceState::Ended),
        // Waiting (back-off, or an image that can't be pulled), or a
        // successor that failed before it had a container.
        (false, false) => has_previous.then_some(InstanceState::Superseded),
    };
    Observed { latest: latest.map(|state| Instance { number, state }), has_previous, pod }
}

/// What a reader of a container does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something changes.
    Idle,
    /// Follow the instance, which runs.
    Follow,
    /// Read the instance to its end; it is the current one or the `previous`.
    Finish {
        /// Ask for the previous instance.
        previous: bool,
    },
    /// The API no longer has the log of some instances; go on with this one.
    Skip {
        /// The first that can be read.
        to: u32,
    },
}

/// Decides what to do, `next` being the first instance not read to its end.
pub fn decide(next: u32, observed: &Observed) -> Step {
    let Some(latest) = observed.latest else { return Step::Idle };
    if latest.number < next {
        return Step::Idle;
    }
    if latest.number == next {
        return match latest.state {
            InstanceState::Running => Step::Follow,
            InstanceState::Ended => Step::Finish { previous: false },
            InstanceState::Superseded => Step::Finish { previous: true },
        };
    }
    let readable = if observed.has_previous && latest.state != InstanceState::Superseded { latest.number - 1 } else { latest.number };
    if readable == next { Step::Finish { previous: true } } else { Step::Skip { to: readable } }
}

/// How long an open connection to instance `number` may still go on; none for
/// as long as it likes.
///
/// The kubelet ends it by itself, about a second after the instance. What it
/// hasn't delivered by then is read afterwards, except when the pod goes: then
/// nothing can be read afterwards.
pub(super) fn patience(number: u32, observed: &Observed) -> Option<Duration> {
    if observed.pod == PodState::Gone {
        return Some(Duration::from_secs(5));
    }
    let latest = observed.latest?;
    if latest.number == number && latest.state == InstanceState::Running {
        return None;
    }
    Some(match observed.pod {
        PodState::Deleting => Duration::from_secs(30),
        _ if latest.number != number => Duration::ZERO,
        _ => Duration::from_secs(2),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn observed(number: u32, state: InstanceState, has_previous: bool) -> Observed {
        Observed { latest: Some(Instance { number, state }), has_previous, pod: PodState::Present }
    }

    #[test]
    fn all_kinds_of_containers_are_found_with_their_instances() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-0", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "initContainers": [{"name": "migrate"}],
                "containers": [{"name": "app"}, {"name": "crashing"}, {"name": "pulling"}, {"name": "restarted"}],
                "ephemeralContainers": [{"name": "debugger"}],
            },
            "status": {
                "initContainerStatuses": [{"name": "migrate", "restartCount": 0, "image": "", "imageID": "", "ready": true,
                    "state": {"terminated": {"exitCode": 0, "containerID": "containerd://1"}}}],
                "containerStatuses": [
                    {"name": "app", "restartCount": 0, "image": "", "imageID": "", "ready": true, "state": {"running": {}}},
                    {"name": "crashing", "restartCount": 4, "image": "", "imageID": "", "ready": false,
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"exitCode": 1, "containerID": "containerd://2"}}},
                    {"name": "pulling", "restartCount": 0, "image": "", "imageID": "", "ready": false,
                        "state": {"waiting": {"reason": "ImagePullBackOff"}}},
                    {"name": "restarted", "restartCount": 1, "image": "", "imageID": "", "ready": true, "state": {"running": {}},
                        "lastState": {"terminated": {"exitCode": 1, "containerID": "containerd://3"}}},
                ],
            },
        }))
        .unwrap();
        let found: Vec<String> = containers(&pod)
            .into_iter()
            .map(|container| {
                let state = container.observed.latest.map_or("-".to_owned(), |latest| format!("{} {:?}", latest.number, latest.state));
                assert_eq!(container.observed.pod, PodState::Deleting);
                format!("{}: {state} {}", container.name, container.observed.has_previous)
            })
            .collect();
        insta::assert_snapshot!(found.join("\n"), @r"
        migrate: 0 Ended false
        app: 0 Running false
        crashing: 4 Superseded true
        pulling: - false
        restarted: 1 Running true
        debugger: - false
        ");
    }

    #[test]
    fn the_next_unread_instance_is_read_where_it_is() {
        use InstanceState::{Ended, Running, Superseded};
        let cases = [
            ((2, observed(2, Running, true)), Step::Follow),
            ((2, observed(2, Ended, true)), Step::Finish { previous: false }),
            ((2, observed(2, Superseded, true)), Step::Finish { previous: true }),
            ((3, observed(2, Superseded, true)), Step::Idle),
            ((1, observed(2, Running, true)), Step::Finish { previous: true }),
            ((1, observed(2, Ended, true)), Step::Finish { previous: true }),
            // The predecessor's log is deleted once its successor has ended.
            ((1, observed(2, Superseded, true)), Step::Skip { to: 2 }),
            ((1, observed(2, Running, false)), Step::Skip { to: 2 }),
            ((0, observed(5, Running, true)), Step::Skip { to: 4 }),
            ((0, observed(5, Superseded, true)), Step::Skip { to: 5 }),
        ];
        for ((next, observed), step) in cases {
            assert_eq!(decide(next, &observed), step, "{next} {observed:?}");
        }
        assert_eq!(decide(0, &Observed { latest: None, has_previous: false, pod: PodState::Present }), Step::Idle);
    }

    #[test]
    fn a_connection_is_left_to_end_by_itself_where_nothing_can_be_read_afterwards() {
        use InstanceState::{Ended, Running};
        assert_eq!(patience(0, &observed(0, Running, false)), None);
        assert_eq!(patience(0, &observed(1, Running, true)), Some(Duration::ZERO));
        let deleting = Observed { pod: PodState::Deleting, ..observed(0, Ended, false) };
        assert!(patience(0, &deleting) > patience(0, &observed(0, Ended, false)));
        let terminating = Observed { pod: PodState::Deleting, ..observed(0, Running, false) };
        assert_eq!(patience(0, &terminating), None);
    }
}
