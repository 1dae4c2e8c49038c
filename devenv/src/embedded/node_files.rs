//! The configuration files of a node's components, as text.
//!
//! Paths are the node's own: its root is put together in `rootfs`.

use super::addresses::Addresses;
use std::fmt::Write as _;
use std::net::IpAddr;

/// What the configuration depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The environment's name.
    pub(crate) name: String,
    pub(crate) addresses: Addresses,
    /// Name servers that the node can reach.
    pub(crate) name_servers: Vec<IpAddr>,
    /// Whether this process may raise resource limits (CAP_SYS_RESOURCE).
    pub(crate) can_raise_limits: bool,
    /// The image registry's port on the host's loopback, if there is one.
    pub(crate) registry_port: Option<u16>,
}

impl Settings {
    pub(crate) fn node_name(&self) -> String {
        format!("devloop-{}", self.name)
    }

    /// The environment's own cgroup, in every hierarchy.
    pub(crate) fn cgroup(&self) -> String {
        format!("/{}", self.addresses.cgroup(&self.name))
    }
}

/// The image of the pod sandbox; it is made here, never pulled.
pub(crate) const PAUSE_IMAGE: &str = "devloop.local/pause:3.10";

/// Every file of the node's `/etc`, by path below it.
pub(crate) fn etc(settings: &Settings) -> Vec<(&'static str, String)> {
    let mut files = vec![
        ("hostname", format!("{}\n", settings.node_name())),
        ("hosts", format!("127.0.0.1 localhost\n{} {}\n", settings.addresses.node(), settings.node_name())),
        ("resolv.conf", resolv_conf(settings)),
        ("passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n".to_owned()),
        ("group", "root:x:0:\nnogroup:x:65534:\n".to_owned()),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
        ("containerd/config.toml", containerd(settings)),
        ("cni/net.d/10-devloop.conflist", cni(settings)),
        ("kubernetes/kubelet.yaml", kubelet(settings)),
        ("kubernetes/kube-proxy.yaml", kube_proxy(settings)),
        ("coredns/Corefile", corefile(settings)),
    ];
    files.extend(
        [
            ("kubernetes/admin.conf", "admin"),
            ("kubernetes/controller-manager.conf", "controller-manager"),
            ("kubernetes/scheduler.conf", "scheduler"),
            ("kubernetes/kubelet.conf", "kubelet"),
            ("kubernetes/kube-proxy.conf", "kube-proxy"),
            ("kubernetes/coredns.conf", "coredns"),
        ]
        .map(|(path, certificate)| (path, component_kubeconfig(settings, certificate))),
    );
    files
}

fn resolv_conf(settings: &Settings) -> String {
    let mut text = String::new();
    for server in &settings.name_servers {
        // Writing to a string can't fail.
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

fn component_kubeconfig(settings: &Settings, certificate: &str) -> String {
    let server = settings.addresses.node();
    format!(
        "\
apiVersion: v1
kind: Config
clusters:
- name: devloop
  cluster:
    server: https://{server}:6443
    certificate-authority: /etc/kubernetes/pki/ca.crt
users:
- name: devloop
  user:
    client-certificate: /etc/kubernetes/pki/{certificate}.crt
    client-key: /etc/kubernetes/pki/{certificate}.key
contexts:
- name: devloop
  context: {{cluster: devloop, user: devloop}}
current-context: devloop
"
    )
}

/// containerd 1.6's configuration, version 2.
fn containerd(settings: &Settings) -> String {
    // Lowering a process's OOM score needs CAP_SYS_RESOURCE.
    let restrict = !settings.can_raise_limits;
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = {restrict}
disable_apparmor = true
tolerate_missing_hugetlb_controller = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"
"#
    )
}

/// Every pod on a routed point-to-point link: traffic between two pods passes
/// the node's packet filter, so that Services work between pods of one node.
fn cni(settings: &Settings) -> String {
    let pods = settings.addresses.pod_cidr();
    format!(
        r#"{{
  "cniVersion": "0.4.0",
  "name": "devloop",
  "plugins": [
    {{
      "type": "ptp",
      "ipMasq": false,
      "ipam": {{
        "type": "host-local",
        "dataDir": "/run/cni-ipam",
        "ranges": [[{{"subnet": "{pods}"}}]],
        "routes": [{{"dst": "0.0.0.0/0"}}]
      }}
    }},
    {{"type": "portmap", "capabilities": {{"portMappings": true}}}}
  ]
}}
"#
    )
}

