//! What the session starts and waits for: each function does one piece of IO
//! and answers with an event.

use crate::gather::Facts;
use crate::lane::{Binary, Delivery, Origin, PodDelivery, SwapOrder};
use crate::place::Place;
use crate::pods::{self, RunningContainer};
use crate::probe::{Asked, Probe, Way};
use crate::report::Report;
use crate::session::Event;
use crate::sources;
use devloop_core::agent::{Agent, AgentError, AgentImages, Beside, ErrorKind, ProcessId, Swapped};
use devloop_core::build::{self, BuildError};
use devloop_core::cluster::Cluster;
use devloop_core::shutdown::Shutdown;
use futures::{StreamExt, future, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a container's process may take to show up.
const LOCATE_PATIENCE: Duration = Duration::from_secs(5);
/// Files on their way into one pod at the same time.
const FILES_AT_ONCE: usize = 32;
/// How long a pod may take to answer the probe.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// How long a swapped process must run to be trusted.
const PROBATION: Duration = Duration::from_secs(2);
/// How often, and how far apart, the kubelet is asked whether it has noticed.
const LOG_TRIES: u32 = 20;
const LOG_PAUSE: Duration = Duration::from_millis(250);
/// Lines of a pod's log that are shown when its process ended.
const LOG_LINES: i64 = 10;

/// What attaching to a container found.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) process: ProcessId,
    pub(crate) running: Option<blake3::Hash>,
}

/// Finds a container's process and what it runs. The runtime may report a
/// container before its process can be seen.
pub(crate) async fn attach(agent: Agent, number: u64, lane: usize, pod: String, container: RunningContainer) -> Event {
    let started = Instant::now();
    let located = loop {
        match agent.locate(&container.id).await {
            Err(error) if error.is_vanished() && started.elapsed() < LOCATE_PATIENCE => {
                tokio::time::sleep(Duration::from_millis(100)).await
            }
            outcome => break outcome,
        }
    };
    let outcome = located.map(|located| Attachment {
        process: located.process,
        // Unknown is fine: then the first build is swapped to in any case.
        running: located.blake3.map(blake3::Hash::from_bytes),
    });
    Event::Attached { lane, pod, container_id: container.id, number, outcome }
}

/// How one pod fared.
#[derive(Debug)]
pub(crate) struct PodOutcome<T> {
    pub(crate) pod: String,
    pub(crate) container_id: String,
    pub(crate) outcome: Result<T, AgentError>,
}

/// The agent of each pod.
pub(crate) type Agents = BTreeMap<String, Agent>;

/// Why a pod has none: it was lost a moment ago, and the session learns of it.
fn agent_of<'a>(agents: &'a Agents, pod: &str) -> Result<&'a Agent, AgentError> {
    agents.get(pod).ok_or_else(|| AgentError::Ended(String::new()))
}

/// Brings files into pods, all at the same time.
pub(crate) async fn deliver(agents: Agents, lane: usize, delivery: Delivery) -> Event {
    let into_pods = delivery.pods.iter().map(|pod| deliver_to_pod(&agents, pod));
    let outcomes = future::join_all(into_pods).await;
    Event::Delivered { lane, delivery, outcomes, delivered: Instant::now() }
}

async fn deliver_to_pod(agents: &Agents, delivery: &PodDelivery) -> PodOutcome<()> {
    let outcome = match agent_of(agents, &delivery.pod) {
        Ok(agent) => deliver_files(agent, delivery).await,
        Err(error) => Err(error),
    };
    PodOutcome { pod: delivery.pod.clone(), container_id: delivery.container.id.clone(), outcome }
}

