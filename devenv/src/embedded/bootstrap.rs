//! The objects that a node's components need in the API before they can work.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};

/// The user that CoreDNS is, by its certificate.
pub(crate) const COREDNS_USER: &str = "system:coredns";

/// Applies the objects; again and again is fine.
pub(crate) async fn apply(client: &Client) -> kube::Result<()> {
    let params = PatchParams::apply("devloop-bootstrap").force();
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    let (role, binding) = coredns();
    roles.patch(COREDNS_USER, &params, &Patch::Apply(&role)).await?;
    bindings.patch(COREDNS_USER, &params, &Patch::Apply(&binding)).await?;
    Ok(())
}

/// What CoreDNS' kubernetes plugin watches.
fn coredns() -> (ClusterRole, ClusterRoleBinding) {
    let metadata = || ObjectMeta { name: Some(COREDNS_USER.into()), ..ObjectMeta::default() };
    let watch = |group: &str, resources: &[&str]| PolicyRule {
        api_groups: Some(vec![group.into()]),
        resources: Some(resources.iter().map(|resource| (*resource).into()).collect()),
        verbs: vec!["list".into(), "watch".into()],
        ..PolicyRule::default()
    };
    let rules = vec![watch("", &["services", "pods", "namespaces", "endpoints"]), watch("discovery.k8s.io", &["endpointslices"])];
    let role = ClusterRole { metadata: metadata(), rules: Some(rules), ..ClusterRole::default() };
    let group = "rbac.authorization.k8s.io";
    let binding = ClusterRoleBinding {
        metadata: metadata(),
        role_ref: RoleRef { api_group: group.into(), kind: "ClusterRole".into(), name: COREDNS_USER.into() },
        subjects: Some(vec![Subject { api_group: Some(group.into()), kind: "User".into(), name: COREDNS_USER.into(), namespace: None }]),
    };
    (role, binding)
}