fn kubelet(settings: &Settings) -> String {
    let node = settings.addresses.node();
    let cgroup = settings.cgroup();
    let user_namespace = !settings.can_raise_limits;
    format!(
        "\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {node}
healthzBindAddress: 127.0.0.1
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: /etc/kubernetes/pki/ca.crt}}
authorization: {{mode: Webhook}}
tlsCertFile: /etc/kubernetes/pki/kubelet-server.crt
tlsPrivateKeyFile: /etc/kubernetes/pki/kubelet-server.key
cgroupDriver: cgroupfs
cgroupRoot: {cgroup}
clusterDNS: [{node}]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
resolvConf: /etc/resolv.conf
failSwapOn: false
failCgroupV1: false
featureGates: {{KubeletInUserNamespace: {user_namespace}}}
# Images are delivered, not pulled: one that was collected could not come back.
imageGCHighThresholdPercent: 100
# The machine is its user's, who has better use for its disk and its page cache than to
# have pods put out of it; as kind has it.
evictionHard: {{memory.available: 0%, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%}}
serializeImagePulls: false
registryPullQPS: 0
registryBurst: 0
eventRecordQPS: 0
kubeAPIQPS: 100
kubeAPIBurst: 200
maxPods: 200
nodeStatusUpdateFrequency: 10s
syncFrequency: 10s
volumePluginDir: /var/lib/kubelet/volumeplugins
"
    )
}

fn kube_proxy(settings: &Settings) -> String {
    let node = settings.addresses.node();
    let pods = settings.addresses.pod_cidr();
    format!(
        "\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: {node}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
clientConnection: {{kubeconfig: /etc/kubernetes/kube-proxy.conf}}
clusterCIDR: {pods}
mode: iptables
# The table's size is the whole machine's: not ours to change.
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
iptables: {{minSyncPeriod: 100ms, syncPeriod: 30s}}
"
    )
}

fn corefile(settings: &Settings) -> String {
    let node = settings.addresses.node();
    let forward = match settings.name_servers.as_slice() {
        // Names of the outside world fail at once instead of timing out.
        [] => String::new(),
        servers => format!("    forward . {}\n", servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
    };
    format!(
        "\
.:53 {{
    bind {node}
    errors
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig /etc/kubernetes/coredns.conf
        pods insecure
        ttl 5
        fallthrough in-addr.arpa ip6.arpa
    }}
    cache 30
{forward}}}
"
    )
}

/// Name servers of the host that a separate network can reach: those on
/// loopback are left out (a local stub resolver's own upstreams are read from
/// systemd-resolved's file by the caller).
pub(crate) fn reachable_name_servers(resolv_conf: &str) -> Vec<IpAddr> {
    let servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    servers.filter(|address| address.is_ipv4() && !address.is_loopback()).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { name: "dev".into(), addresses: Addresses::new(1), name_servers: vec![], can_raise_limits: false, registry_port: None }
    }

    #[test]
    fn name_servers_on_loopback_are_left_out() {
        let text = "# stub\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nnameserver ::1\noptions edns0\n";
        assert_eq!(reachable_name_servers(text), [IpAddr::from([192, 0, 2, 53])]);
    }

    #[test]
    fn yaml_files_are_yaml_and_json_is_json() {
        for (path, text) in etc(&settings()) {
            if path.ends_with(".yaml") || path.ends_with(".conf") && path.starts_with("kubernetes") {
                serde_yaml_ng::from_str::<serde_yaml_ng::Mapping>(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
            }
            if path.ends_with(".conflist") {
                serde_json::from_str::<serde_json::Value>(&text).unwrap();
            }
        }
    }

    #[test]
    fn without_name_servers_nothing_is_forwarded() {
        assert!(!corefile(&settings()).contains("forward"));
        let online = Settings { name_servers: vec![[192, 0, 2, 53].into()], ..settings() };
        assert!(corefile(&online).contains("    forward . 192.0.2.53\n"));
    }
}
