//! The engine of kind clusters: made here by the `kind` program, or found and
//! adopted.
//!
//! `config` decides what a new cluster is made from; `make` makes it or leaves
//! nothing; `join` brings one that is there up; `undo` removes what the journal
//! lists.

mod config;
mod containers;
mod dns;
mod files;
mod images;
mod join;
mod make;
mod program;
mod provider;
mod publish;
mod ready;
mod registering;
mod status;
mod undo;

pub use provider::KindProvider;

use config::Machine;
use devloop_core::cluster::client_config;
use devloop_core::docker::{DockerError, Endpoint, Engine};
use devloop_core::error::{ErrorContext, Result};
use kube::Client;
use kube::config::Kubeconfig;
use std::time::Instant;

/// One `up` of a kind environment.
struct Work<'a> {
    context: &'a devloop_core::Context,
    directories: &'a devloop_core::environment::Directories,
    environment: devloop_core::environment::EnvironmentDirectory,
    engine: &'a Engine,
    request: &'a crate::request::UpRequest,
    began: Instant,
}

impl Work<'_> {
    fn name(&self) -> &str {
        self.request.name.as_str()
    }

    fn context_name(&self) -> String {
        publish::context_name(self.name())
    }

    /// When `up` gives up.
    fn until(&self) -> Instant {
        Instant::now() + self.request.timeout
    }

    fn since_start(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

/// A client with a kubeconfig that has one context.
async fn client(text: &str, context: &str) -> Result<Client> {
    let kubeconfig = Kubeconfig::from_yaml(text).with_context(|| format!("the kubeconfig of {context} can't be read"))?;
    let config = client_config(kubeconfig, context).await?;
    Client::try_from(config).with_context(|| format!("could not make a client for {context}"))
}

/// What of the machine decides about a cluster's defaults.
async fn machine(engine: &Engine, kind_version: &str) -> Result<Machine, DockerError> {
    let survey = engine.survey().await?;
    // What this process may not have, nodes of a local engine can't either.
    let local = matches!(engine.endpoint(), Endpoint::Unix(_));
    Ok(Machine {
        lacks_sys_resource: local && !bounding_set_has(CAP_SYS_RESOURCE),
        cgroup_v1: survey.cgroup_version == Some(1),
        versioned_patches: program::has_versioned_patches(kind_version),
    })
}

/// `capabilities(7)`.
const CAP_SYS_RESOURCE: u32 = 24;

fn bounding_set_has(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hex = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    // A machine that doesn't say lacks nothing that we know of.
    hex.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_none_or(|set| set >> number & 1 == 1)
}
