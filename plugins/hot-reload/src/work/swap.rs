//! Processes are replaced by a new binary, and judged by how they do.

use super::{Agents, PodOutcome, agent_of};
use crate::lane::{Binary, Receiver, SwapOrder};
use crate::pods;
use crate::session::Event;
use devloop_core::agent::{Agent, ProcessId, Swapped};
use devloop_core::cluster::Cluster;
use futures::future;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use std::time::{Duration, Instant};

/// How long a swapped process must run to be trusted.
const PROBATION: Duration = Duration::from_secs(2);
/// How often, and how far apart, the kubelet is asked whether it has noticed.
const LOG_TRIES: u32 = 20;
const LOG_PAUSE: Duration = Duration::from_millis(250);
/// Lines of a pod's log that are shown when its process ended.
const LOG_LINES: i64 = 10;

/// What swapping came to.
#[derive(Debug)]
pub(crate) struct SwapOutcomes {
    pub(crate) order: SwapOrder,
    pub(crate) outcomes: Vec<PodOutcome<Swapped>>,
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
}

/// Swaps the process of each pod.
pub(crate) async fn swap(agents: Agents, lane: usize, order: SwapOrder, executable: String) -> Event {
    let started = Instant::now();
    let one = |Receiver { pod, container, process }: &Receiver| {
        let (agent, pod, container_id, process) = (agent_of(&agents, pod).cloned(), pod.clone(), container.id.clone(), *process);
        let (path, executable) = (&order.binary.path, &executable);
        async move {
            let outcome = match agent {
                Ok(agent) => agent.swap(process, path, executable).await,
                Err(error) => Err(error),
            };
            PodOutcome { pod, container_id, outcome }
        }
    };
    let outcomes = future::join_all(order.pods.iter().map(one)).await;
    Event::Swapped { lane, outcomes: Box::new(SwapOutcomes { order, outcomes, started, ended: Instant::now() }) }
}

/// How a swapped process did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It runs.
    Alive,
    /// It ended and the program before could be brought back.
    RolledBack,
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
    /// A binary.
    Binary(Binary),
    /// The files of this state, with which programs were started again.
    Files(u64),
}

/// Waits until processes that were replaced have run for a while or have ended.
pub(crate) async fn judge(agents: Agents, cluster: Cluster, container: String, lane: usize, trial: Trial, pods: Vec<SwappedPod>) -> Event {
    let fates = future::join_all(pods.iter().map(|swapped| fate(&agents, &cluster, &container, &trial, swapped))).await;
    let fates = pods.into_iter().map(|swapped| swapped.pod).zip(fates).collect();
    Event::Judged { lane, trial, fates }
}

async fn fate(agents: &Agents, cluster: &Cluster, container: &str, trial: &Trial, swapped: &SwappedPod) -> Fate {
    let Ok(agent) = agent_of(agents, &swapped.pod) else { return Fate::Unknown };
    let started = Instant::now();
    let mut pause = Duration::from_millis(25);
    while started.elapsed() < PROBATION {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
        match agent.alive(swapped.process).await {
            Ok(true) => {}
            Ok(false) => return end(agent, cluster, container, trial, swapped).await,
            Err(_) => return Fate::Unknown,
        }
    }
    Fate::Alive
}

async fn end(agent: &Agent, cluster: &Cluster, container: &str, trial: &Trial, swapped: &SwappedPod) -> Fate {
    let SwappedPod { pod, container_id, process } = swapped;
    // The same program with the same files would end the same way.
    if matches!(trial, Trial::Binary(_)) && agent.rollback(*process).await.is_ok() {
        return Fate::RolledBack;
    }
    Fate::Ended { log: last_words(cluster, pod, container, container_id).await.unwrap_or_default() }
}

/// The last lines of the log of a container that ended, once the kubelet has
/// noticed: before, the "previous" log would be an older container's.
async fn last_words(cluster: &Cluster, pod: &str, container: &str, container_id: &str) -> Option<String> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    for _ in 0..LOG_TRIES {
        if let Some(previous) = pods::is_previous(&pods.get_opt(pod).await.ok()??, container, container_id) {
            let parameters =
                LogParams { container: Some(container.to_owned()), previous, tail_lines: Some(LOG_LINES), ..LogParams::default() };
            return Some(pods.logs(pod, &parameters).await.ok()?.trim_end().to_owned());
        }
        tokio::time::sleep(LOG_PAUSE).await;
    }
    None
}
