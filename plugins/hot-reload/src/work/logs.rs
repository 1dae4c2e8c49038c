//! What pods said of late, for the user who asks.

use crate::session::Event;
use devloop_core::cluster::Cluster;
use devloop_core::logs::last_lines;

/// Lines of each pod.
const LINES: u32 = 20;

pub(crate) async fn logs(cluster: Cluster, pod: String, container: String) -> Event {
    let outcome = last_lines(&cluster.client, &cluster.namespace, &pod, &container, false, LINES).await;
    Event::Logs { pod, outcome }
}
