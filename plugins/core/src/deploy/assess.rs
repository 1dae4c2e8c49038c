//! How a rollout stands, and what keeps it from being done. Pure.

use super::rollout::Workload;
use crate::image::REGISTRY;
use crate::target::{Kind, is_ready};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use std::time::Duration;

/// How long a pod may be unschedulable, or pods refused, before it is taken to
/// be for good: a pod of the version before may still be making room.
const PATIENCE: Duration = Duration::from_secs(8);

/// How a rollout stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All that was asked for runs.
    Ready,
    /// Not yet; with what it seems to wait for.
    Waiting(Option<Cause>),
    /// It won't get there by itself.
    Failed(Cause),
}

/// What keeps a rollout from being done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// An image that the node doesn't have and can't get.
    #[error("container {container:?} of pod {pod} has no image {image:?} ({reason}){}", detail(message))]
    Image {
        /// The pod's name.
        pod: String,
        /// The container's name.
        container: String,
        /// The image that it asks for.
        image: String,
        /// The kubelet's word: `ErrImageNeverPull`, ...
        reason: String,
        /// The kubelet's sentence.
        message: String,
    },
    /// A program that ends though it should run.
    #[error("container {container:?} of pod {pod} {} ({restarts} restart{})", ended(*exit_code, reason), if *restarts == 1 { "" } else { "s" })]
    Crash {
        /// The pod's name.
        pod: String,
        /// The container's name.
        container: String,
        /// As a shell sees it: 128 and the signal's number for a killed one.
        exit_code: i32,
        /// The kubelet's word: `Error`, `OOMKilled`, `Completed`.
        reason: String,
        /// How often it was started again.
        restarts: i32,
    },
    /// A container that can't be made or started.
    #[error("container {container:?} of pod {pod} can't be started ({reason}){}", detail(message))]
    Start {
        /// The pod's name.
        pod: String,
        /// The container's name.
        container: String,
        /// The kubelet's word: `CreateContainerConfigError`, ...
        reason: String,
        /// The kubelet's sentence.
        message: String,
    },
    /// No node takes the pod.
    #[error("no node takes pod {pod}{}", detail(message))]
    Unschedulable {
        /// The pod's name.
        pod: String,
        /// The scheduler's sentence.
        message: String,
    },
    /// The API server refuses the pods: a quota, an admission policy.
    #[error("no pod can be created{}", detail(message))]
    Refused {
        /// The API server's sentence.
        message: String,
    },
    /// A probe fails.
    #[error("pod {pod} runs but is not ready{}", detail(message))]
    Probe {
        /// The pod's name.
        pod: String,
        /// What the probe says, if it is known.
        message: String,
    },
    /// Something else that the cluster says about it.
    #[error("{subject}{}", detail(message))]
    Other {
        /// What it is about.
        subject: String,
        /// The cluster's sentence.
        message: String,
    },
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

fn ended(exit_code: i32, reason: &str) -> String {
    match (exit_code, reason) {
        (_, "OOMKilled") => "was killed: it took more memory than its limit".to_owned(),
        (0, _) => "ended (exit code 0) though it should keep running".to_owned(),
        (code, _) if code > 128 => format!("was killed by signal {}", code - 128),
        (code, _) => format!("crashed with exit code {code}"),
    }
}

impl Cause {
    /// What the user can do about it; `namespace` is where the pods are.
    pub fn hint(&self, namespace: &str) -> String {
        match self {
            Self::Image { image, .. } if image.starts_with(REGISTRY) => {
                "deliver it to this cluster's node with `kubectl rebuild`".to_owned()
            }
            Self::Image { .. } => "check the image's name, or load it with `kubectl devenv load IMAGE.tar`".to_owned(),
            Self::Crash { pod, container, .. } => {
                format!("read its log with `kubectl logs {pod} -c {container} -n {namespace} --previous`")
            }
            Self::Start { .. } => "check what the container refers to: ConfigMaps, Secrets, its program, user and volumes".to_owned(),
            Self::Unschedulable { .. } => "ask for less in the manifest, or make room on the node".to_owned(),
            Self::Refused { .. } => format!("see what is used with `kubectl describe quota -n {namespace}`"),
            Self::Probe { pod, .. } => {
                format!("see `kubectl describe pod {pod} -n {namespace}` and `kubectl logs {pod} -n {namespace}`")
            }
            Self::Other { .. } => format!("see `kubectl get events -n {namespace} --sort-by=.lastTimestamp`"),
        }
    }

