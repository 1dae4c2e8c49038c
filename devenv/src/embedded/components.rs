//! Which programs make up a node, with which flags, in which order.

use super::node_files::Settings;
use super::registry;

/// Something that has happened during start-up and that others wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Milestone {
    /// containerd's socket accepts.
    Containerd,
    /// etcd's port accepts.
    Etcd,
    /// The API server's port accepts.
    ApiServing,
    /// The API server says it is ready (`/readyz`).
    ApiReady,
    /// The sandbox image is in containerd.
    PauseImage,
    /// The objects that components need are in the API.
    Bootstrap,
    /// The node is Ready.
    NodeReady,
    /// Cluster DNS answers for `kubernetes.default`.
    Dns,
    /// Pods can be created: the default namespace has its service account.
    ServiceAccount,
    /// The image registry accepts, and the cluster says where it is. Nothing
    /// waits for it but `up`.
    Registry,
}

impl Milestone {
    /// All that can make up readiness.
    const ALL: [Self; 10] = [
        Self::Containerd,
        Self::Etcd,
        Self::ApiServing,
        Self::ApiReady,
        Self::PauseImage,
        Self::Bootstrap,
        Self::NodeReady,
        Self::Dns,
        Self::ServiceAccount,
        Self::Registry,
    ];

    /// Those that make up the readiness of a node with or without a registry.
    pub(crate) fn awaited(with_registry: bool) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |milestone| with_registry || *milestone != Self::Registry)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Etcd => "etcd",
            Self::ApiServing => "apiServing",
            Self::ApiReady => "apiReady",
            Self::PauseImage => "pauseImage",
            Self::Bootstrap => "bootstrap",
            Self::NodeReady => "nodeReady",
            Self::Dns => "dns",
            Self::ServiceAccount => "serviceAccount",
            Self::Registry => registry::COMPONENT,
        }
    }

    /// The component to blame when it isn't reached.
    pub(crate) fn component(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Etcd => "etcd",
            Self::ApiServing | Self::ApiReady | Self::Bootstrap => "kube-apiserver",
            Self::PauseImage => "pause-image",
            Self::NodeReady => "kubelet",
            Self::Dns => "coredns",
            Self::ServiceAccount => "kube-controller-manager",
            Self::Registry => registry::COMPONENT,
        }
    }
}

/// One program of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Component {
    pub(crate) name: &'static str,
    pub(crate) argv: Vec<String>,
    /// What must have happened before it is started.
    pub(crate) after: &'static [Milestone],
    /// Reached when it ends well; `None` for one that is to run for ever.
    pub(crate) completes: Option<Milestone>,
}

/// The multi-call binary on the node.
const NODE_BINARY: &str = "/opt/devloop/bin/devloop-node";
/// The archive of the sandbox image on the node.
pub(crate) const PAUSE_ARCHIVE: &str = "/var/lib/devloop/pause.tar";
const PKI: &str = "/etc/kubernetes/pki";

/// The components of a node, in the order in which they are started.
pub(crate) fn all(settings: &Settings) -> Vec<Component> {
    use Milestone::{ApiReady, ApiServing, Bootstrap, Containerd, Etcd, PauseImage};
    let of_node = |name: &'static str, after: &'static [Milestone], flags: Vec<String>| {
        let argv = [NODE_BINARY.to_owned(), name.to_owned()].into_iter().chain(flags).collect();
        Component { name, argv, after, completes: None }
    };
    let import = ["ctr", "--namespace", "k8s.io", "images", "import", PAUSE_ARCHIVE];
    let mut components = vec![
        of_node("etcd", &[], etcd(settings)),
        Component {
            name: "containerd",
            argv: vec!["containerd".into(), "--config".into(), "/etc/containerd/config.toml".into()],
            after: &[],
            completes: None,
        },
        of_node("kube-apiserver", &[Etcd], api_server(settings)),
        Component { name: "pause-image", argv: import.map(str::to_owned).to_vec(), after: &[Containerd], completes: Some(PauseImage) },
        of_node("kubelet", &[Containerd, ApiServing], kubelet(settings)),
        of_node("kube-scheduler", &[ApiReady], scheduler()),
        of_node("kube-controller-manager", &[ApiReady], controller_manager(settings)),
        of_node(
            "kube-proxy",
            &[ApiReady],
            vec!["--config=/etc/kubernetes/kube-proxy.yaml".into(), format!("--hostname-override={}", settings.node_name())],
        ),
        of_node("coredns", &[Bootstrap], vec!["-conf".into(), "/etc/coredns/Corefile".into()]),
    ];
    if settings.registry_port.is_some() {
        // Ready in no time: started once the processor has nothing more urgent.
        components.push(Component { name: registry::COMPONENT, argv: registry::argv(), after: &[ApiServing], completes: None });
    }
    components
}

