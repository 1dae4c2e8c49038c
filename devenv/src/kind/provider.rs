//! The command's side of the engine.

use super::containers::{self, Container};
use super::program::Kind;
use super::{Work, files, join, make, publish, status, undo};
use crate::journal::{Created, Journal};
use crate::provider::{Provider, Snapshot, UpReport};
use crate::registry;
use crate::request::{EnvironmentName, UpRequest};
use crate::{lock, records};
use async_trait::async_trait;
use devloop_core::Context;
use devloop_core::docker::Engine;
use devloop_core::environment::{Directories, EnvironmentDirectory, EnvironmentRecord, KindOrigin};
use devloop_core::error::{CommandError, ErrorHint, Result};
use devloop_core::node::Node;
use std::time::{Duration, Instant};

/// How long the deletion of a cluster may take kind before its containers are
/// removed without it.
const DELETE_PATIENCE: Duration = Duration::from_secs(60);

/// The engine.
#[derive(Clone, Debug)]
pub struct KindProvider {
    directories: Directories,
}

/// What there is of a cluster, and so what `up` has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Nothing: make it.
    Nothing,
    /// What an interrupted `up` left: remove it, then make it.
    Unfinished,
    /// The cluster that was made here.
    Ours,
    /// A cluster that somebody else made.
    Others,
}

impl Found {
    /// `known` is whether this very cluster, and not another of its name, is in
    /// the records.
    fn of(origin: Option<KindOrigin>, has_containers: bool, known: bool) -> Self {
        match (origin, has_containers) {
            (Some(KindOrigin::Unfinished), _) => Self::Unfinished,
            (_, false) => Self::Nothing,
            (Some(KindOrigin::Made), true) if known => Self::Ours,
            (_, true) => Self::Others,
        }
    }
}

impl KindProvider {
    /// An engine that keeps its state in these folders.
    pub fn new(directories: Directories) -> Self {
        Self { directories }
    }

    fn environment(&self, name: &EnvironmentName) -> EnvironmentDirectory {
        self.directories.environment(name.as_str())
    }

    /// What is removed of an environment: what its journal says, as far as it
    /// can be read; else what its record says was made.
    fn journal(environment: &EnvironmentDirectory, name: &EnvironmentName, record: Option<&EnvironmentRecord>) -> Result<Journal> {
        match Journal::open(environment) {
            Ok(journal) => Ok(journal),
            Err(error) => {
                let path = environment.root().join("journal.json");
                tracing::warn!(error = devloop_core::telemetry::error_chain(&error), "what was made is taken from the record");
                devloop_core::files::remove_all(&path)
                    .map_err(|error| CommandError::new("could not replace the journal").caused_by(error))?;
                let mut journal = Journal::open(environment)?;
                if record.is_some_and(|record| matches!(record.kind, Some(KindOrigin::Made | KindOrigin::Unfinished))) {
                    journal.add(Created::KindCluster { cluster: name.to_string() })?;
                    journal.add(Created::KubeconfigContext { context: publish::context_name(name.as_str()) })?;
                }
                Ok(journal)
            }
        }
    }

    /// Stops the containers of a cluster that was made here.
    async fn stop(&self, context: &Context, name: &EnvironmentName, ours: bool, engine: &Engine) -> Result<()> {
        if !ours {
            context.ui.say(format!("kind cluster {:?} was not made here and is left running", name.as_str()));
            return Ok(());
        }
        let step = context.ui.step(format!("Stopping kind cluster {:?}", name.as_str()));
        let found = containers::of_cluster(engine, name.as_str()).await?;
        containers::stop(engine, &found).await?;
        step.done(format!("Environment {:?} is stopped; its state is kept", name.as_str()));
        Ok(())
    }