    /// The pod and container whose log tells more.
    pub fn crashed(&self) -> Option<(&str, &str)> {
        match self {
            Self::Crash { pod, container, .. } => Some((pod, container)),
            _ => None,
        }
    }
}

/// Judges a rollout by what the cluster says at the time `now`: the workload
/// (none for a target that has none), the pods of its newest version, and events
/// about them, where they were asked for.
pub fn assess(workload: Option<&Workload>, pods: &[&Pod], events: &[Event], now: Timestamp) -> Verdict {
    if let Some(workload) = workload
        && let Some(verdict) = by_workload(workload, pods, now)
    {
        return verdict;
    }
    let none_asked = workload.is_some_and(|workload| workload.kind != Kind::Job && workload.desired == 0);
    if workload.is_none() && !pods.is_empty() && pods.iter().all(|pod| is_done(pod)) || none_asked {
        return Verdict::Ready;
    }
    let mut waiting = None;
    for pod in pods {
        match trouble(pod, now) {
            Some((cause, true)) => return Verdict::Failed(cause),
            Some((cause, false)) => waiting = waiting.or(Some(cause)),
            None => {}
        }
    }
    let waiting = waiting.or_else(|| by_events(pods, events)).or_else(|| pods.iter().find_map(|pod| unready(pod)));
    Verdict::Waiting(waiting.or_else(|| workload.and_then(|workload| refused(workload).map(|(cause, _)| cause))))
}

/// What the workload's own status decides.
fn by_workload(workload: &Workload, pods: &[&Pod], now: Timestamp) -> Option<Verdict> {
    let current = workload.observed_generation >= workload.generation;
    match workload.kind {
        Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::ReplicaSet if current => {
            let all = workload.updated >= workload.desired && workload.available >= workload.desired;
            // Only a Deployment counts pods of versions before.
            let old = workload.kind == Kind::Deployment && workload.total > workload.updated;
            if all && !old {
                return Some(Verdict::Ready);
            }
        }
        Kind::Job if workload.condition("Complete").is_some() => return Some(Verdict::Ready),
        Kind::Job => {
            if !pods.is_empty() && pods.iter().all(|pod| is_done(pod)) {
                return Some(Verdict::Ready);
            }
            if let Some(condition) = workload.condition("Failed") {
                let subject = format!("job {} failed", workload.name);
                return Some(Verdict::Failed(Cause::Other { subject, message: condition.message.clone() }));
            }
        }
        _ => {}
    }
    if !current {
        // What is said about the version before says nothing about this one.
        return Some(Verdict::Waiting(None));
    }
    match refused(workload) {
        Some((cause, since)) if older(since, now) => Some(Verdict::Failed(cause)),
        _ => None,
    }
}

/// Pods that the API server refuses, and since when.
fn refused(workload: &Workload) -> Option<(Cause, Option<Timestamp>)> {
    let condition = workload.condition("ReplicaFailure")?;
    Some((Cause::Refused { message: condition.message.clone() }, condition.since))
}

/// What is wrong with a pod, and whether it is for good.
fn trouble(pod: &Pod, now: Timestamp) -> Option<(Cause, bool)> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let name = pod.metadata.name.clone().unwrap_or_default();
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    if let Some(found) = containers.filter_map(|container| container_trouble(&name, container)).max_by_key(|(_, final_)| *final_) {
        return Some(found);
    }
    let scheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled")?;
    if scheduled.status == "False" && scheduled.reason.as_deref() == Some("Unschedulable") {
        let since = scheduled.last_transition_time.as_ref().map(|time| time.0);
        let message = scheduled.message.clone().unwrap_or_default();
        return Some((Cause::Unschedulable { pod: name, message }, older(since, now)));
    }
    None
}

