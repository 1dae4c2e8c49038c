//! What was found out: plain values, so that checks can be tried on any.

use devloop_core::docker::Survey;
use devloop_core::environment::Phase;
use std::collections::BTreeMap;

/// A value, or why it could not be found out.
pub(crate) type Known<T> = Result<T, String>;

/// Everything that checks look at.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) machine: Known<Machine>,
    pub(crate) programs: Known<Programs>,
    pub(crate) disks: Known<Vec<Disk>>,
    pub(crate) docker: Known<Docker>,
    pub(crate) proxy: Proxy,
    pub(crate) kubeconfig: Known<Kubeconfig>,
    pub(crate) environments: Known<Vec<Environment>>,
    /// The version of Kubernetes that the embedded engine runs.
    pub(crate) embedded_version: String,
}

/// The kernel and what this process may do.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) supported: bool,
    pub(crate) root: bool,
    pub(crate) capabilities: Known<Capabilities>,
    /// 1 or 2.
    pub(crate) cgroup_version: Known<u8>,
    pub(crate) inotify: Known<Inotify>,
    pub(crate) memory: Known<Memory>,
}

/// Capability sets of `capabilities(7)`, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) effective: u64,
    pub(crate) bounding: u64,
}

/// Limits of `inotify(7)`, per user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inotify {
    pub(crate) watches: u64,
    pub(crate) instances: u64,
    /// Instances that this user's processes hold.
    pub(crate) used: u64,
}

/// Memory in bytes, of this machine or of the control group we are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) available: u64,
    pub(crate) total: u64,
}

/// A folder that needs room.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// What is kept there.
    pub(crate) what: &'static str,
    pub(crate) path: String,
    pub(crate) space: Known<Space>,
}

/// Room of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) free: u64,
    pub(crate) total: u64,
    pub(crate) free_files: u64,
    pub(crate) total_files: u64,
}

/// Programs that engines are made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Programs {
    /// Debian packages whose programs the embedded node needs.
    pub(crate) missing_packages: Vec<String>,
    /// Whether the node's own programs are in the cache.
    pub(crate) node_built: bool,
    /// What `go version` says.
    pub(crate) go: Option<Known<String>>,
    pub(crate) kind: bool,
    pub(crate) kubectl: bool,
}

/// What came of looking for an engine.
#[derive(Clone, Debug)]
pub(crate) enum Docker {
    /// The user's settings lead nowhere.
    Misconfigured(String),
    /// Nobody listens.
    Absent(String),
    /// Somebody does, but not to us.
    Denied(String),
    /// It is too old.
    TooOld(String),
    /// It works.
    Answers(Box<Engine>),
}

/// An engine that answers.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) version: String,
    pub(crate) endpoint: String,
    pub(crate) survey: Known<Survey>,
    /// The bounding set of its process, where that is one of this machine.
    pub(crate) bounding: Known<u64>,
    pub(crate) node_images: Known<Vec<String>>,
    /// Whether the registry of kind's node images answers the engine; asked
    /// only when none is there.
    pub(crate) can_pull: Option<Known<()>>,
    /// kind's clusters; whether each has a node that runs.
    pub(crate) clusters: Known<BTreeMap<String, bool>>,
    /// Seconds that its clock is ahead of ours.
    pub(crate) clock_ahead: Option<i64>,
}

/// The proxy settings of the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// Variable and value of each that is set.
    pub(crate) proxies: Vec<(String, String)>,
    pub(crate) exceptions: String,
}

/// The user's kubeconfig.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kubeconfig {
    pub(crate) current: Option<String>,
    pub(crate) contexts: Vec<KubeContext>,
}

/// One of its contexts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KubeContext {
    pub(crate) name: String,
    pub(crate) cluster: String,
    /// The server of that cluster, when the kubeconfig has it.
    pub(crate) server: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) user_is_there: bool,
}

/// An environment of ours.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    pub(crate) name: String,
    pub(crate) provider: String,
    pub(crate) context: String,
    pub(crate) phase: Known<Phase>,
    /// What was found out about its cluster, when it is up.
    pub(crate) cluster: Option<Cluster>,
}

/// A cluster that should be up.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) api: Known<Api>,
    pub(crate) registry: Known<Option<Registry>>,
    pub(crate) nodes: Known<Vec<Node>>,
}

/// An API server that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Api {
    pub(crate) ready: bool,
    /// Seconds that its clock is ahead of ours.
    pub(crate) clock_ahead: Option<i64>,
}

/// The local registry that a cluster names (KEP-1755).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registry {
    /// Its name on this machine.
    pub(crate) host: String,
    /// Its name on nodes.
    pub(crate) from_nodes: String,
    /// Whether it answers on this machine.
    pub(crate) here: Reach,
}

/// A node that can be entered.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// By registry, where its containerd is told to go, and what answers there.
    pub(crate) certs: Known<BTreeMap<String, Vec<(String, Reach)>>>,
    /// Whether the cluster's registry answers under its own name.
    pub(crate) direct: Option<Reach>,
}

/// What came of a TCP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Answers,
    /// What the attempt ended with.
    Fails(String),
}
