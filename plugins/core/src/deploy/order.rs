//! What is applied before what, and what is never removed. Pure.

use super::manifest::Manifest;

/// What must be there first comes first: objects of one rank don't need each
/// other.
pub(super) fn rank(kind: &str) -> u8 {
    match kind {
        "Namespace" => 0,
        "CustomResourceDefinition" | "StorageClass" | "PriorityClass" | "RuntimeClass" | "IngressClass" => 1,
        "ServiceAccount" | "ResourceQuota" | "LimitRange" | "NetworkPolicy" | "Role" | "ClusterRole" | "PersistentVolume" => 2,
        "Secret" | "ConfigMap" | "PersistentVolumeClaim" | "RoleBinding" | "ClusterRoleBinding" => 3,
        "Service" => 4,
        "Pod" | "ReplicaSet" | "ReplicationController" | "Deployment" | "StatefulSet" | "DaemonSet" | "Job" | "CronJob" => 6,
        "HorizontalPodAutoscaler" | "Ingress" | "PodDisruptionBudget" | "APIService" => 7,
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => 8,
        _ => 5,
    }
}

/// Why an object of this kind is left in the cluster though no manifest has it
/// any more; nothing when it may go.
pub(super) fn reason_to_keep(kind: &str) -> Option<&'static str> {
    match kind {
        "Namespace" => Some("all that is in it would go, too"),
        "CustomResourceDefinition" => Some("all objects of its kind would go, too"),
        "PersistentVolumeClaim" | "PersistentVolume" => Some("it may hold data"),
        _ => None,
    }
}

/// Whether one of the manifests defines the kind of another.
pub(super) fn defined_by(all: &[&Manifest], manifest: &Manifest) -> bool {
    all.iter().any(|other| {
        other.kind() == "CustomResourceDefinition"
            && other.object["spec"]["group"] == manifest.group()
            && other.object["spec"]["names"]["kind"] == manifest.kind()
    })
}

/// Whether one of the manifests is this namespace.
pub(super) fn creates_namespace(all: &[&Manifest], namespace: Option<&str>) -> bool {
    all.iter().any(|other| other.kind() == "Namespace" && Some(other.name()) == namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_need_comes_first() {
        let order = [
            "Namespace",
            "CustomResourceDefinition",
            "ServiceAccount",
            "ConfigMap",
            "Service",
            "SomethingOfTheirs",
            "Deployment",
            "Ingress",
            "ValidatingWebhookConfiguration",
        ];
        assert!(order.is_sorted_by_key(|kind| rank(kind)));
        assert!(rank("Role") < rank("RoleBinding") && rank("PersistentVolume") < rank("PersistentVolumeClaim"));
        assert!(reason_to_keep("PersistentVolumeClaim").is_some() && reason_to_keep("Deployment").is_none());
    }
}
