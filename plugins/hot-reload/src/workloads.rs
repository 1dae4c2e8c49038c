//! Workloads that are patched for a session: a supervisor is put into their
//! pods, probes are taken away.

use crate::gather::Gathered;
use crate::request::Request;
use crate::services::{self, Found};
use devloop_core::agent::AgentImages;
use devloop_core::changes::{self, Entry};
use devloop_core::cluster::Cluster;
use devloop_core::project::RestartBy;
use devloop_core::workload::{self, Change};
use devloop_core::{CommandError, Context, Result, deploy};
use std::time::Duration;

/// How long an app may take to end where nobody said.
const GRACE: Duration = Duration::from_secs(10);
/// How long a rollout may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// In place of the agent's image where nothing is brought to the cluster.
const SOME_IMAGE: &str = "devloop-agent";

/// Says what [`apply`] would change.
///
/// # Errors
/// When it could not be done.
pub(crate) async fn preview(request: &Request, gathered: &Gathered) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for found in &gathered.found {
        let changes = changes_of(request, &gathered.cluster, found, SOME_IMAGE).await?;
        if !changes.is_empty() {
            let cluster = &gathered.cluster;
            let patch = workload::preview(&cluster.client, &cluster.namespace, &found.service.deploy.target, &changes).await?;
            lines.extend(workload::describe(&patch));
        }
    }
    Ok(lines)
}

/// Patches the workloads, each on record first, and waits for their rollouts.
///
/// # Errors
/// When it can't be done. What is on record then is to be undone.
pub(crate) async fn apply(context: &Context, request: &Request, gathered: &Gathered, journal: &mut changes::Session) -> Result<()> {
    let cluster = &gathered.cluster;
    for found in &gathered.found {
        if !is_patched(request, found) {
            continue;
        }
        let target = &found.service.deploy.target;
        let step = context.ui.step(format!("patching {target} for the session"));
        let image = if is_supervised(request, found) { image(request, cluster).await? } else { String::new() };
        let changes = changes_of(request, cluster, found, &image).await?;
        let note = |record: &workload::Record| journal.note(&Entry::Workload(record.clone()));
        let record = workload::apply(&cluster.client, &cluster.namespace, target, &changes, note).await?;
        if record.edits.is_empty() {
            step.done(format!("{target} needs no patch"));
            continue;
        }
        step.detail("waiting for its pods");
        deploy::wait_ready(cluster, target, PATIENCE, &context.shutdown).await?;
        step.done(format!("patched {target} for the session"));
    }
    Ok(())
}

/// Restores all workloads on record; answers a line for each.
///
/// # Errors
/// When one could not be; it stays on record.
pub(crate) async fn restore(cluster: &Cluster, journal: &mut changes::Session) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for entry in journal.entries() {
        let Entry::Workload(record) = &entry else { continue };
        if let workload::Restored::Done { left, .. } = workload::restore(&cluster.client, record).await? {
            lines.push(crate::recover::restored(record, &left));
        }
        journal.forget(&entry)?;
    }
    Ok(lines)
}

fn is_supervised(request: &Request, found: &Found) -> bool {
    request.supervise || found.service.restart.by == RestartBy::Supervisor
}

fn is_patched(request: &Request, found: &Found) -> bool {
    request.pause_probes || is_supervised(request, found)
}

async fn changes_of(request: &Request, cluster: &Cluster, found: &Found, agent_image: &str) -> Result<Vec<Change>> {
    let container = found.container.clone();
    let mut changes = Vec::new();
    if is_supervised(request, found) {
        let pods = found.selection.pods(&cluster.client, &cluster.namespace).await?;
        let process = services::process_of(cluster, &pods, &container).await;
        changes.push(Change::Supervise {
            container: container.clone(),
            agent_image: agent_image.to_owned(),
            // For a template that leaves it to the image.
            command: process.map(|process| process.main_argv).unwrap_or_default(),
            grace: found.service.restart.grace.unwrap_or(GRACE),
        });
    }
    if request.pause_probes {
        changes.push(Change::PauseProbes { container });
    }
    Ok(changes)
}

/// Brings the agent's image to wherever the pods may go.
async fn image(request: &Request, cluster: &Cluster) -> Result<String> {
    let images = AgentImages::new(cluster.client.clone(), request.agent_image.clone());
    let mut image = None;
    for node in &cluster.nodes {
        image = Some(images.for_pod_on(Some(node)).await.map_err(CommandError::from)?);
    }
    match image {
        Some(image) => Ok(image),
        None => images.for_pod_on(None).await.map_err(CommandError::from),
    }
}
