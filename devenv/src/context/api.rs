//! Asking an API server whether it is there.

use crate::provider::NodeSnapshot;
use devloop_core::cluster::explain;
use devloop_core::error::{CommandError, ErrorContext, ErrorHint, Result};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, Client, Config, ResourceExt};
use std::time::Duration;

/// What it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The version of Kubernetes, such as `v1.34.4`.
    pub(super) version: String,
    /// Whether it says that it is ready.
    pub(super) ready: bool,
    /// Its nodes; none where the user may not list them.
    pub(super) nodes: Vec<NodeSnapshot>,
}

/// Asks for the version and for readiness.
pub(super) async fn ask(mut config: Config, patience: Duration) -> Result<Answer> {
    config.connect_timeout = Some(patience.min(Duration::from_secs(5)));
    let server = config.cluster_url.to_string();
    let doing = format!("the API server at {server} does not answer");
    let client = Client::try_from(config).with_context(|| format!("could not make a client for {server}"))?;
    let asked = async {
        let version = client.apiserver_version().await.map_err(|error| explain(error, doing.clone()))?;
        let (ready, nodes) = tokio::join!(is_ready(&client), nodes(&client));
        Ok(Answer { version: version.git_version, ready, nodes })
    };
    match tokio::time::timeout(patience, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(CommandError::new(format!("{doing} within {} s", patience.as_secs())))
            .hint("is the cluster running, and can it be reached from here? see `kubectl cluster-info`"),
    }
}

/// Some clusters keep `/readyz` to themselves: their version is answer enough.
async fn is_ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    match client.request_text(request).await {
        Ok(text) => text.trim() == "ok",
        Err(kube::Error::Api(status)) => matches!(status.code, 401 | 403 | 404),
        Err(_) => false,
    }
}

/// So many nodes are shown; nobody reads more.
const SHOWN_NODES: u32 = 100;

async fn nodes(client: &Client) -> Vec<NodeSnapshot> {
    let listed = Api::<Node>::all(client.clone()).list(&ListParams::default().limit(SHOWN_NODES)).await;
    let listed = listed.inspect_err(|error| tracing::debug!(%error, "the nodes can't be listed"));
    listed.map(|list| list.items.iter().map(node).collect()).unwrap_or_default()
}

fn node(node: &Node) -> NodeSnapshot {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready").map(|condition| condition.status == "True");
    let control_plane = node.labels().contains_key("node-role.kubernetes.io/control-plane");
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default();
    NodeSnapshot {
        name: node.name_any(),
        role: if control_plane { "control-plane" } else { "worker" }.to_owned(),
        state: if cordoned { "cordoned" } else { "schedulable" }.to_owned(),
        ready,
        version: status.and_then(|status| status.node_info.as_ref()).map(|info| info.kubelet_version.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_shown_as_the_api_describes_it() {
        let of = |json: serde_json::Value| node(&serde_json::from_value(json).unwrap());
        let ready = of(serde_json::json!({
            "metadata": {"name": "a", "labels": {"node-role.kubernetes.io/control-plane": ""}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {
                "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "",
                "kubeletVersion": "v1.34.4", "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": ""}}
        }));
        let expected = NodeSnapshot {
            name: "a".into(),
            role: "control-plane".into(),
            state: "schedulable".into(),
            ready: Some(true),
            version: Some("v1.34.4".into()),
        };
        assert_eq!(ready, expected);
        let bare = of(serde_json::json!({"metadata": {"name": "b"}, "spec": {"unschedulable": true}}));
        assert_eq!((bare.role.as_str(), bare.state.as_str(), bare.ready, bare.version), ("worker", "cordoned", None, None));
    }
}
