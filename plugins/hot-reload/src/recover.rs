//! What killed sessions left in a cluster is put back.
//!
//! Files and programs of containers are, by their agents, when these lose their
//! client; what is left for the next run is what an agent could not do: patched
//! workloads, and containers of nodes whose agent was killed, too.

use devloop_core::agent::Agent;
use devloop_core::changes::{self, ContainerEntry, Entry};
use devloop_core::cluster::Cluster;
use devloop_core::environment::Directories;
use devloop_core::workload::{self, Restored};
use devloop_core::{CommandError, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

/// Puts back what sessions of this cluster's context left; answers a line for
/// each thing that was done.
///
/// # Errors
/// When something could not be put back; the rest was, and a later run tries
/// again.
pub(crate) async fn recover(cluster: &Cluster) -> Result<Vec<String>> {
    let (mut lines, mut failure) = (Vec::new(), None);
    for mut session in changes::stale(&Directories::from_env()?) {
        if session.meta().context != cluster.context {
            continue;
        }
        let mut is_done = true;
        for entry in session.entries() {
            match put_back(cluster, &entry).await {
                Ok(line) => {
                    lines.extend(line);
                    session.forget(&entry)?;
                }
                Err(error) => {
                    is_done = false;
                    failure.get_or_insert(error);
                }
            }
        }
        if is_done {
            session.end()?;
        }
    }
    match failure {
        Some(error) => Err(CommandError::new("what an earlier session left could not all be put back").caused_by(error)),
        None => Ok(lines),
    }
}

async fn put_back(cluster: &Cluster, entry: &Entry) -> Result<Option<String>> {
    match entry {
        Entry::Workload(record) => Ok(match workload::restore(&cluster.client, record).await? {
            Restored::Done { put_back, left } if !put_back.is_empty() || !left.is_empty() => Some(restored(record, &left)),
            Restored::Done { .. } | Restored::Gone => None,
        }),
        Entry::Container(container) => in_container(cluster, container).await,
    }
}

/// What to say about a workload that was restored.
pub(crate) fn restored(record: &workload::Record, left: &[String]) -> String {
    if left.is_empty() {
        format!("{} is as it was", record.object)
    } else {
        format!("{} is as it was, but for what others changed since: {}", record.object, left.join(", "))
    }
}

async fn in_container(cluster: &Cluster, entry: &ContainerEntry) -> Result<Option<String>> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &entry.namespace);
    let pod = pods
        .get_opt(&entry.pod)
        .await
        .map_err(|error| devloop_core::cluster::explain(error, format!("could not get pod {}", entry.pod)))?;
    let is_same = pod.is_some_and(|pod| pod.metadata.uid.as_deref() == Some(&entry.uid));
    let node = cluster.nodes.iter().find(|node| Some(node.name()) == entry.node.as_deref());
    let (true, Some(node)) = (is_same, node) else { return Ok(None) };
    let agent = Agent::start(node).await?;
    match agent.locate(&entry.container_id).await {
        Ok(located) if located.changed => {
            let undone = agent.undo(located.process).await?;
            Ok(Some(format!("pod {} is as it was: {} put back", entry.pod, crate::report::count(undone.restored as usize, "file"))))
        }
        Ok(_) => Ok(None),
        Err(error) if error.is_vanished() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