fn container_trouble(pod: &str, status: &ContainerStatus) -> Option<(Cause, bool)> {
    let (pod, container) = (pod.to_owned(), status.name.clone());
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref())?;
    let reason = waiting.reason.clone().unwrap_or_default();
    let message = waiting.message.clone().unwrap_or_default();
    match reason.as_str() {
        "ErrImageNeverPull" | "InvalidImageName" | "ImagePullBackOff" | "ImageInspectError" | "ErrImagePull" => {
            // The first failed pull may be a hiccup, but there is nothing to
            // pull ours from.
            let fatal = reason != "ErrImagePull" || status.image.starts_with(REGISTRY);
            Some((Cause::Image { pod, container, image: status.image.clone(), reason, message }, fatal))
        }
        "CrashLoopBackOff" => {
            let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            let (exit_code, reason) = last.map_or((1, String::new()), |last| (last.exit_code, last.reason.clone().unwrap_or_default()));
            // The kubelet could not even start it; its reason is worth more.
            if let Some(message) =
                last.and_then(|last| last.message.clone()).filter(|_| reason == "StartError" || reason == "ContainerCannotRun")
            {
                return Some((Cause::Start { pod, container, reason, message }, true));
            }
            Some((Cause::Crash { pod, container, exit_code, reason, restarts: status.restart_count }, true))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" | "PostStartHookError" => {
            Some((Cause::Start { pod, container, reason, message }, true))
        }
        _ => None,
    }
}

fn by_events(pods: &[&Pod], events: &[Event]) -> Option<Cause> {
    let about = |event: &&Event| event.type_.as_deref() == Some("Warning");
    let latest = |event: &&Event| event.last_timestamp.as_ref().or(event.first_timestamp.as_ref()).map(|time| time.0);
    let event = events.iter().filter(about).max_by_key(latest)?;
    let message = event.message.clone().unwrap_or_default();
    let name = event.involved_object.name.clone().unwrap_or_default();
    let is_pod = pods.iter().any(|pod| pod.metadata.name.as_ref() == Some(&name));
    match event.reason.as_deref() {
        Some("Unhealthy") if is_pod => Some(Cause::Probe { pod: name, message }),
        Some("FailedScheduling") if is_pod => Some(Cause::Unschedulable { pod: name, message }),
        Some("FailedCreate") => Some(Cause::Refused { message }),
        Some(reason) => Some(Cause::Other { subject: format!("{name}: {reason}"), message }),
        None => None,
    }
}

/// A pod whose containers run, but that is not Ready.
fn unready(pod: &Pod) -> Option<Cause> {
    let status = pod.status.as_ref()?;
    let runs = status.phase.as_deref() == Some("Running") && pod.metadata.deletion_timestamp.is_none();
    (runs && !is_ready(pod)).then(|| Cause::Probe { pod: pod.metadata.name.clone().unwrap_or_default(), message: String::new() })
}

fn is_done(pod: &Pod) -> bool {
    is_ready(pod) || pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Succeeded"))
}

