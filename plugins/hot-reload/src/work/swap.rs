//! Processes are replaced by a new binary, and judged by how they do.

use super::{Agents, PodOutcome, agent_of};
use crate::lane::{Binary, Receiver, SwapOrder};
use crate::pods;
use crate::session::Event;
use devloop_core::agent::{Agent, AgentError, Phases, ProcessId, RESTART_SIGNAL, Swapped};
use devloop_core::cluster::Cluster;
use devloop_core::logs::last_lines;
use devloop_core::project::RestartBy;
use futures::future;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a swapped process must run to be trusted.
const PROBATION: Duration = Duration::from_secs(2);
/// How often, and how far apart, the kubelet is asked whether it has noticed.
const LOG_TRIES: u32 = 20;
const LOG_PAUSE: Duration = Duration::from_millis(250);
/// Lines of a pod's log that are shown when its process ended.
const LOG_LINES: u32 = 10;

/// What swapping came to.
#[derive(Debug)]
pub(crate) struct SwapOutcomes {
    pub(crate) order: SwapOrder,
    pub(crate) outcomes: Vec<PodOutcome<Swapped>>,
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
}

/// Swaps the process of each pod.
pub(crate) async fn swap(agents: Agents, lane: usize, order: SwapOrder, executable: String, restart: RestartBy) -> Event {
    let started = Instant::now();
    let one = |Receiver { pod, container, process }: &Receiver| {
        let (agent, pod, container_id, process) = (agent_of(&agents, pod).cloned(), pod.clone(), container.id.clone(), *process);
        let (path, hash, executable) = (&order.binary.path, order.binary.hash, &executable);
        async move {
            let outcome = match agent {
                Ok(agent) if restart == RestartBy::Supervisor => by_supervisor(&agent, process, path, executable).await,
                Ok(agent) => agent.swap(process, path, hash, executable).await,
                Err(error) => Err(error),
            };
            PodOutcome { pod, container_id, outcome }
        }
    };
    let outcomes = future::join_all(order.pods.iter().map(one)).await;
    Event::Swapped { lane, outcomes: Box::new(SwapOutcomes { order, outcomes, started, ended: Instant::now() }) }
}

/// Puts the binary in its place and has the supervisor, which is the process
/// here, start it.
async fn by_supervisor(agent: &Agent, process: ProcessId, binary: &Path, executable: &str) -> Result<Swapped, AgentError> {
    let written = agent.put_file(&[process], binary, executable).await?;
    if let Some((_, error)) = written.failed.into_iter().next() {
        return Err(error);
    }
    agent.signal(process, RESTART_SIGNAL).await?;
    Ok(Swapped { process, phases: Phases::default(), in_memory: false, previous_kept: false })
}

/// How a swapped process did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It runs.
    Alive,
    /// It ended and the program before could be brought back.
    RolledBack,
    /// It was killed, and that was none of its own doing.
    Killed,
    /// It ended, and with it the container.
    Ended {
        /// The last lines of its log.
        log: String,
    },
    /// The agent could not tell.
    Unknown,
}

/// A pod whose process was swapped.
#[derive(Clone, Debug)]
pub(crate) struct SwappedPod {
    pub(crate) pod: String,
    pub(crate) container_id: String,
    pub(crate) process: ProcessId,
}

/// What is on trial.
#[derive(Clone, Debug)]
pub(crate) enum Trial {
    /// A binary that processes run.
    Binary(Binary),
    /// A binary with whose swap the agent, or the container, was lost.
    Missed(Binary),
    /// The files of this state, with which programs were started again.
    Files(u64),
}

/// Waits until processes that were replaced have run for a while or have ended.
pub(crate) async fn judge(
    agents: Agents,
    cluster: Cluster,
    container: String,
    trial: Trial,
    pods: Vec<SwappedPod>,
) -> (Trial, Vec<(String, Fate)>) {
    let fates = future::join_all(pods.iter().map(|swapped| fate(&agents, &cluster, &container, &trial, swapped))).await;
    let fates = pods.into_iter().map(|swapped| swapped.pod).zip(fates).collect();
    (trial, fates)
}

async fn fate(agents: &Agents, cluster: &Cluster, container: &str, trial: &Trial, swapped: &SwappedPod) -> Fate {
    let Ok(agent) = agent_of(agents, &swapped.pod) else { return told_by_pod(cluster, container, swapped).await };
    let started = Instant::now();
    let mut pause = Duration::from_millis(25);
    while started.elapsed() < PROBATION {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
        match agent.alive(swapped.process).await {
            Ok(true) if matches!(trial, Trial::Missed(_)) => return Fate::Alive,
            Ok(true) => {}
            Ok(false) => return end(agent, cluster, container, trial, swapped).await,
            // In a pod the agent ends with the process.
            Err(_) => return told_by_pod(cluster, container, swapped).await,
        }
    }
    Fate::Alive
}

async fn end(agent: &Agent, cluster: &Cluster, container: &str, trial: &Trial, swapped: &SwappedPod) -> Fate {
    // The same program with the same files would end the same way.
    if matches!(trial, Trial::Binary(_)) && agent.rollback(swapped.process).await.is_ok() {
        return Fate::RolledBack;
    }
    match told_by_pod(cluster, container, swapped).await {
        Fate::Unknown => Fate::Ended { log: String::new() },
        fate => fate,
    }
}

/// What the pod says of a container whose process can't be asked for any more.
async fn told_by_pod(cluster: &Cluster, container: &str, swapped: &SwappedPod) -> Fate {
    match last_words(cluster, &swapped.pod, container, &swapped.container_id).await {
        Some(LastWords { was_killed: true, .. }) => Fate::Killed,
        Some(LastWords { log, .. }) => Fate::Ended { log },
        None => Fate::Unknown,
    }
}

/// What is known of a container that ended.
struct LastWords {
    log: String,
    /// Whether somebody killed it, or its pod.
    was_killed: bool,
}

/// The last lines of the log of a container that ended, once the kubelet has
/// noticed: before, the "previous" log would be an older container's.
async fn last_words(cluster: &Cluster, pod: &str, container: &str, container_id: &str) -> Option<LastWords> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    for _ in 0..LOG_TRIES {
        let found = pods.get_opt(pod).await.ok()?;
        let Some(found) = found.filter(|found| found.metadata.deletion_timestamp.is_none()) else {
            return Some(LastWords { log: String::new(), was_killed: true });
        };
        if let Some(ended) = pods::end_of(&found, container, container_id) {
            let lines = last_lines(&cluster.client, &cluster.namespace, pod, container, ended.is_previous, LOG_LINES).await;
            let log = lines
                .unwrap_or_default()
                .join(
                    "
",
                )
                .trim_end()
                .to_owned();
            return Some(LastWords { log, was_killed: ended.was_killed });
        }
        tokio::time::sleep(LOG_PAUSE).await;
    }
    None
}
