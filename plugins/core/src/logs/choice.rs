//! Which pods and containers are wanted. Pure.

use super::instance::{ContainerKind, NamedContainer};
use k8s_openapi::api::core::v1::Pod;
use regex::Regex;

/// What of the pods that are looked at is read; all of it by default.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Pods whose names one of these matches; all if empty.
    pub pods: Vec<Regex>,
    /// Not the pods whose names one of these matches.
    pub exclude_pods: Vec<Regex>,
    /// Containers whose names one of these matches; all if empty.
    pub containers: Vec<Regex>,
    /// Not the containers whose names one of these matches.
    pub exclude_containers: Vec<Regex>,
    /// Not the init containers.
    pub without_init: bool,
    /// Not the ephemeral containers.
    pub without_ephemeral: bool,
    /// Containers that are in one of these states; in any if empty.
    pub states: Vec<ContainerState>,
    /// Pods of which this condition is so.
    pub condition: Option<Condition>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// It runs.
    Running,
    /// It has not started, or waits to be started again.
    Waiting,
    /// It has ended.
    Terminated,
}

/// A condition of a pod, such as `Ready`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its type; upper and lower case are the same.
    pub name: String,
    /// Whether it is to be true.
    pub is_true: bool,
}

fn any(patterns: &[Regex], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern.is_match(name))
}

impl Choice {
    /// Whether a pod's containers are read.
    pub fn wants_pod(&self, pod: &Pod) -> bool {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        (self.pods.is_empty() || any(&self.pods, name)) && !any(&self.exclude_pods, name) && self.fits(pod)
    }

    fn fits(&self, pod: &Pod) -> bool {
        let Some(wanted) = &self.condition else { return true };
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let found = conditions.iter().find(|condition| condition.type_.eq_ignore_ascii_case(&wanted.name));
        found.is_some_and(|condition| condition.status.eq_ignore_ascii_case(if wanted.is_true { "true" } else { "false" }))
    }

    /// Whether a container of a pod that is wanted is, whatever its state.
    pub fn wants_container(&self, name: &str) -> bool {
        (self.containers.is_empty() || any(&self.containers, name)) && !any(&self.exclude_containers, name)
    }

    /// Whether a container is read as it is now.
    pub(super) fn wants(&self, container: &NamedContainer) -> bool {
        let is_left_out = match container.kind {
            ContainerKind::Init => self.without_init,
            ContainerKind::Regular => false,
            ContainerKind::Ephemeral => self.without_ephemeral,
        };
        let is_in_state = self.states.is_empty() || self.states.contains(&container.state);
        !is_left_out && is_in_state && self.wants_container(&container.name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::instance::containers;
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1"},
            "spec": {
                "initContainers": [{"name": "migrate"}],
                "containers": [{"name": "app"}, {"name": "proxy"}],
                "ephemeralContainers": [{"name": "debugger"}],
            },
            "status": {
                "conditions": [{"type": "Ready", "status": "False"}],
                "containerStatuses": [
                    {"name": "app", "restartCount": 0, "image": "", "imageID": "", "ready": true, "state": {"running": {}}},
                    {"name": "proxy", "restartCount": 0, "image": "", "imageID": "", "ready": true, "state": {"terminated": {"exitCode": 1}}},
                ],
            },
        }))
        .unwrap()
    }

    fn chosen(choice: &Choice) -> String {
        let pod = pod();
        if !choice.wants_pod(&pod) {
            return "-".into();
        }
        let names: Vec<String> =
            containers(&pod).into_iter().filter(|container| choice.wants(container)).map(|container| container.name).collect();
        names.join(" ")
    }

    #[test]
    fn each_wish_narrows_the_choice() {
        let regexes = |pattern: &str| vec![Regex::new(pattern).unwrap()];
        let ready = |is_true| Some(Condition { name: "ready".into(), is_true });
        let cases = [
            (Choice::default(), "migrate app proxy debugger"),
            (Choice { pods: regexes("^web"), exclude_pods: regexes("-2$"), ..Choice::default() }, "migrate app proxy debugger"),
            (Choice { pods: regexes("^api"), ..Choice::default() }, "-"),
            (Choice { exclude_pods: regexes("web"), ..Choice::default() }, "-"),
            (Choice { containers: regexes("p"), exclude_containers: regexes("^proxy$"), ..Choice::default() }, "app"),
            (Choice { without_init: true, without_ephemeral: true, ..Choice::default() }, "app proxy"),
            (Choice { states: vec![ContainerState::Running, ContainerState::Terminated], ..Choice::default() }, "app proxy"),
            (Choice { states: vec![ContainerState::Waiting], ..Choice::default() }, "migrate debugger"),
            (Choice { condition: ready(false), ..Choice::default() }, "migrate app proxy debugger"),
            (Choice { condition: ready(true), ..Choice::default() }, "-"),
        ];
        for (choice, expected) in cases {
            assert_eq!(chosen(&choice), expected, "{choice:?}");
        }
    }
}
