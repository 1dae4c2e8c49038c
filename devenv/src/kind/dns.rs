//! Cluster DNS of a new cluster, sooner.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

/// How often CoreDNS is asked whether it is ready, in seconds. It is a second or
/// two after its start, but asked too early once, only every ten seconds then,
/// and until the answer no name is found.
const PERIOD: u32 = 1;

/// Has CoreDNS asked more often. A cluster without it, or one that doesn't want
/// that, is as good.
pub(super) async fn ask_often(client: &Client) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "kube-system");
    let container = json!({"name": "coredns", "readinessProbe": {"periodSeconds": PERIOD}});
    let patch = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    let params = PatchParams { field_manager: Some("devloop".to_owned()), ..PatchParams::default() };
    if let Err(error) = deployments.patch("coredns", &params, &Patch::Strategic(patch)).await {
        tracing::debug!(%error, "cluster DNS is asked as often as it was");
    }
}
