//! The engine of clusters of the kubeconfig, which others run: nothing is made
//! or deleted in them, a context is only chosen and given back.

mod api;
mod minify;

use crate::provider::{Provider, Snapshot, UpReport};
use crate::request::{EnvironmentName, UpRequest};
use crate::{kubeconfig, lock, records};
use async_trait::async_trait;
use devloop_core::Context;
use devloop_core::cluster::guard::{Guard, Verdict};
use devloop_core::cluster::{client_config, load_kubeconfig};
use devloop_core::environment::{Directories, EnvironmentDirectory, EnvironmentRecord, EnvironmentStatus, Failure, Phase};
use devloop_core::error::{CommandError, ErrorContext, ErrorHint, Result};
use devloop_core::files;
use devloop_core::node::Node;
use kube::config::Kubeconfig;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a cluster may take to answer `up`; it runs already.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long it may take to answer `status`.
const STATUS_PATIENCE: Duration = Duration::from_secs(3);

/// The engine.
#[derive(Clone, Debug)]
pub struct ContextProvider {
    directories: Directories,
}

impl ContextProvider {
    /// An engine that keeps its state in these folders.
    pub fn new(directories: Directories) -> Self {
        Self { directories }
    }

    fn environment(&self, name: &EnvironmentName) -> EnvironmentDirectory {
        self.directories.environment(name.as_str())
    }

    /// Writes the record and makes its context the current one; neither, when
    /// one of both fails and the record is new.
    fn adopt(&self, name: &EnvironmentName, mut record: EnvironmentRecord, new: bool, current: Option<String>) -> Result<()> {
        let environment = self.environment(name);
        let chosen = current.filter(|current| !current.is_empty());
        let is_current = chosen.as_deref() == Some(record.context.as_str());
        if !is_current {
            record.previous_context = chosen;
        }
        let write = || {
            records::make_folder(&environment)?;
            environment.write_record(&record)?;
            if !is_current {
                kubeconfig::make_current(&kubeconfig::user_path()?, &record.context)
                    .with_context(|| format!("could not make {:?} the current context", record.context))?;
            }
            Ok(())
        };
        write().inspect_err(|_| {
            if new {
                // The first error is the one to tell.
                let _ = files::remove_all(environment.root());
            }
        })
    }
}

