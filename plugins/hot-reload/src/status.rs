//! What a session says of itself to `kubectl hot-reload status`. Pure.

use crate::lane::Lane;
use crate::report::count;
use devloop_core::changes::{LiveSession, Meta};
use devloop_core::output;
use serde::{Deserialize, Serialize};

/// What a session publishes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Published {
    pub(crate) services: Vec<ServiceStatus>,
}

/// A session that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionStatus {
    pub(crate) context: String,
    pub(crate) pid: u32,
    pub(crate) started: String,
    pub(crate) services: Vec<ServiceStatus>,
}

/// A service and its pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceStatus {
    pub(crate) name: String,
    pub(crate) target: String,
    /// Counts states of the files: what pods are brought to.
    pub(crate) generation: u64,
    /// How many files were changed in the session.
    pub(crate) files: usize,
    pub(crate) pods: Vec<PodStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<String>,
}

/// A pod of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodStatus {
    pub(crate) name: String,
    /// The state of the files that it has.
    pub(crate) generation: u64,
    /// How many states it is behind.
    pub(crate) lag: u64,
    pub(crate) in_sync: bool,
    /// BLAKE3 of the program that it runs, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
}

impl ServiceStatus {
    pub(crate) fn of(lane: &Lane, last: Option<String>) -> Self {
        let generation = lane.epoch();
        let pods = lane.pods.iter().map(|(name, entry)| {
            let attached = entry.attached();
            let has = attached.map_or(0, |attached| attached.synced);
            PodStatus {
                name: name.clone(),
                generation: has,
                lag: generation.saturating_sub(has),
                in_sync: lane.is_in_sync(entry),
                digest: attached.and_then(|attached| attached.running).map(|hash| hash.to_hex().to_string()),
            }
        });
        Self {
            name: lane.facts.name.clone(),
            target: lane.facts.selection.target.to_string(),
            generation,
            files: lane.files().count(),
            pods: pods.collect(),
            last,
        }
    }
}

impl SessionStatus {
    /// Of all sessions that run. One that has not published anything yet has no
    /// services.
    pub(crate) fn of_all(sessions: Vec<LiveSession>) -> Vec<Self> {
        let one = |session: LiveSession| {
            let published = session.status.and_then(|status| serde_json::from_value::<Published>(status).ok()).unwrap_or_default();
            let Meta { context, pid, started, .. } = session.meta;
            Self { context, pid, started, services: published.services }
        };
        sessions.into_iter().map(one).collect()
    }

    /// What a person reads.
    pub(crate) fn text_of(sessions: &[Self]) -> String {
        if sessions.is_empty() {
            return "no session runs on this machine".to_owned();
        }
        let one = |session: &Self| format!("{} (process {})\n{}", session.context, session.pid, session.table());
        sessions.iter().map(one).collect::<Vec<_>>().join("\n")
    }

    fn table(&self) -> String {
        if self.services.is_empty() {
            return "  it is about to start\n".to_owned();
        }
        let mut rows = Vec::new();
        for service in &self.services {
            for pod in &service.pods {
                let state = if pod.in_sync {
                    "in sync".to_owned()
                } else {
                    format!("{} behind", count(usize::try_from(pod.lag).unwrap_or(usize::MAX), "generation"))
                };
                let digest = pod.digest.as_deref().map_or("-", |digest| digest.get(..12).unwrap_or(digest));
                rows.push(vec![service.name.clone(), pod.name.clone(), pod.generation.to_string(), state, digest.to_owned()]);
            }
            if service.pods.is_empty() {
                rows.push(vec![service.name.clone(), "-".to_owned(), service.generation.to_string(), "no pods".to_owned(), "-".to_owned()]);
            }
        }
        output::table(&["SERVICE", "POD", "GENERATION", "STATE", "RUNS"], &rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_pod() {
        let pod = |name: &str, generation, in_sync, digest: Option<&str>| PodStatus {
            name: name.to_owned(),
            generation,
            lag: 7 - generation,
            in_sync,
            digest: digest.map(str::to_owned),
        };
        let service = |name: &str, pods| ServiceStatus {
            name: name.to_owned(),
            target: format!("deployment/{name}"),
            generation: 7,
            files: 3,
            pods,
            last: None,
        };
        let digest = "0123456789abcdef0123456789abcdef";
        let pods = vec![pod("shop-1", 7, true, Some(digest)), pod("shop-2", 5, false, None)];
        let published = Published { services: vec![service("shop", pods), service("api", Vec::new())] };
        let meta = Meta { context: "kind-kind".to_owned(), services: Vec::new(), pid: 7, started: "2026-01-01T00:00:00Z".to_owned() };
        let live = |status| LiveSession { id: "a".to_owned(), meta: meta.clone(), entries: Vec::new(), status };
        let sessions = SessionStatus::of_all(vec![live(serde_json::to_value(&published).ok()), live(None)]);
        assert_eq!(sessions[0].services, published.services);
        insta::assert_snapshot!(SessionStatus::text_of(&sessions));
        insta::assert_snapshot!(SessionStatus::text_of(&[]), @"no session runs on this machine");
    }
}
