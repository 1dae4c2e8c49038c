//! A way from this machine to the pods of a kind cluster, past the API, so that
//! what is measured is not the API's proxy.

use devloop_tests::environment::Environment;
use devloop_tests::program::Program;

/// A route, removed when dropped.
#[derive(Debug)]
pub(crate) struct Route {
    pods: String,
    node: String,
}

impl Route {
    /// To the pods of the one node of a cluster.
    pub(crate) fn to_pods(environment: &Environment) -> Self {
        let path = "jsonpath={.items[0].spec.podCIDR} {.items[0].status.addresses[?(@.type==\"InternalIP\")].address}";
        let answer = environment.kubectl(["get", "nodes", "-o", path]).run().ok();
        let words: Vec<&str> = answer.split_whitespace().collect();
        let [pods, node] = words[..] else { panic!("the node has no addresses: {answer}") };
        Program::new("ip").args(["route", "replace", pods, "via", node]).run().ok();
        Self { pods: pods.to_owned(), node: node.to_owned() }
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        // It went with the cluster's bridge, perhaps.
        let _ = Program::new("ip").args(["route", "delete", &self.pods, "via", &self.node]).run();
    }
}
