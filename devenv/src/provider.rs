//! What an engine that runs clusters can do, and which engines there are.

use crate::context::ContextProvider;
use crate::embedded::EmbeddedProvider;
use crate::journal::{Created, Journal};
use crate::kind::KindProvider;
use crate::request::{EnvironmentName, UpRequest};
use async_trait::async_trait;
use devloop_core::environment::{Directories, EnvironmentRecord, EnvironmentStatus};
use devloop_core::node::Node;
use devloop_core::{Context, Result};
use serde::Serialize;
use std::time::Duration;

/// What `up` did.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpReport {
    /// The environment's name.
    pub name: String,
    /// The engine that runs it.
    pub provider: &'static str,
    /// Its kubeconfig context.
    pub context: String,
    /// Whether it had been up already.
    pub already_up: bool,
    /// Milliseconds from the start of making the cluster to each milestone; empty when it was up already.
    pub milestones_ms: std::collections::BTreeMap<String, u64>,
    /// Milliseconds from the command's start to its end.
    pub total_ms: u64,
}

/// An environment as it is now.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// What it is.
    #[serde(flatten)]
    pub record: EnvironmentRecord,
    /// What its processes do.
    pub status: EnvironmentStatus,
    /// Its nodes, where the engine knows them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeSnapshot>,
}

/// A node as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSnapshot {
    /// Its name, as Kubernetes and the engine know it.
    pub name: String,
    /// `control-plane` or `worker`.
    pub role: String,
    /// What the engine says of it, such as `running` or `exited`.
    pub state: String,
    /// Whether Kubernetes calls it Ready; `None` when the API does not answer.
    pub ready: Option<bool>,
    /// The version of its kubelet; `None` when the API does not answer.
    pub version: Option<String>,
}

/// An engine that runs clusters.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Its name, as in `--provider` and in an environment's record.
    fn name(&self) -> &'static str;

    /// Brings the environment up, from nothing, from kept state, or from what a
    /// crash left; a no-op when it is up. On failure and on Ctrl-C no process of
    /// it runs, and what was new is gone.
    async fn up(&self, context: &Context, request: &UpRequest) -> Result<UpReport>;

    /// Ends every process of the environment and removes what is on the host
    /// beyond its own folder; with `keep`, the folder stays for the next `up`.
    async fn down(&self, context: &Context, name: &EnvironmentName, keep: bool) -> Result<()>;

    /// What the environment is and does; `None` when there is none.
    async fn snapshot(&self, name: &EnvironmentName) -> Result<Option<Snapshot>>;

    /// The environment's nodes that can be reached without the Kubernetes API.
    async fn nodes(&self, name: &EnvironmentName) -> Result<Vec<Node>>;

    /// A kubeconfig with this environment only, as YAML.
    async fn kubeconfig(&self, name: &EnvironmentName) -> Result<String>;
}

/// All engines there are.
#[derive(Debug)]
pub struct Providers {
    /// Processes of this machine.
    pub embedded: EmbeddedProvider,
    /// kind.
    pub kind: KindProvider,
    /// Contexts of the kubeconfig.
    pub context: ContextProvider,
    directories: Directories,
}

impl Providers {
    /// The engines, with their state in these folders.
    pub fn new(directories: &Directories) -> Self {
        Self {
            embedded: EmbeddedProvider::new(directories.clone()),
            kind: KindProvider::new(directories.clone()),
            context: ContextProvider::new(directories.clone()),
            directories: directories.clone(),
        }
    }

    /// The engine of an environment: the one in its record. Where that is lost or
    /// damaged, the journal tells: the embedded engine, which writes none, keeps
    /// what it made where it is labelled.
    pub fn of(&self, name: &EnvironmentName) -> &dyn Provider {
        let environment = self.directories.environment(name.as_str());
        let record = environment.record().ok().flatten();
        let made_by_kind = || {
            let is_kinds = |created: &Created| match created {
                Created::KindCluster { .. } => true,
                Created::KubeconfigContext { context } => context.starts_with("kind-"),
                _ => false,
            };
            Journal::open(&environment).is_ok_and(|journal| journal.newest_first().iter().any(is_kinds))
        };
        match record.as_ref().map(|record| record.provider.as_str()) {
            Some("kind") => &self.kind,
            Some("context") => &self.context,
            None if made_by_kind() => &self.kind,
            _ => &self.embedded,
        }
    }
}

/// How long a graceful stop may take before processes are killed.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