    /// Deletes a cluster that was made here: by kind, which knows best what it
    /// made; its containers without it where there is no kind.
    async fn delete(&self, context: &Context, environment: &EnvironmentDirectory, name: &str, engine: &Engine) -> Result<()> {
        let step = context.ui.step(format!("Deleting kind cluster {name:?}"));
        if let Some(kind) = Kind::present(&self.directories, engine) {
            let kubeconfig = files::new_kubeconfig_path(environment);
            let deleted = tokio::time::timeout(DELETE_PATIENCE, kind.delete(name, &kubeconfig, &step)).await;
            match deleted {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::info!(error = devloop_core::telemetry::error_chain(&error), "its containers are removed without kind")
                }
                Err(_) => tracing::info!("kind takes too long; its containers are removed without it"),
            }
        }
        Ok(containers::remove_cluster(engine, name).await?)
    }

    /// Takes back what a cluster that lives on was told of the registry.
    async fn withdraw_registry(
        &self,
        context: &Context,
        environment: &EnvironmentDirectory,
        name: &EnvironmentName,
        engine: &Engine,
        journal: &mut Journal,
    ) -> Result<()> {
        let told = |created: &Created| matches!(created, Created::NodeFile { .. } | Created::Object { .. });
        let found = containers::of_cluster(engine, name.as_str()).await?;
        if found.is_empty() || !journal.newest_first().iter().any(told) {
            return Ok(());
        }
        let text = containers::identity(&found).map(|identity| files::kubeconfig(environment, identity)).transpose()?.flatten();
        let Some(text) = text.filter(|_| found.iter().all(Container::runs)) else {
            context.ui.warn(format!("kind cluster {:?} does not run and keeps what it was told of the registry", name.as_str()));
            return Ok(());
        };
        let client = super::client(&text, &publish::context_name(name.as_str())).await?;
        let nodes = Node::of_kind(engine, name.as_str()).await?;
        registry::withdraw(&nodes, &client, journal).await
    }

    async fn connect(name: &EnvironmentName, journal: &Journal) -> Result<Engine> {
        let listed = journal.newest_first();
        let left: Vec<String> = listed.iter().map(describe).collect();
        let connected = Engine::connect().await.map_err(CommandError::from);
        connected.hint(match left.as_slice() {
            [] => format!("then take it down again: `kubectl devenv down --name {name}`"),
            left => {
                format!("still there: {}; take it down again once Docker answers: `kubectl devenv down --name {name}`", left.join(", "))
            }
        })
    }
}

fn describe(created: &Created) -> String {
    match created {
        Created::KindCluster { cluster } => format!("kind cluster {cluster}"),
        Created::KubeconfigContext { context } => format!("context {context}"),
        Created::Container { name } => format!("container {name}"),
        Created::Volume { name } => format!("volume {name}"),
        Created::NetworkConnection { network, container } => format!("{container} in network {network}"),
        Created::NodeFile { node, path } => format!("{path} on {node}"),
        Created::Object { kind, namespace, name } => format!("{kind} {namespace}/{name}"),
    }
}

fn is_known(environment: &EnvironmentDirectory, found: &[Container]) -> bool {
    containers::identity(found).is_some_and(|identity| files::kubeconfig_path(environment, identity).exists())
}

