//! kind's convention for a local registry
//! (<https://kind.sigs.k8s.io/docs/user/local-registry/>) as values: what other
//! tools expect to find, letter for letter. Pure.

use devloop_core::registry::Hosting;

/// The container's name; also the registry's name in Docker's networks.
pub(crate) const CONTAINER: &str = "kind-registry";
/// The port that the registry listens at where it runs.
pub(crate) const INNER_PORT: u16 = 5000;
/// The first port of loopback that is tried for it.
pub(crate) const FIRST_PORT: u16 = 5001;
/// Where a node's containerd looks for what registries are really called.
pub(crate) const HOSTS_FOLDER: &str = "/etc/containerd/certs.d";

const HELP: &str = "https://kind.sigs.k8s.io/docs/user/local-registry/";

/// What the registry is called in image names, by people and manifests.
pub(crate) fn host(port: u16) -> String {
    format!("localhost:{port}")
}

/// The files that tell a node's containerd where images of this registry come
/// from, by path. Both names of loopback work: a tool may use either.
pub(crate) fn hosts_files(port: u16, registry: &str) -> Vec<(String, String)> {
    let text = format!("[host.\"http://{registry}\"]\n");
    [host(port), format!("127.0.0.1:{port}")].map(|name| (format!("{HOSTS_FOLDER}/{name}/hosts.toml"), text.clone())).into()
}

/// What the cluster says of its registry. `from_pods` is its name in the
/// cluster's network, where it has one.
pub(crate) fn hosting(port: u16, from_pods: Option<&str>) -> Hosting {
    Hosting { host: host(port), host_from_cluster_network: from_pods.map(str::to_owned), help: Some(HELP.to_owned()), ..Hosting::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_find_the_registry_by_both_names_of_loopback() {
        let text = "[host.\"http://kind-registry:5000\"]\n".to_owned();
        assert_eq!(
            hosts_files(5001, "kind-registry:5000"),
            [
                ("/etc/containerd/certs.d/localhost:5001/hosts.toml".to_owned(), text.clone()),
                ("/etc/containerd/certs.d/127.0.0.1:5001/hosts.toml".to_owned(), text)
            ]
        );
    }
}