async fn deliver_files(agent: &Agent, delivery: &PodDelivery) -> Result<(), AgentError> {
    let one = |(destination, source): &(String, Option<PathBuf>)| {
        let (destination, source) = (destination.clone(), source.clone());
        async move {
            let outcome = match &source {
                Some(source) => agent.put_file(&[delivery.process], source, &destination).await.map(|written| written.failed),
                None => agent.remove(&[delivery.process], &destination, 0).await,
            };
            let outcome = outcome.and_then(|failed| failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error)));
            match outcome {
                // The watcher saw that, too: the next generation brings it.
                Err(AgentError::SourceChanged(path)) => {
                    tracing::debug!(path = %path.display(), "changed while it was copied");
                    Ok(())
                }
                outcome => outcome,
            }
        }
    };
    let files: Vec<_> = delivery.files.iter().map(one).collect();
    let outcomes: Vec<Result<(), AgentError>> = stream::iter(files).buffer_unordered(FILES_AT_ONCE).collect().await;
    outcomes.into_iter().collect::<Result<Vec<()>, AgentError>>().map(drop)
}

/// Something to tell once every pod answers the probe.
#[derive(Debug)]
pub(crate) struct Announcement {
    pub(crate) report: Report,
    pub(crate) asked: Vec<Asked>,
    /// What the pods run then, or the answers were another program's.
    pub(crate) running: Option<blake3::Hash>,
}

/// Asks pods until the last of them has answered, or one doesn't.
pub(crate) async fn await_served(cluster: Cluster, lane: usize, probe: Probe, announcement: Announcement) -> Event {
    let api: Api<Pod> = Api::namespaced(cluster.client, &cluster.namespace);
    let asked = announcement.asked.iter().map(|asked| probe.served(&api, asked, PROBE_LIMIT));
    let answers = future::join_all(asked).await;
    let ways = announcement.asked.iter().zip(&answers);
    let ways = ways.filter_map(|(asked, answer)| answer.map(|(_, way)| (asked.pod.clone(), way))).collect();
    let durations: Option<Vec<Duration>> = answers.into_iter().map(|answer| answer.map(|(duration, _)| duration)).collect();
    let served = durations.and_then(|durations| durations.into_iter().max());
    Event::Served { lane, announcement: Box::new(announcement), served, ways }
}

/// Finds out beforehand how a pod answers, so that it does not count as time to
/// serve a change.
pub(crate) async fn find_way(cluster: Cluster, lane: usize, probe: Probe, asked: Asked) -> Event {
    let api: Api<Pod> = Api::namespaced(cluster.client, &cluster.namespace);
    let way: Option<Way> = probe.served(&api, &asked, PROBE_LIMIT).await.map(|(_, way)| way);
    Event::WaysFound { lane, ways: way.map(|way| (asked.pod, way)).into_iter().collect() }
}

/// A build that went well.
#[derive(Debug)]
pub(crate) struct Build {
    pub(crate) binary: Binary,
    /// The compiler's list of what it read.
    pub(crate) dep_info: Option<String>,
}

/// Builds a service's binary and takes a copy, which a later build can't
/// change while it is on its way.
pub(crate) async fn compile(lane: usize, number: u64, facts: Arc<Facts>, origin: Origin, keep: PathBuf, shutdown: Shutdown) -> Event {
    let outcome = match build::build(&facts.root, &devloop_core::project::Build::Cargo(facts.build.clone()), &keep, &shutdown).await {
        Ok(None) => Err(devloop_core::CommandError::new("the build makes no binary").into()),
        Ok(Some(built)) => {
            let name = facts.name.clone();
            let copied = tokio::task::spawn_blocking(move || keep_copy(&built.path, &keep, &name).map(|kept| (kept, built))).await;
            match copied {
                Ok(Ok(((hash, path, dep_info), built))) => {
                    let binary = Binary { hash, path, compile: built.duration, ready: Instant::now(), origin: Some(origin) };
                    Ok(Build { binary, dep_info })
                }
                Ok(Err(error)) => Err(devloop_core::CommandError::new("could not copy the binary").caused_by(error).into()),
                Err(error) => Err(devloop_core::CommandError::new("could not copy the binary").caused_by(error).into()),
            }
        }
        Err(error) => Err(error),
    };
    Event::Built { lane, number, outcome: Box::new(outcome) }
}

