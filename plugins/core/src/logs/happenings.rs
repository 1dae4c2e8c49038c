//! What happens to pods besides what they say: the cluster's events about them,
//! and how their containers ended.

use super::scope::Scope;
use super::watching::News;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Event, Pod};
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::mpsc;

/// Something that happened to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// What happened, for a person.
    pub what: String,
    /// When.
    pub time: Timestamp,
    /// Whether it is a warning.
    pub is_warning: bool,
}

/// Watches the events about pods of a scope's namespace, from now on.
pub(super) async fn watch_events(index: usize, scope: Scope, news_tx: mpsc::Sender<News>) {
    let client = scope.place.client.clone();
    let api: Api<Event> =
        scope.namespace.as_ref().map_or_else(|| Api::all(client.clone()), |namespace| Api::namespaced(client.clone(), namespace));
    let stream = watcher(api, watcher::Config::default().fields("involvedObject.kind=Pod")).default_backoff();
    tokio::pin!(stream);
    while let Some(event) = stream.next().await {
        match event {
            // Those that are listed first, or again, are past.
            Ok(watcher::Event::Apply(event)) => {
                if news_tx.send(News::Happened(index, Box::new(event))).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(
                watcher::Error::InitialListFailed(kube::Error::Api(status)) | watcher::Error::WatchStartFailed(kube::Error::Api(status)),
            ) if matches!(status.code, 401 | 403) => {
                // That nobody listens is noticed elsewhere.
                let _ = news_tx.send(News::EventsRefused(index, kube::Error::Api(status))).await;
                return;
            }
            Err(error) => tracing::debug!(%error, "the watch of events broke"),
        }
    }
}

/// An event as it is said; `now` where it has no time.
pub(super) fn of_event(event: &Event, now: Timestamp) -> Happening {
    let about = &event.involved_object;
    let time = event.event_time.as_ref().map(|time| time.0).or_else(|| event.last_timestamp.as_ref().map(|time| time.0));
    let count = event.count.filter(|count| *count > 1).map_or_else(String::new, |count| format!(" ({count} times)"));
    Happening {
        namespace: about.namespace.clone().unwrap_or_default(),
        pod: about.name.clone().unwrap_or_default(),
        what: format!(
            "{}: {}{count}",
            event.reason.as_deref().unwrap_or("event"),
            printable(event.message.as_deref().unwrap_or_default().trim())
        ),
        time: time.unwrap_or(now),
        is_warning: event.type_.as_deref() == Some("Warning"),
    }
}

/// Without what would move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// How containers of a pod ended, each with what tells this end from others.
pub(super) fn ends(pod: &Pod, now: Timestamp) -> Vec<(String, Happening)> {
    let Some(status) = &pod.status else { return Vec::new() };
    let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let statuses = lists.into_iter().flat_map(|list| list.iter().flatten());
    statuses
        .flat_map(|status| {
            let states = [status.last_state.as_ref(), status.state.as_ref()];
            states.into_iter().flatten().filter_map(|state| state.terminated.as_ref()).map(|ended| (status.name.as_str(), ended))
        })
        .map(|(name, ended)| {
            let happening = Happening {
                namespace: pod.metadata.namespace.clone().unwrap_or_default(),
                pod: pod.metadata.name.clone().unwrap_or_default(),
                what: describe_end(name, ended),
                time: ended.finished_at.as_ref().map_or(now, |time| time.0),
                is_warning: ended.exit_code != 0,
            };
            (format!("{name} {}", ended.container_id.as_deref().unwrap_or_default()), happening)
        })
        .collect()
}

fn describe_end(name: &str, ended: &ContainerStateTerminated) -> String {
    let how = match ended.signal.filter(|signal| *signal != 0) {
        Some(signal) => format!("was killed by signal {signal}"),
        None => format!("ended with exit code {}", ended.exit_code),
    };
    let reason = ended.reason.as_deref().filter(|reason| !matches!(*reason, "Completed" | "Error"));
    let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    format!("container {name} {how}{reason}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_and_ends_are_said_in_a_line() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let event: Event = serde_json::from_value(json!({
            "metadata": {}, "type": "Warning", "reason": "BackOff", "message": "Back-off restarting\n", "count": 3,
            "lastTimestamp": "2026-01-02T03:00:00Z", "involvedObject": {"kind": "Pod", "name": "web-1", "namespace": "shop"},
        }))
        .unwrap();
        let happening = of_event(&event, now);
        assert_eq!((happening.what.as_str(), happening.is_warning), ("BackOff: Back-off restarting (3 times)", true));
        assert_eq!(happening.time.to_string(), "2026-01-02T03:00:00Z");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop"},
            "status": {"containerStatuses": [{
                "name": "app", "restartCount": 1, "image": "", "imageID": "", "ready": false,
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "containerID": "c://1"}},
                "state": {"terminated": {"exitCode": 0, "reason": "Completed", "containerID": "c://2"}},
            }]},
        }))
        .unwrap();
        let ends: Vec<String> = ends(&pod, now).into_iter().map(|(key, happening)| format!("{key}: {}", happening.what)).collect();
        assert_eq!(
            ends,
            ["app c://1: container app ended with exit code 137 (OOMKilled)", "app c://2: container app ended with exit code 0"]
        );
    }
}