fn older(since: Option<Timestamp>, now: Timestamp) -> bool {
    since.is_some_and(|since| now.duration_since(since).unsigned_abs() > PATIENCE && now > since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::rollout::Condition;
    use serde_json::json;

    fn workload(updated: i64, available: i64, total: i64) -> Workload {
        Workload {
            kind: Kind::Deployment,
            name: "shop".into(),
            generation: 2,
            observed_generation: 2,
            desired: 1,
            updated,
            available,
            total,
            conditions: vec![],
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    fn pod(status: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "shop-1"}, "status": status})).unwrap()
    }

    fn container(state: serde_json::Value, last: serde_json::Value) -> Pod {
        let status = json!({"name": "shop", "image": "devloop.local/shop:1", "imageID": "", "ready": false, "restartCount": 3, "state": state, "lastState": last});
        pod(json!({"phase": "Running", "containerStatuses": [status]}))
    }

    fn waiting(reason: &str, message: &str) -> Pod {
        container(json!({"waiting": {"reason": reason, "message": message}}), json!({}))
    }

    fn verdict(pod: &Pod) -> Verdict {
        assess(Some(&workload(1, 0, 2)), &[pod], &[], now())
    }

    fn failure(pod: &Pod) -> String {
        match verdict(pod) {
            Verdict::Failed(cause) => cause.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_deployment_is_ready_when_the_new_pods_are_and_the_old_are_gone() {
        let ready = pod(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}));
        assert_eq!(assess(Some(&workload(1, 1, 1)), &[&ready], &[], now()), Verdict::Ready);
        assert_eq!(assess(Some(&workload(1, 1, 2)), &[&ready], &[], now()), Verdict::Waiting(None));
        assert_eq!(assess(Some(&workload(0, 1, 1)), &[], &[], now()), Verdict::Waiting(None));
        let stale = Workload { observed_generation: 1, ..workload(1, 1, 1) };
        assert_eq!(assess(Some(&stale), &[&ready], &[], now()), Verdict::Waiting(None));
        assert_eq!(assess(None, &[&ready], &[], now()), Verdict::Ready);
        assert_eq!(assess(None, &[], &[], now()), Verdict::Waiting(None));
    }

    #[test]
    fn what_was_true_of_the_version_before_is_not_held_against_this_one() {
        let stale = Workload { observed_generation: 1, ..workload(1, 0, 1) };
        assert_eq!(assess(Some(&stale), &[&waiting("CrashLoopBackOff", "")], &[], now()), Verdict::Waiting(None));
    }

    #[test]
    fn failures_are_told_by_their_cause() {
        insta::assert_snapshot!(failure(&waiting("ErrImageNeverPull", "not present")), @r#"container "shop" of pod shop-1 has no image "devloop.local/shop:1" (ErrImageNeverPull): not present"#);
        insta::assert_snapshot!(failure(&waiting("ErrImagePull", "")), @r#"container "shop" of pod shop-1 has no image "devloop.local/shop:1" (ErrImagePull)"#);
        insta::assert_snapshot!(failure(&waiting("CreateContainerConfigError", "secret \"a\" not found")), @r#"container "shop" of pod shop-1 can't be started (CreateContainerConfigError): secret "a" not found"#);
        let back_off = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let crash = |exit_code: i32, reason: &str| {
            container(back_off.clone(), json!({"terminated": {"exitCode": exit_code, "reason": reason, "message": "exec: no such file"}}))
        };
        insta::assert_snapshot!(failure(&crash(101, "Error")), @r#"container "shop" of pod shop-1 crashed with exit code 101 (3 restarts)"#);
        insta::assert_snapshot!(failure(&crash(137, "OOMKilled")), @r#"container "shop" of pod shop-1 was killed: it took more memory than its limit (3 restarts)"#);
        insta::assert_snapshot!(failure(&crash(139, "Error")), @r#"container "shop" of pod shop-1 was killed by signal 11 (3 restarts)"#);
        insta::assert_snapshot!(failure(&crash(0, "Completed")), @r#"container "shop" of pod shop-1 ended (exit code 0) though it should keep running (3 restarts)"#);
        insta::assert_snapshot!(failure(&crash(128, "StartError")), @r#"container "shop" of pod shop-1 can't be started (StartError): exec: no such file"#);
    }

    #[test]
    fn what_may_pass_by_itself_is_given_time() {
        assert_eq!(
            verdict(&waiting("ContainerCreating", "")),
            Verdict::Waiting(Some(Cause::Probe { pod: "shop-1".into(), message: String::new() }))
        );
        let unscheduled = |seconds: i64| {
            let since = (now() - jiff::SignedDuration::from_secs(seconds)).to_string();
            pod(json!({"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes", "lastTransitionTime": since}]}))
        };
        let cause = Cause::Unschedulable { pod: "shop-1".into(), message: "0/1 nodes".into() };
        assert_eq!(verdict(&unscheduled(1)), Verdict::Waiting(Some(cause.clone())));
        assert_eq!(verdict(&unscheduled(60)), Verdict::Failed(cause));
        let quota = |seconds: i64| {
            let since = Some(now() - jiff::SignedDuration::from_secs(seconds));
            let condition = Condition { kind: "ReplicaFailure".into(), message: "exceeded quota".into(), since };
            assess(Some(&Workload { conditions: vec![condition], ..workload(0, 0, 0) }), &[], &[], now())
        };
        let cause = Cause::Refused { message: "exceeded quota".into() };
        assert_eq!((quota(1), quota(60)), (Verdict::Waiting(Some(cause.clone())), Verdict::Failed(cause)));
    }

    #[test]
    fn a_failing_probe_is_told_by_its_event() {
        let running = container(json!({"running": {}}), json!({}));
        let event: Event = serde_json::from_value(json!({
            "metadata": {}, "involvedObject": {"name": "shop-1"}, "type": "Warning", "reason": "Unhealthy",
            "message": "Readiness probe failed: 503"
        }))
        .unwrap();
        let verdict = assess(Some(&workload(1, 0, 1)), &[&running], &[event], now());
        let cause = Cause::Probe { pod: "shop-1".into(), message: "Readiness probe failed: 503".into() };
        assert_eq!(verdict, Verdict::Waiting(Some(cause)));
    }

    #[test]
    fn a_pod_that_is_going_away_says_nothing() {
        let mut leaving = waiting("CrashLoopBackOff", "");
        leaving.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
        assert_eq!(verdict(&leaving), Verdict::Waiting(None));
    }
}