#[async_trait]
impl Provider for KindProvider {
    fn name(&self) -> &'static str {
        "kind"
    }

    async fn up(&self, context: &Context, request: &UpRequest) -> Result<UpReport> {
        let began = Instant::now();
        let engine = Engine::connect().await?;
        let _lock = lock::environment(context, &self.directories, &request.name).await?;
        let environment = self.environment(&request.name);
        let record = records::of_engine(&self.directories, &request.name, self.name())?;
        let mut journal =
            Journal::open(&environment).hint(format!("remove the environment with `kubectl devenv down --name {}`", request.name))?;
        let found = containers::of_cluster(&engine, request.name.as_str()).await?;
        let origin = record.as_ref().and_then(|record| record.kind);
        let work = Work { context, directories: &self.directories, environment: environment.clone(), engine: &engine, request, began };
        match Found::of(origin, !found.is_empty(), is_known(&environment, &found)) {
            Found::Nothing => make::new_cluster(&work, journal).await,
            Found::Unfinished => {
                let step = context.ui.step(format!("Removing what an interrupted `up` left of {:?}", request.name.as_str()));
                undo::everything(context, &self.directories, &engine, work.name(), &mut journal, &record.unwrap_or_default()).await?;
                step.clear();
                let journal = Journal::open(&environment)?;
                make::new_cluster(&work, journal).await
            }
            Found::Ours => join::existing(&work, journal, record, found, KindOrigin::Made).await,
            Found::Others => {
                // A cluster of ours that somebody deleted and made anew is theirs.
                journal.remove(&Created::KindCluster { cluster: request.name.to_string() })?;
                let record = record.filter(|record| record.kind == Some(KindOrigin::Adopted));
                join::existing(&work, journal, record, found, KindOrigin::Adopted).await
            }
        }
    }

    async fn down(&self, context: &Context, name: &EnvironmentName, keep: bool) -> Result<()> {
        let _lock = lock::environment(context, &self.directories, name).await?;
        let environment = self.environment(name);
        if !environment.root().exists() {
            context.ui.say(format!("There is no environment {:?}", name.as_str()));
            return Ok(());
        }
        // Damage to the record must not keep the rest from being removed.
        let record = environment.record().ok().flatten();
        let mut journal = Self::journal(&environment, name, record.as_ref())?;
        let cluster = Created::KindCluster { cluster: name.to_string() };
        let listed = journal.newest_first();
        let needs_engine = keep || listed.iter().any(|created| !matches!(created, Created::KubeconfigContext { .. }));
        let mut ours = listed.contains(&cluster);
        let engine = if needs_engine { Some(Self::connect(name, &journal).await?) } else { None };
        if let (true, Some(engine)) = (ours, &engine) {
            let found = containers::of_cluster(engine, name.as_str()).await?;
            let made = record.as_ref().is_some_and(|record| record.kind == Some(KindOrigin::Made));
            if made && !found.is_empty() && !is_known(&environment, &found) {
                context
                    .ui
                    .warn(format!("kind cluster {:?} was deleted and made anew by somebody else; it is left as it is", name.as_str()));
                journal.remove(&cluster)?;
                ours = false;
            }
        }

        let context_name = record.as_ref().map_or_else(|| publish::context_name(name.as_str()), |record| record.context.clone());
        let previous = record.as_ref().and_then(|record| record.previous_context.clone());
        let entry = files::any_entry(&environment, &context_name);
        publish::withdraw(&context_name, entry.as_ref(), &mut journal, previous.as_deref())?;
        if keep {
            return match &engine {
                Some(engine) => self.stop(context, name, ours, engine).await,
                None => Ok(()),
            };
        }
        let step = context.ui.step(format!("Taking down environment {:?}", name.as_str()));
        if let (true, Some(engine)) = (ours, &engine) {
            self.delete(context, &environment, name.as_str(), engine).await?;
            journal.remove(&cluster)?;
        }
        if let Some(engine) = &engine {
            if !ours {
                self.withdraw_registry(context, &environment, name, engine, &mut journal).await?;
            }
            registry::disconnect(context, engine, &self.directories, name.as_str(), &mut journal).await?;
        }
        undo::forget(&environment)?;
        step.done(match record.and_then(|record| record.kind) {
            Some(KindOrigin::Adopted) => format!("Environment {:?} is forgotten; kind cluster {0:?} is left as it is", name.as_str()),
            _ => format!("Environment {:?} is gone", name.as_str()),
        });
        Ok(())
    }

    async fn snapshot(&self, name: &EnvironmentName) -> Result<Option<Snapshot>> {
        match records::of_engine(&self.directories, name, self.name())? {
            Some(record) => Ok(Some(status::snapshot(&self.environment(name), record).await)),
            None => Ok(None),
        }
    }

    async fn nodes(&self, name: &EnvironmentName) -> Result<Vec<Node>> {
        let record = records::known(&self.directories, name, self.name())?;
        let engine = Engine::connect().await?;
        let nodes = Node::of_kind(&engine, &record.name).await?;
        if nodes.is_empty() {
            return Err(CommandError::new(format!("environment {:?} is not running", record.name)))
                .hint(format!("start it with `kubectl devenv up --name {name}`"));
        }
        Ok(nodes)
    }

    async fn kubeconfig(&self, name: &EnvironmentName) -> Result<String> {
        let record = records::known(&self.directories, name, self.name())?;
        let environment = self.environment(name);
        let entry = files::any_entry(&environment, &record.context)
            .ok_or_else(|| CommandError::new(format!("the credentials of environment {:?} are not known yet", record.name)))
            .hint(format!("bring it up with `kubectl devenv up --name {name}`"))?;
        crate::kubeconfig::standalone(&entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_decides_what_up_does() {
        let of = Found::of;
        assert_eq!(of(None, false, false), Found::Nothing);
        assert_eq!(of(None, true, false), Found::Others);
        assert_eq!(of(Some(KindOrigin::Unfinished), false, false), Found::Unfinished);
        assert_eq!(of(Some(KindOrigin::Unfinished), true, true), Found::Unfinished);
        assert_eq!(of(Some(KindOrigin::Made), true, true), Found::Ours);
        // Deleted by somebody; deleted and made anew by somebody.
        assert_eq!(of(Some(KindOrigin::Made), false, false), Found::Nothing);
        assert_eq!(of(Some(KindOrigin::Made), true, false), Found::Others);
        assert_eq!(of(Some(KindOrigin::Adopted), true, true), Found::Others);
        assert_eq!(of(Some(KindOrigin::Adopted), false, false), Found::Nothing);
    }
}
