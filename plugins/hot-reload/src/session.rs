//! The loop: events in, work out. Its state is its own; nothing is shared.

use crate::gather::Gathered;
use crate::lane::{Attached, Binary, Delivery, Lane, Origin, Stage, Verdict};
use crate::pods;
use crate::report::{Happening, Phases, Report, Reporter, count};
use crate::request::Request;
use crate::sources::Sources;
use crate::work::{self, Announcement, Attachment, Build, Fate, PodOutcome, SwapOutcomes, SwappedPod};
use devloop_core::agent::{Agent, AgentError};
use devloop_core::build::BuildError;
use devloop_core::cluster::Cluster;
use devloop_core::node::Node;
use devloop_core::shutdown::Shutdown;
use devloop_core::watch::{ChangeKind, Generation, WatchRoot, Watcher};
use devloop_core::{CommandError, Context, ErrorContext, ExitStatus, Result};
use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

/// Agents that may end in one session before it is given up.
const AGENT_LIMIT: u32 = 5;
/// A modification time that is further back says nothing about the watcher.
const OLDEST_SAVE: Duration = Duration::from_secs(2);
/// How long two watchers run beside each other when one replaces the other.
const OVERLAP: Duration = Duration::from_millis(700);

/// All that can happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// Files changed.
    Saved(Generation),
    /// Files are not watched any more.
    WatchEnded,
    /// Something about a service's pods.
    Pod { lane: usize, event: Box<Result<watcher::Event<Pod>, watcher::Error>> },
    /// A container's process was found, or not.
    Attached { lane: usize, pod: String, container_id: String, outcome: Result<Attachment, AgentError> },
    /// Files are in their pods.
    Delivered { lane: usize, delivery: Delivery, outcomes: Vec<PodOutcome<()>>, delivered: Instant },
    /// Pods answered the probe, or one didn't.
    Served { lane: usize, announcement: Box<Announcement>, served: Option<Duration> },
    /// Cargo is done.
    Built { lane: usize, number: u64, outcome: Box<Result<Build, BuildError>> },
    /// Processes were replaced.
    Swapped { lane: usize, outcomes: Box<SwapOutcomes> },
    /// What became of them.
    Judged { lane: usize, binary: Binary, fates: Vec<(String, Fate)> },
    /// Which sources there are now.
    Reshaped { lane: usize, outcome: Result<Sources> },
    /// Other folders are watched now.
    Rewatched(Box<Result<(Watcher, mpsc::Receiver<Generation>)>>),
    /// The agent is gone.
    AgentEnded(String),
    /// Another agent was started.
    AgentStarted(Result<Agent, AgentError>),
    /// The user wants to end.
    Stop,
}

/// Runs until the user ends it.
pub(crate) async fn run(context: Context, request: Request, gathered: Gathered) -> Result<ExitStatus> {
    let reporter = Reporter { ui: context.ui.clone(), form: request.output };
    let starting = async {
        let agent = Agent::start(&gathered.node).await?;
        let keep = tempfile::Builder::new().prefix("devloop-hot-reload-").tempdir().context("could not make a temporary folder")?;
        let roots = roots(gathered.services.iter().map(|(_, layout)| layout.roots()));
        let watching = watch(roots).await?;
        Ok((agent, keep, watching))
    };
    let (agent, keep, (watcher, generation_rx)) = match context.shutdown.guard(starting).await {
        Ok(started) => started,
        Err(error) if error.status() == ExitStatus::Interrupted => return Ok(ExitStatus::Success),
        Err(error) => return Err(error),
    };
    let Gathered { cluster, node, services } = gathered;
    let lanes: Vec<Lane> = services.into_iter().map(|(facts, layout)| Lane::new(facts, layout)).collect();
    let pods = pod_events(&cluster, &lanes);
    let mut session = Session {
        reporter,
        shutdown: context.shutdown,
        cluster,
        node,
        builds: lanes.iter().map(|_| Builds::default()).collect(),
        relisted: lanes.iter().map(|_| None).collect(),
        lanes,
        agent: Some(agent.clone()),
        agents_ended: 0,
        keep,
        is_ready: false,
        tasks: JoinSet::new(),
        watcher,
        generation_rx,
        pods,
    };
    session.tasks.spawn(work::await_end(agent));
    session.run().await
}