fn etcd(settings: &Settings) -> Vec<String> {
    let name = settings.node_name();
    [
        format!("--name={name}"),
        "--data-dir=/var/lib/etcd".into(),
        "--listen-client-urls=https://127.0.0.1:2379".into(),
        "--advertise-client-urls=https://127.0.0.1:2379".into(),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        "--initial-advertise-peer-urls=http://127.0.0.1:2380".into(),
        format!("--initial-cluster={name}=http://127.0.0.1:2380"),
        format!("--trusted-ca-file={PKI}/etcd-ca.crt"),
        format!("--cert-file={PKI}/etcd.crt"),
        format!("--key-file={PKI}/etcd.key"),
        "--client-cert-auth".into(),
        "--snapshot-count=10000".into(),
        "--auto-compaction-retention=1".into(),
        "--log-level=warn".into(),
        // A single member elects itself; a shorter tick gets it there sooner.
        "--heartbeat-interval=10".into(),
        "--election-timeout=100".into(),
    ]
    .into()
}

fn api_server(settings: &Settings) -> Vec<String> {
    let node = settings.addresses.node();
    [
        format!("--advertise-address={node}"),
        format!("--bind-address={node}"),
        "--secure-port=6443".into(),
        "--etcd-servers=https://127.0.0.1:2379".into(),
        format!("--etcd-cafile={PKI}/etcd-ca.crt"),
        format!("--etcd-certfile={PKI}/apiserver-etcd-client.crt"),
        format!("--etcd-keyfile={PKI}/apiserver-etcd-client.key"),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        format!("--client-ca-file={PKI}/ca.crt"),
        format!("--tls-cert-file={PKI}/apiserver.crt"),
        format!("--tls-private-key-file={PKI}/apiserver.key"),
        format!("--kubelet-certificate-authority={PKI}/ca.crt"),
        format!("--kubelet-client-certificate={PKI}/apiserver-kubelet-client.crt"),
        format!("--kubelet-client-key={PKI}/apiserver-kubelet-client.key"),
        // The node's name is known to nobody's resolver.
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--service-cluster-ip-range={}", settings.addresses.service_cidr()),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-key-file={PKI}/sa.pub"),
        format!("--service-account-signing-key-file={PKI}/sa.key"),
        format!("--requestheader-client-ca-file={PKI}/front-proxy-ca.crt"),
        "--requestheader-allowed-names=front-proxy-client".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        format!("--proxy-client-cert-file={PKI}/front-proxy-client.crt"),
        format!("--proxy-client-key-file={PKI}/front-proxy-client.key"),
        "--profiling=false".into(),
    ]
    .into()
}

fn controller_manager(settings: &Settings) -> Vec<String> {
    let kubeconfig = "/etc/kubernetes/controller-manager.conf";
    [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".into(),
        "--leader-elect=false".into(),
        "--use-service-account-credentials=true".into(),
        "--controllers=*,bootstrap-signer-controller,token-cleaner-controller".into(),
        format!("--service-account-private-key-file={PKI}/sa.key"),
        format!("--root-ca-file={PKI}/ca.crt"),
        format!("--client-ca-file={PKI}/ca.crt"),
        format!("--cluster-cidr={}", settings.addresses.pod_cidr()),
        format!("--service-cluster-ip-range={}", settings.addresses.service_cidr()),
        "--allocate-node-cidrs=false".into(),
        // Each controller asks for its own token at the start: the default rate
        // would hold the last of them back for seconds.
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
        "--profiling=false".into(),
    ]
    .into()
}

fn scheduler() -> Vec<String> {
    let kubeconfig = "/etc/kubernetes/scheduler.conf";
    [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".into(),
        "--leader-elect=false".into(),
        "--profiling=false".into(),
    ]
    .into()
}

fn kubelet(settings: &Settings) -> Vec<String> {
    [
        "--config=/etc/kubernetes/kubelet.yaml".into(),
        "--kubeconfig=/etc/kubernetes/kubelet.conf".into(),
        format!("--hostname-override={}", settings.node_name()),
        format!("--node-ip={}", settings.addresses.node()),
        "--root-dir=/var/lib/kubelet".into(),
    ]
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_component_can_be_started_in_the_order_given() {
        let settings = Settings {
            name: "dev".into(),
            addresses: super::super::addresses::Addresses::new(0),
            name_servers: vec![],
            can_raise_limits: true,
            registry_port: Some(5001),
        };
        let components = all(&settings);
        for milestone in components.iter().flat_map(|component| component.after) {
            assert!(components.iter().any(|component| component.name == milestone.component()), "{milestone:?} is nobody's");
        }
        let mut names: Vec<_> = components.iter().map(|component| component.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), components.len());
    }
}
