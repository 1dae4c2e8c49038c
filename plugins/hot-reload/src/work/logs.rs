//! What pods said of late, for the user who asks.

use crate::session::Event;
use devloop_core::cluster::Cluster;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;

/// Lines of each pod.
const LINES: i64 = 20;

pub(crate) async fn logs(cluster: Cluster, pod: String, container: String) -> Event {
    let pods: Api<Pod> = Api::namespaced(cluster.client, &cluster.namespace);
    let parameters = LogParams { container: Some(container), tail_lines: Some(LINES), ..LogParams::default() };
    let outcome = pods.logs(&pod, &parameters).await;
    Event::Logs { pod, outcome }
}
