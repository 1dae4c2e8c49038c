//! Pods that are started again so that they take a debugger, or outlive a breakpoint, for
//! as long as the command runs: their workload is changed, which is on record before.

use crate::choose::Chosen;
use crate::process;
use crate::request::Request;
use devloop_core::agent::debug::{Candidate, Runtime};
use devloop_core::changes::{self, Entry, Meta, Session};
use devloop_core::cluster::Cluster;
use devloop_core::environment::Directories;
use devloop_core::workload::{self, Change, Record, Restored};
use devloop_core::{CommandError, Context, Result, deploy};
use std::time::Duration;

/// How long a rollout may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// What all Java virtual machines read
/// (<https://docs.oracle.com/en/java/javase/21/docs/specs/jvmti.html#tooloptions>).
const VARIABLE: &str = "JAVA_TOOL_OPTIONS";
/// Reached from within the pod only, which the agent is.
const OPTIONS: &str = "-agentlib:jdwp=transport=dt_socket,server=y,suspend=n,address=127.0.0.1:5005";

/// A workload that was changed.
#[derive(Debug)]
pub(crate) struct Restart {
    cluster: Cluster,
    journal: Session,
}

impl Restart {
    /// Changes the workload of a process, and waits for its new pods. `kept` has what
    /// is to be undone from the moment at which anything may have been changed.
    ///
    /// # Errors
    /// When it can't be changed, or its pods don't get ready.
    pub(crate) async fn start(
        context: &Context,
        request: &Request,
        cluster: &Cluster,
        changes: &[Change],
        kept: &mut Option<Self>,
    ) -> Result<()> {
        let target = &request.target;
        let meta = Meta {
            context: cluster.context.clone(),
            services: vec![target.to_string()],
            pid: std::process::id(),
            started: k8s_openapi::jiff::Timestamp::now().to_string(),
        };
        let step = context.ui.step(format!("starting the pods of {target} again, for the debugger"));
        let journal = Session::begin(&Directories::from_env()?, &meta)?;
        let own = kept.insert(Self { cluster: cluster.clone(), journal });
        let note = |record: &Record| own.journal.note(&Entry::Workload(record.clone()));
        workload::apply(&cluster.client, &cluster.namespace, target, changes, note).await?;
        deploy::wait_ready(cluster, target, PATIENCE, &context.shutdown).await?;
        step.done(format!("started the pods of {target} again, for the debugger"));
        Ok(())
    }

    /// Makes the workload what it was; its pods are started once more.
    ///
    /// # Errors
    /// When it can't be; the next run tries again.
    pub(crate) async fn undo(mut self, context: &Context) -> Result<()> {
        for entry in self.journal.entries() {
            put_back(context, &self.cluster, &entry).await?;
            self.journal.forget(&entry)?;
        }
        self.journal.end()
    }
}

/// What is to be changed in the workload of a process. Pure.
pub(crate) fn changes(request: &Request, chosen: &Chosen, candidate: &Candidate) -> Vec<Change> {
    let mut changes = Vec::new();
    let container = chosen.container.clone();
    if request.pause_probes {
        changes.push(Change::PauseProbes { container: container.clone() });
    }
    if let Runtime::Jvm(machine) = &candidate.runtime
        && request.restart
        && process::needs_restart(candidate)
    {
        let (seen, options) = (machine.tool_options.clone(), OPTIONS.to_owned());
        changes.push(Change::AddOptions { container, variable: VARIABLE.to_owned(), seen, options });
    }
    changes
}

/// What would be done, for `--dry-run`.
pub(crate) fn preview(request: &Request) -> Vec<String> {
    let target = &request.target;
    let probes = format!("would start the pods of {target} again without liveness and startup probes, and once more at the end");
    let mut lines = Vec::new();
    if request.pause_probes {
        lines.push(probes);
    }
    if request.restart {
        lines.push(java(request));
    }
    lines
}

fn java(request: &Request) -> String {
    format!(
        "would start the pods of {} again with {VARIABLE}={OPTIONS} if they don't take a debugger, and once more at the end",
        request.target
    )
}

/// Makes workloads what they were before a run that was killed, and waits for their
/// pods; answers whether there was one.
///
/// # Errors
/// When one can't be.
pub(crate) async fn recover(context: &Context, cluster: &Cluster) -> Result<bool> {
    let mut has_changed = false;
    for mut session in changes::stale(&Directories::from_env()?) {
        let entries = session.entries();
        // Others left more than workloads, and put that back themselves.
        if session.meta().context != cluster.context || !entries.iter().all(|entry| matches!(entry, Entry::Workload(_))) {
            continue;
        }
        for entry in entries {
            let is_changed = put_back(context, cluster, &entry).await?;
            session.forget(&entry)?;
            if let Entry::Workload(record) = &entry
                && is_changed
                && record.object.namespace == cluster.namespace
            {
                deploy::wait_ready(cluster, &record.target()?, PATIENCE, &context.shutdown).await?;
                has_changed = true;
            }
        }
        session.end()?;
    }
    Ok(has_changed)
}

/// Answers whether anything had to be done.
async fn put_back(context: &Context, cluster: &Cluster, entry: &Entry) -> Result<bool> {
    let Entry::Workload(record) = entry else { return Ok(false) };
    let restored = workload::restore(&cluster.client, record).await.map_err(|error| {
        CommandError::new(format!("{} could not be made what it was", record.object))
            .caused_by(error)
            .with_hint("the next run of this command, or of `kubectl hot-reload`, tries again")
    })?;
    match restored {
        Restored::Done { left, .. } if !left.is_empty() => {
            context.ui.warn(format!("{} is as it was, but for what others changed since: {}", record.object, left.join(", ")));
        }
        Restored::Done { put_back, .. } if !put_back.is_empty() => {
            context.ui.say(format!("{} is as it was; its pods are started again", record.object));
        }
        Restored::Done { .. } | Restored::Gone => return Ok(false),
    }
    Ok(true)
}
