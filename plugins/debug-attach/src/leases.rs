//! Apps that hold a lease (coordination.k8s.io/v1) renew it in time or lose it: who stops
//! one at a breakpoint should know before.

use devloop_core::cluster::Cluster;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use std::time::Duration;

/// Nothing waits for longer than that.
const PATIENCE: Duration = Duration::from_secs(2);

/// What to say about the leases that a pod holds. That they can't be listed is no reason
/// not to attach.
pub(crate) async fn warnings(cluster: &Cluster, pod: &str) -> Vec<String> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    match tokio::time::timeout(PATIENCE, leases.list(&ListParams::default())).await {
        Ok(Ok(list)) => list.items.iter().filter_map(|lease| warning(lease, pod)).collect(),
        Ok(Err(error)) => {
            tracing::info!(%error, "leases can't be listed");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

fn warning(lease: &Lease, pod: &str) -> Option<String> {
    let spec = lease.spec.as_ref()?;
    let duration = spec.lease_duration_seconds?;
    is_held_by(spec.holder_identity.as_deref()?, pod).then(|| {
        format!("the app holds the lease {}: stopped for more than {duration} s it loses that, and may end itself for it", lease.name_any())
    })
}

/// Leader election names the holder by the host's name, which is the pod's, alone or with
/// something unique behind it (client-go, `leaderelection`).
fn is_held_by(holder: &str, pod: &str) -> bool {
    holder.strip_prefix(pod).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_lease_of_the_pod_is_told() {
        let lease = |holder: &str| -> Lease {
            let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": 15});
            serde_json::from_value(json!({"metadata": {"name": "shop-leader"}, "spec": spec})).unwrap()
        };
        let told = warning(&lease("shop-7d9f-x2x4_0b7e"), "shop-7d9f-x2x4").unwrap();
        assert!(told.contains("shop-leader") && told.contains("15 s"), "{told}");
        assert!(warning(&lease("shop-7d9f-x2x4"), "shop-7d9f-x2x4").is_some());
        assert!(warning(&lease("shop-7d9f-x2x45"), "shop-7d9f-x2x4").is_none());
        assert!(warning(&lease("node-1"), "shop-7d9f-x2x4").is_none());
    }
}
