//! Finding out that a component does its work, as soon as it does.

use super::bootstrap;
use super::components::Milestone;
use super::node_files::Settings;
use super::registry::announce;
use crate::registry::convention::INNER_PORT;
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client, Config};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::{TcpStream, UdpSocket, UnixStream};
use tokio::sync::mpsc;

const PAUSE: Duration = Duration::from_millis(10);

/// Watches for every milestone that no component's end announces, and tells
/// each when it is reached. Probes never give up: who waits sets the limit.
pub(crate) fn spawn(settings: &Settings, reached_tx: &mpsc::UnboundedSender<Milestone>) {
    let tell = |milestone: Milestone| {
        let reached_tx = reached_tx.clone();
        // The receiver lives as long as the process.
        move || {
            let _ = reached_tx.send(milestone);
        }
    };
    let containerd = tell(Milestone::Containerd);
    tokio::spawn(async move {
        until(|| async { UnixStream::connect("/run/containerd/containerd.sock").await.is_ok() }).await;
        containerd();
    });
    let etcd = tell(Milestone::Etcd);
    tokio::spawn(async move {
        tcp_accepts((Ipv4Addr::LOCALHOST, 2379).into()).await;
        etcd();
    });
    let (serving, ready, bootstrapped) = (tell(Milestone::ApiServing), tell(Milestone::ApiReady), tell(Milestone::Bootstrap));
    let (node_ready, dns, service_account) = (tell(Milestone::NodeReady), tell(Milestone::Dns), tell(Milestone::ServiceAccount));
    let (registry, registry_port) = (tell(Milestone::Registry), settings.registry_port);
    let (address, node_name) = (settings.addresses.node(), settings.node_name());
    tokio::spawn(async move {
        tcp_accepts((address, 6443).into()).await;
        serving();
        let client = admin_client().await;
        let watched = client.clone();
        tokio::spawn(async move {
            node_becomes_ready(&watched, &node_name).await;
            node_ready();
        });
        until(|| api_is_ready(&client)).await;
        ready();
        until(|| async { bootstrap::apply(&client).await.inspect_err(|error| tracing::debug!(%error, "bootstrap")).is_ok() }).await;
        bootstrapped();
        let announcing = client.clone();
        tokio::spawn(async move {
            if registry_port.is_some() {
                tcp_accepts((Ipv4Addr::LOCALHOST, INNER_PORT).into()).await;
            }
            // Its namespace comes a moment after the API is ready.
            until(|| async {
                announce(&announcing, registry_port).await.inspect_err(|error| tracing::debug!(%error, "announcing")).is_ok()
            })
            .await;
            registry();
        });
        let accounts: Api<ServiceAccount> = Api::namespaced(client, "default");
        tokio::spawn(async move {
            until(|| async { accounts.get_opt("default").await.is_ok_and(|account| account.is_some()) }).await;
            service_account();
        });
        until(|| async move { dns_answers(address).await.unwrap_or(false) }).await;
        dns();
    });
}

async fn until<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    while !condition().await {
        tokio::time::sleep(PAUSE).await;
    }
}

async fn tcp_accepts(address: SocketAddr) {
    until(|| async move { TcpStream::connect(address).await.is_ok() }).await;
}

async fn admin_client() -> Client {
    loop {
        match try_admin_client().await {
            Ok(client) => return client,
            Err(error) => tracing::warn!(error, "could not make an API client"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn try_admin_client() -> Result<Client, String> {
    let kubeconfig = Kubeconfig::read_from("/etc/kubernetes/admin.conf").map_err(|error| error.to_string())?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(|error| error.to_string())?;
    config.default_retry = false;
    // The node asks itself, whatever proxy the user's programs go through.
    config.proxy_url = None;
    Client::try_from(config).map_err(|error| error.to_string())
}

async fn api_is_ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    client.request_text(request).await.is_ok_and(|answer| answer == "ok")
}

/// With kept state the node's object is there from before, and still says Ready
/// although its kubelet has yet to start: only a heartbeat after our own start
/// counts.
fn is_ready_since(start: jiff::Timestamp) -> impl Condition<Node> {
    move |node: Option<&Node>| {
        let conditions = node.and_then(|node| node.status.as_ref()).and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        conditions.iter().any(|condition| {
            // Heartbeats have whole seconds.
            let fresh = condition.last_heartbeat_time.as_ref().is_some_and(|time| time.0.as_second() >= start.as_second());
            condition.type_ == "Ready" && condition.status == "True" && fresh
        })
    }
}

async fn node_becomes_ready(client: &Client, name: &str) {
    let start = jiff::Timestamp::now();
    let nodes: Api<Node> = Api::all(client.clone());
    while let Err(error) = await_condition(nodes.clone(), name, is_ready_since(start)).await {
        tracing::debug!(%error, "watching the node");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks cluster DNS for the address of the Service that every cluster has.
async fn dns_answers(server: Ipv4Addr) -> std::io::Result<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect((server, 53)).await?;
    socket.send(&dns_query("kubernetes.default.svc.cluster.local")).await?;
    let mut answer = [0; 512];
    match tokio::time::timeout(Duration::from_millis(200), socket.recv(&mut answer)).await {
        Ok(received) => Ok(has_answers(&answer[..received?])),
        Err(_) => Ok(false),
    }
}

/// A question for an A record (RFC 1035, section 4.1).
fn dns_query(name: &str) -> Vec<u8> {
    const HEADER: [u8; 12] = [0x64, 0x6c, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    let mut query = HEADER.to_vec();
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap_or(63));
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// Whether a reply has no error code and at least one answer.
fn has_answers(reply: &[u8]) -> bool {
    reply.len() >= 12 && reply[3] & 0x0f == 0 && u16::from_be_bytes([reply[6], reply[7]]) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_laid_out_by_the_book_and_errors_are_no_answer() {
        let query = dns_query("a.bc");
        assert_eq!(&query[12..], [1, b'a', 2, b'b', b'c', 0, 0, 1, 0, 1]);
        assert!(!has_answers(&query));
        let mut reply = query.clone();
        reply[7] = 1;
        assert!(has_answers(&reply));
        reply[3] = 0x83;
        assert!(!has_answers(&reply));
    }
}