async fn watch(roots: Vec<WatchRoot>) -> Result<(Watcher, mpsc::Receiver<Generation>)> {
    let started = tokio::task::spawn_blocking(move || Watcher::start(roots)).await.context("the watcher's thread failed")?;
    Ok(started?)
}

fn roots(of_lanes: impl Iterator<Item = Vec<WatchRoot>>) -> Vec<WatchRoot> {
    let mut roots: Vec<WatchRoot> = of_lanes.flatten().collect();
    let mut seen = std::collections::HashSet::new();
    roots.retain(|root| seen.insert(root.clone()));
    roots
}

/// Watches the pods of every service, through broken connections.
fn pod_events(cluster: &Cluster, lanes: &[Lane]) -> SelectAll<BoxStream<'static, Event>> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let streams = lanes.iter().enumerate().map(|(lane, state)| {
        let stream = watcher(api.clone(), state.facts.selection.watch_config()).default_backoff();
        stream.map(move |event| Event::Pod { lane, event: Box::new(event) }).boxed()
    });
    futures::stream::select_all(streams)
}

/// A service's builds: one runs at most.
#[derive(Debug, Default)]
struct Builds {
    number: u64,
    running: Option<AbortHandle>,
}

struct Session {
    reporter: Reporter,
    shutdown: Shutdown,
    cluster: Cluster,
    node: Node,
    lanes: Vec<Lane>,
    builds: Vec<Builds>,
    /// The pods seen so far in a list that is under way.
    relisted: Vec<Option<BTreeSet<String>>>,
    agent: Option<Agent>,
    agents_ended: u32,
    keep: tempfile::TempDir,
    is_ready: bool,
    tasks: JoinSet<Event>,
    watcher: Watcher,
    generation_rx: mpsc::Receiver<Generation>,
    pods: SelectAll<BoxStream<'static, Event>>,
}

impl Session {
    async fn run(mut self) -> Result<ExitStatus> {
        loop {
            let event = tokio::select! {
                biased;
                () = self.shutdown.requested() => Event::Stop,
                generation = self.generation_rx.recv() => generation.map_or(Event::WatchEnded, Event::Saved),
                Some(outcome) = self.tasks.join_next() => match outcome {
                    Ok(event) => event,
                    // A build that a newer save made pointless.
                    Err(error) if error.is_cancelled() => continue,
                    Err(error) => return Err(CommandError::new("a task of the session failed").caused_by(error)),
                },
                Some(event) = self.pods.next() => event,
            };
            if let Event::Stop = event {
                return self.stop();
            }
            self.take(event)?;
            self.pump();
            self.announce()?;
        }
    }

