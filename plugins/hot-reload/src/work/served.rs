//! Whether pods serve, by asking them.

use crate::probe::{Asked, Probe, Way};
use crate::report::Report;
use crate::session::Event;
use devloop_core::cluster::Cluster;
use futures::future;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use std::time::Duration;

/// How long a pod may take to answer the probe.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// Something to tell once every pod answers the probe.
#[derive(Debug)]
pub(crate) struct Announcement {
    pub(crate) report: Report,
    pub(crate) asked: Vec<Asked>,
    /// What the pods run then, or the answers were another program's.
    pub(crate) running: Option<blake3::Hash>,
}

/// Asks pods until the last of them has answered, or one doesn't.
pub(crate) async fn await_served(cluster: Cluster, lane: usize, probe: Probe, announcement: Announcement) -> Event {
    let api: Api<Pod> = Api::namespaced(cluster.client, &cluster.namespace);
    let asked = announcement.asked.iter().map(|asked| probe.served(&api, asked, PROBE_LIMIT));
    let answers = future::join_all(asked).await;
    let ways = announcement.asked.iter().zip(&answers);
    let ways = ways.filter_map(|(asked, answer)| answer.map(|(_, way)| (asked.pod.clone(), way))).collect();
    let durations: Option<Vec<Duration>> = answers.into_iter().map(|answer| answer.map(|(duration, _)| duration)).collect();
    let served = durations.and_then(|durations| durations.into_iter().max());
    Event::Served { lane, announcement: Box::new(announcement), served, ways }
}

/// Finds out beforehand how a pod answers, so that it does not count as time to
/// serve a change.
pub(crate) async fn find_way(cluster: Cluster, lane: usize, probe: Probe, asked: Asked) -> Event {
    let api: Api<Pod> = Api::namespaced(cluster.client, &cluster.namespace);
    let way: Option<Way> = probe.served(&api, &asked, PROBE_LIMIT).await.map(|(_, way)| way);
    Event::WaysFound { lane, ways: way.map(|way| (asked.pod, way)).into_iter().collect() }
}