#[async_trait]
impl Provider for ContextProvider {
    fn name(&self) -> &'static str {
        "context"
    }

    async fn up(&self, context: &Context, request: &UpRequest) -> Result<UpReport> {
        let began = Instant::now();
        let _lock = lock::environment(context, &self.directories, &request.name).await?;
        let known = records::of_engine(&self.directories, &request.name, self.name())?;
        let config = load_kubeconfig(None)?;
        let current = config.current_context.clone();
        let chosen = choose(request, known.as_ref(), current.as_deref())?;
        must_exist(&config, &chosen)?;
        let client = client_config(config, &chosen).await?;
        let server = client.cluster_url.to_string().trim_end_matches('/').to_owned();
        let verdict = Guard::new(&self.directories).check(&chosen, &server, request.allow_context.as_deref())?;
        if verdict == Verdict::Granted {
            context.ui.say(format!("Context {chosen:?} is allowed from now on, as long as its API server is {server}"));
        }
        let step = context.ui.step(format!("Asking the API server of context {chosen:?}"));
        let answer = context.shutdown.guard(api::ask(client, PATIENCE.min(request.timeout))).await?;
        let answered = elapsed(began);
        step.done(format!("Context {chosen:?} answers: Kubernetes {}", answer.version));
        if !answer.ready {
            context.ui.warn("the API server says that it is not ready (`kubectl get --raw '/readyz?verbose'`)");
        }
        let new = known.is_none();
        let record = known.unwrap_or_else(|| EnvironmentRecord {
            name: request.name.to_string(),
            provider: self.name().to_owned(),
            context: chosen.clone(),
            created: jiff::Timestamp::now().to_string(),
            ..EnvironmentRecord::default()
        });
        let record = EnvironmentRecord { server, ..record };
        self.adopt(&request.name, record, new, current)?;
        Ok(UpReport {
            name: request.name.to_string(),
            provider: "context",
            context: chosen,
            already_up: !new,
            milestones_ms: BTreeMap::from([("apiAnswers".to_owned(), answered)]),
            total_ms: elapsed(began),
        })
    }

    async fn down(&self, context: &Context, name: &EnvironmentName, keep: bool) -> Result<()> {
        let _lock = lock::environment(context, &self.directories, name).await?;
        let environment = self.environment(name);
        if !environment.root().exists() {
            context.ui.say(format!("There is no environment {:?}", name.as_str()));
            return Ok(());
        }
        // Damage to the record must not keep the rest from being removed.
        if let Some(record) = environment.record().ok().flatten() {
            // A kubeconfig that can't be read has no context to go back to.
            let config = load_kubeconfig(None).unwrap_or_default();
            let is_there = |name: &String| config.contexts.iter().any(|context| context.name == *name);
            let previous = record.previous_context.filter(is_there);
            kubeconfig::give_back_current(&kubeconfig::user_path()?, &record.context, previous.as_deref())?;
        }
        if keep {
            context.ui.say(format!("Environment {:?} is kept; its cluster runs on, which is its owner's business", name.as_str()));
            return Ok(());
        }
        files::remove_all(environment.root()).with_context(|| format!("could not remove {}", environment.root().display()))?;
        context.ui.say(format!("Environment {:?} is forgotten; its cluster is as it was", name.as_str()));
        Ok(())
    }

    async fn snapshot(&self, name: &EnvironmentName) -> Result<Option<Snapshot>> {
        let Some(record) = records::of_engine(&self.directories, name, self.name())? else { return Ok(None) };
        let asked = async {
            let config = load_kubeconfig(None)?;
            must_exist(&config, &record.context)?;
            api::ask(client_config(config, &record.context).await?, STATUS_PATIENCE).await
        };
        let (phase, failure, nodes) = match asked.await {
            Ok(answer) => (if answer.ready { Phase::Ready } else { Phase::Starting }, None, answer.nodes),
            Err(error) => {
                let message = error.chain().join(": ");
                (Phase::Stopped, Some(Failure { component: "context".into(), message }), Vec::new())
            }
        };
        let updated = jiff::Timestamp::now().to_string();
        let status = EnvironmentStatus { phase, failure, updated, ..EnvironmentStatus::default() };
        Ok(Some(Snapshot { record, status, nodes }))
    }

    async fn nodes(&self, name: &EnvironmentName) -> Result<Vec<Node>> {
        let record = records::known(&self.directories, name, self.name())?;
        let config = load_kubeconfig(None)?;
        must_exist(&config, &record.context)?;
        let server = client_config(config, &record.context).await?.cluster_url.to_string();
        Node::of_context(&self.directories, &record.context, &server).await
    }

    async fn kubeconfig(&self, name: &EnvironmentName) -> Result<String> {
        let record = records::known(&self.directories, name, self.name())?;
        let config = load_kubeconfig(None)?;
        must_exist(&config, &record.context)?;
        let minified = minify::minify(config, &record.context, &|path| std::fs::read(path))?;
        serde_yaml_ng::to_string(&minified).context("could not write the kubeconfig as YAML")
    }
}

/// The context to work on: the one that was asked for, else the environment's,
/// else the current one.
fn choose(request: &UpRequest, known: Option<&EnvironmentRecord>, current: Option<&str>) -> Result<String> {
    let asked = request.context.as_deref();
    if let (Some(asked), Some(known)) = (asked, known)
        && asked != known.context
    {
        return Err(CommandError::new(format!("environment {:?} works on context {:?}, not {asked:?}", known.name, known.context)))
            .hint(format!("choose another name with --name, or forget that one with `kubectl devenv down --name {}`", known.name));
    }
    let chosen = asked.or(known.map(|known| known.context.as_str())).or(current).filter(|context| !context.is_empty());
    chosen
        .map(str::to_owned)
        .ok_or_else(|| CommandError::new("no kubeconfig context is chosen"))
        .hint("name one with --context; `kubectl config get-contexts` lists them")
}

fn must_exist(config: &Kubeconfig, context: &str) -> Result<()> {
    if config.contexts.iter().any(|candidate| candidate.name == context) {
        return Ok(());
    }
    let known: Vec<&str> = config.contexts.iter().map(|candidate| candidate.name.as_str()).collect();
    let hint = match known.as_slice() {
        [] => "it has none; see `kubectl config --help`".to_owned(),
        known => format!("contexts in the kubeconfig: {}", known.join(", ")),
    };
    Err(CommandError::new(format!("context {context:?} is not in the kubeconfig"))).hint(hint)
}

fn elapsed(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
