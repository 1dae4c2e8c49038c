//! The engine of kind clusters.

use crate::provider::{Provider, Snapshot, UpReport};
use crate::request::{EnvironmentName, UpRequest};
use async_trait::async_trait;
use devloop_core::environment::Directories;
use devloop_core::node::Node;
use devloop_core::{CommandError, Context, Result};

/// The engine.
#[derive(Clone, Debug)]
pub struct KindProvider {
    directories: Directories,
}

impl KindProvider {
    /// An engine that keeps its state in these folders.
    pub fn new(directories: Directories) -> Self {
        Self { directories }
    }

    fn missing(&self) -> CommandError {
        CommandError::new(format!("not there yet ({})", self.directories.state.display()))
    }
}

#[async_trait]
impl Provider for KindProvider {
    fn name(&self) -> &'static str {
        "kind"
    }

    async fn up(&self, _context: &Context, _request: &UpRequest) -> Result<UpReport> {
        Err(self.missing())
    }

    async fn down(&self, _context: &Context, _name: &EnvironmentName, _keep: bool) -> Result<()> {
        Err(self.missing())
    }

    async fn snapshot(&self, _name: &EnvironmentName) -> Result<Option<Snapshot>> {
        Err(self.missing())
    }

    async fn nodes(&self, _name: &EnvironmentName) -> Result<Vec<Node>> {
        Err(self.missing())
    }

    async fn kubeconfig(&self, _name: &EnvironmentName) -> Result<String> {
        Err(self.missing())
    }
}