/// Copies a binary under a name of its own; answers its hash, the copy, and the
/// compiler's list beside it.
fn keep_copy(path: &Path, folder: &Path, name: &str) -> std::io::Result<(blake3::Hash, PathBuf, Option<String>)> {
    let content = std::fs::read(path)?;
    let hash = blake3::hash(&content);
    let copy = folder.join(format!("{name}-{}", &hash.to_hex()[..16]));
    devloop_core::files::write_atomic(&copy, &content, 0o755)?;
    Ok((hash, copy, std::fs::read_to_string(path.with_extension("d")).ok()))
}

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
    let one = |(pod, container, process): &(String, RunningContainer, ProcessId)| {
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

/// Waits until swapped processes have run for a while or have ended.
pub(crate) async fn judge(
    agents: Agents,
    cluster: Cluster,
    container: String,
    lane: usize,
    binary: Binary,
    pods: Vec<SwappedPod>,
) -> Event {
    let fates = future::join_all(pods.iter().map(|swapped| fate(&agents, &cluster, &container, swapped))).await;
    let fates = pods.into_iter().map(|swapped| swapped.pod).zip(fates).collect();
    Event::Judged { lane, binary, fates }
}

async fn fate(agents: &Agents, cluster: &Cluster, container: &str, swapped: &SwappedPod) -> Fate {
    let Ok(agent) = agent_of(agents, &swapped.pod) else { return Fate::Unknown };
    let started = Instant::now();
    let mut pause = Duration::from_millis(25);
    while started.elapsed() < PROBATION {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
        match agent.alive(swapped.process).await {
            Ok(true) => {}
            Ok(false) => return end(agent, cluster, container, swapped).await,
            Err(_) => return Fate::Unknown,
        }
    }
    Fate::Alive
}

async fn end(agent: &Agent, cluster: &Cluster, container: &str, swapped: &SwappedPod) -> Fate {
    let SwappedPod { pod, container_id, process } = swapped;
    if agent.rollback(*process).await.is_ok() {
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

/// Asks cargo again which packages a binary is made of.
pub(crate) async fn reshape(lane: usize, facts: Arc<Facts>) -> Event {
    Event::Reshaped { lane, outcome: sources::of_build(&facts.root, &facts.build).await }
}

/// Starts an agent, after a pause when some failed before.
pub(crate) async fn start_agent(cluster: Cluster, images: AgentImages, place: Place, number: u64, failures: u32) -> Event {
    if failures > 0 {
        // A container that ended takes the agent beside it along: its pod tells
        // of that within a second or two, and then no other one is wanted.
        let least = if matches!(place, Place::Pod { .. }) { Duration::from_secs(2) } else { Duration::ZERO };
        tokio::time::sleep(least + Duration::from_millis(250) * 2_u32.pow(failures.min(5))).await;
    }
    let outcome = start_agent_at(&cluster, &images, &place).await;
    Event::AgentStarted { place, number, outcome }
}

async fn start_agent_at(cluster: &Cluster, images: &AgentImages, place: &Place) -> Result<Agent, AgentError> {
    match place {
        Place::Node(name) => {
            let node = cluster.nodes.iter().find(|node| node.name() == name);
            let node = node.ok_or_else(|| AgentError::Start(std::io::Error::other(format!("node {name} is not on this machine"))))?;
            Agent::start(node).await
        }
        Place::Pod { pod, container, node, .. } => {
            let node = cluster.nodes.iter().find(|candidate| Some(candidate.name()) == node.as_deref());
            let image = images.for_pod_on(node).await?;
            let beside = Beside {
                client: cluster.client.clone(),
                namespace: cluster.namespace.clone(),
                pod: pod.clone(),
                container: container.clone(),
                image,
            };
            Agent::start_by(&beside).await
        }
    }
}

/// Waits for an agent to end.
pub(crate) async fn await_end(agent: Agent, place: Place, number: u64) -> Event {
    let reason = agent.ended().await;
    Event::AgentEnded { place, number, reason }
}

/// Whether a failure is the business of the pods' watcher: the container went
/// away under our hands.
pub(crate) fn is_passing(error: &AgentError) -> bool {
    error.is_fatal() || matches!(error, AgentError::Refused { kind: ErrorKind::Vanished, .. })
}

/// Whether a build ended because the user wanted the session to end.
pub(crate) fn is_interrupted(error: &BuildError) -> bool {
    matches!(error, BuildError::Tool(error) if error.status() == devloop_core::ExitStatus::Interrupted)
}
