//! From kubeconfig to a client, as kubectl does it.

pub mod guard;
mod proxy;

pub use proxy::excepts as no_proxy_excepts;

use crate::args::ClusterArgs;
use crate::environment::Directories;
use crate::error::{CommandError, ErrorContext, ErrorHint, Result};
use crate::node::Node;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A cluster to work on.
#[derive(Clone)]
pub struct Cluster {
    /// Speaks to its API server.
    pub client: Client,
    /// The namespace that was asked for, else the context's, else `default`.
    pub namespace: String,
    /// The kubeconfig context it was reached by.
    pub context: String,
    /// Its nodes that can be reached without the API: none for a cluster that
    /// is elsewhere.
    pub nodes: Vec<Node>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Cluster")
            .field("context", &self.context)
            .field("namespace", &self.namespace)
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}

/// Chooses a context and makes a client for it. No request is sent.
///
/// # Errors
/// When no kubeconfig or context can be used, or the environment that the
/// context leads to is not running.
pub async fn connect(args: &ClusterArgs) -> Result<Cluster> {
    let kubeconfig = load_kubeconfig(args.kubeconfig.as_deref())?;
    let context = args.context.clone().or_else(|| kubeconfig.current_context.clone()).filter(|name| !name.is_empty());
    let context = context
        .ok_or_else(|| CommandError::new("no kubeconfig context is chosen"))
        .hint("name one with --context, or bring up a cluster with `kubectl devenv up`")?;
    if !kubeconfig.contexts.iter().any(|candidate| candidate.name == context) {
        let known: Vec<&str> = kubeconfig.contexts.iter().map(|candidate| candidate.name.as_str()).collect();
        let hint = if known.is_empty() {
            "bring up a cluster with `kubectl devenv up`".to_owned()
        } else {
            format!("contexts in the kubeconfig: {}", known.join(", "))
        };
        return Err(CommandError::new(format!("context {context:?} is not in the kubeconfig"))).hint(hint);
    }
    let config = client_config(kubeconfig, &context).await?;
    let nodes = Node::of_context(&Directories::from_env()?, &context, &config.cluster_url.to_string()).await?;
    let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).with_context(|| format!("could not make a client for context {context:?}"))?;
    Ok(Cluster { client, namespace, context, nodes })
}

/// How a context of the kubeconfig is reached. No request is sent.
///
/// # Errors
/// When the context can't be used: what it names is missing or unreadable.
pub async fn client_config(mut kubeconfig: Kubeconfig, context: &str) -> Result<Config> {
    let entry = entry_of(&mut kubeconfig, context);
    let server = entry.as_ref().and_then(|cluster| cluster.server.clone()).unwrap_or_default();
    let proxy = proxy::of_server(&server, entry.as_deref(), &|name| std::env::var(name).ok());
    if let Some(entry) = entry {
        // The library takes the environment's proxy even to loopback.
        entry.proxy_url = proxy.clone();
    }
    let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &options).await.with_context(|| format!("could not use context {context:?}"))?;
    if proxy.is_none() {
        config.proxy_url = None;
    }
    config.connect_timeout = Some(Duration::from_secs(10));
    // The library's own retries are silent for minutes; a person would rather
    // hear at once that the server is overloaded.
    config.default_retry = false;
    Ok(config)
}

/// The cluster that a context leads to.
fn entry_of<'a>(kubeconfig: &'a mut Kubeconfig, context: &str) -> Option<&'a mut kube::config::Cluster> {
    let named = kubeconfig.contexts.iter().find(|candidate| candidate.name == context)?;
    let cluster = named.context.as_ref()?.cluster.clone();
    kubeconfig.clusters.iter_mut().find(|candidate| candidate.name == cluster)?.cluster.as_mut()
}

/// Reads the kubeconfig: the explicit file, else those that `KUBECONFIG` lists,
/// else `~/.kube/config`. Like kubectl, a listed file that isn't there is
/// skipped; an explicit one must be there.
///
/// # Errors
/// When a file can't be read or parsed.
pub fn load_kubeconfig(explicit: Option<&Path>) -> Result<Kubeconfig> {
    if let Some(path) = explicit {
        return Kubeconfig::read_from(path).with_context(|| format!("could not read kubeconfig {}", path.display()));
    }
    let mut merged = Kubeconfig::default();
    for path in kubeconfig_paths() {
        if !path.exists() {
            continue;
        }
        let next = Kubeconfig::read_from(&path).with_context(|| format!("could not read kubeconfig {}", path.display()))?;
        merged = merged.merge(next).with_context(|| format!("could not merge kubeconfig {}", path.display()))?;
    }
    Ok(merged)
}

/// The files that make up the default kubeconfig, in order of precedence.
pub fn kubeconfig_paths() -> Vec<PathBuf> {
    let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let paths: Vec<PathBuf> = std::env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect();
    if !paths.is_empty() {
        return paths;
    }
    std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config")).into_iter().collect()
}

/// Turns a failed API request into an error with a hint that fits.
pub fn explain(error: kube::Error, doing: impl Into<String>) -> CommandError {
    let hint = match &error {
        kube::Error::Api(status) if status.code == 403 => Some("check what you may do with `kubectl auth can-i --list`"),
        kube::Error::Api(status) if status.code == 401 => Some("the credentials in the kubeconfig are not accepted; log in again"),
        kube::Error::HyperError(_) | kube::Error::Service(_) => {
            Some("is the cluster running? see `kubectl cluster-info` and `kubectl devenv status`")
        }
        _ => None,
    };
    let command = match error {
        // The server's own sentence, without the structure around it.
        kube::Error::Api(status) if !status.message.is_empty() => {
            CommandError::new(doing).caused_by(CommandError::new(status.message.clone()))
        }
        error => CommandError::new(doing).caused_by(error),
    };
    match hint {
        Some(hint) => command.with_hint(hint),
        None => command,
    }
}
