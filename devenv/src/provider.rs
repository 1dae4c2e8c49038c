//! What an engine that runs clusters can do. `embedded` is the first; kind and
//! plain kubeconfig contexts fit the same trait.

use crate::request::{EnvironmentName, UpRequest};
use async_trait::async_trait;
use devloop_core::environment::{EnvironmentRecord, EnvironmentStatus};
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
    /// Milliseconds from the start of the cluster's first process to each
    /// milestone; empty when it was up already.
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
}

/// An engine that runs clusters.
#[async_trait]
pub trait Provider {
    /// Its name, as in `--provider`.
    fn name(&self) -> &'static str;

    /// Brings the environment up, from nothing, from kept state, or from what a
    /// crash left; a no-op when it is up. On failure and on Ctrl-C no process of
    /// it runs, and what was new is gone.
    async fn up(&self, context: &Context, request: &UpRequest) -> Result<UpReport>;

    /// Ends every process of the environment and removes what is on the host
    /// beyond its own folder; with `keep`, the folder stays for the next `up`.
    async fn down(&self, context: &Context, name: &EnvironmentName, keep: bool) -> Result<()>;

    /// What the environment is and does; `None` when there is none.
    fn snapshot(&self, name: &EnvironmentName) -> Result<Option<Snapshot>>;

    /// The environment's nodes, reachable without the Kubernetes API.
    fn node(&self, name: &EnvironmentName) -> Result<Node>;

    /// A kubeconfig with this environment only, as YAML.
    fn kubeconfig(&self, name: &EnvironmentName) -> Result<String>;
}

/// How long a graceful stop may take before processes are killed.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