    fn stop(self) -> Result<ExitStatus> {
        let targets: Vec<String> = self.lanes.iter().map(|lane| lane.facts.selection.target.to_string()).collect();
        let namespace = &self.cluster.namespace;
        let text = format!(
            "stopped; pods that were changed keep running the changed code until they are replaced\nto go back to their image: kubectl rollout restart {} -n {namespace}",
            targets.join(" ")
        );
        self.reporter.tell(&Report::new(Happening::Stopped).message(text))?;
        Ok(ExitStatus::Success)
    }

    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Saved(generation) => self.saved(&generation),
            Event::WatchEnded => self.watch_ended(),
            Event::Pod { lane, event } => self.pod(lane, *event),
            Event::Attached { lane, pod, container_id, outcome } => self.attached(lane, &pod, &container_id, outcome),
            Event::Delivered { lane, delivery, outcomes, delivered } => self.delivered(lane, delivery, outcomes, delivered),
            Event::Served { lane, announcement, served } => self.served(lane, *announcement, served),
            Event::Built { lane, number, outcome } => self.built(lane, number, *outcome),
            Event::Swapped { lane, outcomes } => self.swapped(lane, *outcomes),
            Event::Judged { lane, binary, fates } => self.judged(lane, &binary, fates),
            Event::Reshaped { lane, outcome } => self.reshaped(lane, outcome),
            Event::Rewatched(outcome) => {
                // What the old one still holds was seen by the new one, too.
                (self.watcher, self.generation_rx) = (*outcome)?;
                Ok(())
            }
            Event::AgentEnded(reason) => self.agent_ended(&reason),
            Event::AgentStarted(outcome) => self.agent_started(outcome),
            Event::Stop => Ok(()),
        }
    }

    fn saved(&mut self, generation: &Generation) -> Result<()> {
        let origin = origin(generation);
        for lane in 0..self.lanes.len() {
            let plan = self.lanes[lane].layout.plan(&generation.changes);
            self.lanes[lane].note_files(&plan, origin);
            if plan.reshape {
                self.tasks.spawn(work::reshape(lane, Arc::clone(&self.lanes[lane].facts)));
            }
            if plan.build {
                self.start_build(lane, origin)?;
            }
        }
        Ok(())
    }

    /// Builds anew; a build under way is of older sources and ends here.
    fn start_build(&mut self, lane: usize, origin: Origin) -> Result<()> {
        let builds = &mut self.builds[lane];
        if let Some(running) = builds.running.take() {
            running.abort();
        }
        builds.number += 1;
        let (facts, keep) = (Arc::clone(&self.lanes[lane].facts), self.keep.path().to_owned());
        let report = Report { generation: Some(origin.generation), ..Report::of(Happening::BuildStarted, &facts.name) };
        builds.running = Some(self.tasks.spawn(work::compile(lane, builds.number, facts, origin, keep, self.shutdown.clone())));
        self.reporter.tell(&report)
    }

    fn watch_ended(&self) -> Result<()> {
        let error = CommandError::new("files are not watched any more");
        Err(match self.watcher.failure() {
            Some(failure) => {
                error.caused_by(failure.to_string()).with_hint("raise the limits of inotify(7), or ignore folders in .devloopignore")
            }
            None => error,
        })
    }

    fn pod(&mut self, lane: usize, event: Result<watcher::Event<Pod>, watcher::Error>) -> Result<()> {
        match event {
            Ok(watcher::Event::Init) => self.relisted[lane] = Some(BTreeSet::new()),
            Ok(watcher::Event::InitApply(pod)) => {
                if let Some(seen) = &mut self.relisted[lane] {
                    seen.extend(pod.metadata.name.clone());
                }
                self.pod_changed(lane, &pod)?;
            }
            Ok(watcher::Event::InitDone) => {
                self.lanes[lane].listed = true;
                let seen = self.relisted[lane].take().unwrap_or_default();
                let gone: Vec<String> = self.lanes[lane].pods.keys().filter(|name| !seen.contains(*name)).cloned().collect();
                for pod in gone {
                    self.pod_gone(lane, &pod)?;
                }
            }
            Ok(watcher::Event::Apply(pod)) => self.pod_changed(lane, &pod)?,
            Ok(watcher::Event::Delete(pod)) => self.pod_gone(lane, pod.metadata.name.as_deref().unwrap_or_default())?,
            // Retried with growing pauses; what runs goes on meanwhile.
            Err(error) => tracing::warn!(%error, service = self.lanes[lane].facts.name, "the watch of the pods was interrupted"),
        }
        Ok(())
    }

    fn pod_changed(&mut self, lane: usize, pod: &Pod) -> Result<()> {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(container) = pods::running(pod, &self.lanes[lane].facts.container) else {
            return self.pod_gone(lane, &name);
        };
        if self.lanes[lane].note_pod(&name, &container)
            && let Some(agent) = self.agent.clone()
        {
            self.tasks.spawn(work::attach(agent, self.node.clone(), lane, name, container));
        }
        Ok(())
    }

    fn pod_gone(&mut self, lane: usize, pod: &str) -> Result<()> {
        match self.lanes[lane].pods.remove(pod) {
            Some(entry) if entry.announced => {
                self.reporter.tell(&Report::of(Happening::PodGone, &self.lanes[lane].facts.name).pods(vec![pod.to_owned()]))
            }
            _ => Ok(()),
        }
    }

    fn attached(&mut self, lane: usize, pod: &str, container_id: &str, outcome: Result<Attachment, AgentError>) -> Result<()> {
        let service = self.lanes[lane].facts.name.clone();
        let Some(entry) = self.lanes[lane].entry(pod, container_id) else { return Ok(()) };
        match outcome {
            Ok(Attachment { process, running }) => {
                entry.stage = Stage::Attached(Attached { process, synced: 0, running, refused: None });
                Ok(())
            }
            // The next agent attaches.
            Err(error) if error.is_fatal() => Ok(()),
            Err(error) => {
                entry.stage = Stage::Failed;
                let error = CommandError::new(format!("{service}: could not attach to pod {pod}")).caused_by(error);
                self.reporter.fail(Happening::Error, Some(&service), vec![pod.to_owned()], &error)
            }
        }
    }

    fn delivered(&mut self, lane: usize, delivery: Delivery, outcomes: Vec<PodOutcome<()>>, delivered: Instant) -> Result<()> {
        self.lanes[lane].delivering = false;
        let service = self.lanes[lane].facts.name.clone();
        let mut pods = Vec::new();
        for PodOutcome { pod, container_id, outcome } in outcomes {
            let Some(attached) = self.lanes[lane].attached_entry(&pod, &container_id) else { continue };
            // Also after a failure: the same again would fail again.
            attached.synced = delivery.epoch;
            match outcome {
                Ok(()) => pods.push(pod),
                Err(error) if work::is_passing(&error) => {}
                Err(error) => {
                    let error = CommandError::from(error);
                    self.reporter.fail(Happening::Error, Some(&service), vec![pod], &error)?;
                }
            }
        }
        let Some(origin) = delivery.origin else { return Ok(()) };
        if pods.is_empty() {
            return Ok(());
        }
        let files: BTreeSet<&String> = delivery.pods.iter().flat_map(|pod| pod.files.iter().map(|(path, _)| path)).collect();
        let message = match files.first() {
            Some(only) if files.len() == 1 => (*only).clone(),
            _ => count(files.len(), "file"),
        };
        let phases = Phases { deliver: Some(delivered - origin.settled), ..phases_of(&origin, delivered) };
        let report =
            Report { generation: Some(origin.generation), files: Some(files.len()), phases, ..Report::of(Happening::Synced, &service) };
        self.tell_when_served(lane, report.pods(pods).message(message), None)
    }

    /// Tells a report at once, or when the pods in it answer the probe.
    fn tell_when_served(&mut self, lane: usize, report: Report, running: Option<blake3::Hash>) -> Result<()> {
        let Some(probe) = self.lanes[lane].facts.probe.clone() else { return self.reporter.tell(&report) };
        let addresses = report.pods.iter().filter_map(|pod| self.lanes[lane].pods.get(pod)?.container.address.clone()).collect();
        self.tasks.spawn(work::await_served(lane, probe, Announcement { report, addresses, running }));
        Ok(())
    }

    fn served(&mut self, lane: usize, announcement: Announcement, served: Option<Duration>) -> Result<()> {
        let Announcement { mut report, running, .. } = announcement;
        if let Some(hash) = running {
            // A container that restarted meanwhile answered with its image's code.
            report.pods.retain(|pod| self.lanes[lane].runs(pod, hash));
            if report.pods.is_empty() {
                return Ok(());
            }
        }
        report.phases.served = served;
        report.phases.total = report.phases.total.map(|total| total + served.unwrap_or_default());
        if served.is_none() {
            report.message = report.message.map(|message| format!("{message} (the probe was not answered)"));
        }
        self.reporter.tell(&report)
    }

    fn built(&mut self, lane: usize, number: u64, outcome: Result<Build, BuildError>) -> Result<()> {
        if self.builds[lane].number != number {
            return Ok(());
        }
        self.builds[lane].running = None;
        let service = self.lanes[lane].facts.name.clone();
        let Build { binary, dep_info } = match outcome {
            Ok(build) => build,
            Err(error) if work::is_interrupted(&error) => return Ok(()),
            Err(error) => return self.build_failed(lane, error),
        };
        let state = &mut self.lanes[lane];
        if let (Some(sources), Some(dep_info)) = (&mut state.layout.sources, dep_info) {
            sources.learn(&dep_info);
        }
        let was_failing = state.failed_build.take().is_some();
        let verdict = state.note_binary(binary.clone());
        let generation = binary.origin.map(|origin| origin.generation);
        match verdict {
            Verdict::New => Ok(()),
            Verdict::Unchanged => {
                let message = if was_failing { "compiles again; its pods run this code already" } else { "its pods run this code already" };
                let phases = binary.origin.map_or_else(Phases::default, |origin| phases_of(&origin, binary.ready));
                let phases = Phases { compile: Some(binary.compile), ..phases };
                self.reporter.tell(&Report { generation, phases, ..Report::of(Happening::Unchanged, &service) }.message(message))
            }
            Verdict::KnownBad => {
                let error = CommandError::new(format!("{service}: this code ended soon after its start before; it is not tried again"));
                self.reporter.fail(Happening::Error, Some(&service), Vec::new(), &error)
            }
        }
    }

    fn build_failed(&mut self, lane: usize, error: BuildError) -> Result<()> {
        let state = &mut self.lanes[lane];
        let service = state.facts.name.clone();
        let error = match error {
            BuildError::Compile { rendered, errors } => {
                let rendered = rendered.trim_end().to_owned();
                let summary = format!("{service} does not compile ({}); its pods keep running the code before", count(errors, "error"));
                // The same message a second time tells nothing new.
                let is_known = state.failed_build.as_ref() == Some(&rendered);
                let text = if is_known { summary } else { format!("{summary}\n{rendered}") };
                state.failed_build = Some(rendered);
                CommandError::new(text)
            }
            BuildError::Tool(error) => {
                state.failed_build = Some(error.to_string());
                CommandError::new(format!("{service} can't be built")).caused_by(error)
            }
        };
        self.reporter.fail(Happening::BuildFailed, Some(&service), Vec::new(), &error)
    }

    fn swapped(&mut self, lane: usize, done: SwapOutcomes) -> Result<()> {
        let SwapOutcomes { order, outcomes, started, ended } = done;
        let hash = order.binary.hash;
        let service = self.lanes[lane].facts.name.clone();
        self.lanes[lane].swapping = false;
        let (mut judged, mut replacing, mut in_memory, mut is_passing) = (Vec::new(), Duration::ZERO, false, false);
        for PodOutcome { pod, container_id, outcome } in outcomes {
            let attached = self.lanes[lane].attached_entry(&pod, &container_id);
            match outcome {
                Ok(swapped) => {
                    if let Some(attached) = attached {
                        attached.running = Some(hash);
                        attached.process = swapped.process;
                    }
                    in_memory |= swapped.in_memory;
                    replacing = replacing.max(Duration::from_micros(swapped.phases.executed_us.saturating_sub(swapped.phases.written_us)));
                    // Also one whose container is gone by now: perhaps that was why.
                    judged.push(SwappedPod { pod, container_id, process: swapped.process });
                }
                Err(error) if work::is_passing(&error) => is_passing = true,
                Err(error) => {
                    if let Some(attached) = attached {
                        attached.refused = Some(hash);
                    }
                    let error =
                        CommandError::new(format!("{service}: the process of pod {pod} could not be swapped; it runs on as it was"))
                            .caused_by(CommandError::from(error))
                            .with_hint(format!("bring the change into the cluster with `kubectl rebuild {service}`"));
                    self.reporter.fail(Happening::Error, Some(&service), vec![pod], &error)?;
                }
            }
        }
        if judged.is_empty() {
            if is_passing && !order.catching_up {
                self.lanes[lane].retry(hash);
            } else if !is_passing {
                self.lanes[lane].give_up(hash);
            }
            return Ok(());
        }
        let pods: Vec<String> = judged.iter().map(|swapped| swapped.pod.clone()).collect();
        if let Some(agent) = self.agent.clone() {
            let container = self.lanes[lane].facts.container.clone();
            self.tasks.spawn(work::judge(agent, self.cluster.clone(), container, lane, order.binary.clone(), judged));
        }
        let Some(origin) = order.binary.origin.filter(|_| !order.catching_up) else { return Ok(()) };
        let phases = Phases {
            compile: Some(order.binary.compile),
            deliver: Some((ended - started.min(order.binary.ready)).saturating_sub(replacing)),
            swap: Some(replacing),
            ..phases_of(&origin, ended)
        };
        let message = if in_memory { "new code runs (from memory: the root is read-only)" } else { "new code runs" };
        let report = Report { generation: Some(origin.generation), phases, ..Report::of(Happening::Swapped, &service) };
        self.tell_when_served(lane, report.pods(pods).message(message), Some(hash))
    }

    fn judged(&mut self, lane: usize, binary: &Binary, fates: Vec<(String, Fate)>) -> Result<()> {
        let service = self.lanes[lane].facts.name.clone();
        let ended: Vec<_> = fates.into_iter().filter(|(_, fate)| !matches!(fate, Fate::Alive | Fate::Unknown)).collect();
        if ended.is_empty() {
            self.lanes[lane].prove(binary);
        } else {
            self.lanes[lane].condemn(binary.hash);
        }
        let next = if self.lanes[lane].has_good_binary() { "the last good code of this session" } else { "its image's code" };
        for (pod, fate) in ended {
            let (outcome, log) = match fate {
                Fate::Ended { log } => (format!("the container restarts with {next}"), log),
                _ => ("the code before runs again".to_owned(), String::new()),
            };
            let log = if log.is_empty() { log } else { format!("\nlast lines of its log:\n{log}") };
            let error = CommandError::new(format!("{service}: the new code ended soon after its start in pod {pod}; {outcome}{log}"));
            self.reporter.fail(Happening::Error, Some(&service), vec![pod], &error)?;
        }
        self.sweep();
        Ok(())
    }

    /// Removes copies of binaries that nothing refers to any more.
    fn sweep(&self) {
        if self.builds.iter().any(|builds| builds.running.is_some()) || self.lanes.iter().any(|lane| lane.swapping) {
            return;
        }
        let kept: BTreeSet<_> = self.lanes.iter().flat_map(Lane::kept).collect();
        for entry in std::fs::read_dir(self.keep.path()).into_iter().flatten().flatten() {
            if !kept.contains(&entry.path()) {
                // The folder goes at the end of the session in any case.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn reshaped(&mut self, lane: usize, outcome: Result<Sources>) -> Result<()> {
        // A manifest that is being edited may not be valid; the build tells.
        let Ok(sources) = outcome else { return Ok(()) };
        let before = roots(self.lanes.iter().map(|lane| lane.layout.roots()));
        self.lanes[lane].layout.sources = Some(sources);
        let after = roots(self.lanes.iter().map(|lane| lane.layout.roots()));
        if before != after {
            self.tasks.spawn(async move {
                let watching = watch(after).await;
                // Meanwhile both watch: what the old one has not settled yet is
                // not lost, and what both report is only done twice.
                tokio::time::sleep(OVERLAP).await;
                Event::Rewatched(Box::new(watching))
            });
        }
        Ok(())
    }

    fn agent_ended(&mut self, reason: &str) -> Result<()> {
        self.agent = None;
        self.agents_ended += 1;
        for lane in &mut self.lanes {
            lane.detach_all();
        }
        let error = AgentError::Ended(reason.to_owned());
        if self.agents_ended > AGENT_LIMIT {
            return Err(CommandError::from(error).with_hint("is the environment still running? see `kubectl devenv status`"));
        }
        tracing::warn!(%error, "starting another one");
        self.tasks.spawn(work::restart_agent(self.node.clone(), self.agents_ended));
        Ok(())
    }

    fn agent_started(&mut self, outcome: Result<Agent, AgentError>) -> Result<()> {
        let agent = match outcome {
            Ok(agent) => agent,
            Err(error) => return self.agent_ended(&error.to_string()),
        };
        self.tasks.spawn(work::await_end(agent.clone()));
        for (lane, state) in self.lanes.iter().enumerate() {
            for (pod, entry) in &state.pods {
                self.tasks.spawn(work::attach(agent.clone(), self.node.clone(), lane, pod.clone(), entry.container.clone()));
            }
        }
        self.agent = Some(agent);
        Ok(())
    }

    /// Starts whatever is due.
    fn pump(&mut self) {
        let Some(agent) = &self.agent else { return };
        for (lane, state) in self.lanes.iter_mut().enumerate() {
            if let Some(delivery) = state.next_delivery() {
                self.tasks.spawn(work::deliver(agent.clone(), lane, delivery));
            }
            if let Some(order) = state.next_swap() {
                self.tasks.spawn(work::swap(agent.clone(), lane, order, state.facts.binary.clone()));
            }
        }
    }

    /// Tells of pods that have come into sync, and once that all have.
    fn announce(&mut self) -> Result<()> {
        for lane in &mut self.lanes {
            let new: Vec<String> =
                lane.pods.iter().filter(|(_, entry)| !entry.announced && lane.is_in_sync(entry)).map(|(name, _)| name.clone()).collect();
            for pod in new {
                if let Some(entry) = lane.pods.get_mut(&pod) {
                    entry.announced = true;
                }
                self.reporter.tell(&Report::of(Happening::PodAdded, &lane.facts.name).pods(vec![pod]).message("is in sync"))?;
            }
        }
        if self.is_ready || !self.lanes.iter().all(Lane::is_ready) {
            return Ok(());
        }
        self.is_ready = true;
        let names: Vec<&str> = self.lanes.iter().map(|lane| lane.facts.name.as_str()).collect();
        let pods: Vec<String> = self.lanes.iter().flat_map(|lane| lane.pods.keys().cloned()).collect();
        let message = format!("watching {} in {}; Ctrl-C ends it", names.join(", "), count(pods.len(), "pod"));
        self.reporter.tell(&Report::new(Happening::Ready).pods(pods).message(message))
    }
}

fn origin(generation: &Generation) -> Origin {
    let first_event = SystemTime::now().checked_sub(generation.first_event.elapsed());
    let modified = generation.changes.iter().filter(|change| change.kind == ChangeKind::Modified);
    let modified = modified.filter_map(|change| change.path.metadata().and_then(|metadata| metadata.modified()).ok()).max();
    let watch = first_event.zip(modified).map(|(event, modified)| event.duration_since(modified).unwrap_or_default());
    Origin {
        generation: generation.number,
        watch: watch.filter(|watch| *watch < OLDEST_SAVE),
        first_event: generation.first_event,
        settled: generation.settled,
    }
}

fn phases_of(origin: &Origin, ended: Instant) -> Phases {
    let total = ended.saturating_duration_since(origin.first_event) + origin.watch.unwrap_or_default();
    Phases { watch: origin.watch, settle: Some(origin.settled - origin.first_event), total: Some(total), ..Phases::default() }
}
