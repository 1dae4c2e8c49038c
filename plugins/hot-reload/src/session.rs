//! The loop: events in, work out. Its state is its own; nothing is shared.

mod agents;
mod containers;
mod foot;
mod leave;
mod outcomes;
mod record;
mod trials;

use crate::gather::{Gathered, prepare};
use crate::keep;
use crate::keys::{Key, Keyboard};
use crate::lane::{Delivery, Lane, Origin, ReloadOrder};
use crate::place::{Place, Routes};
use crate::probe::Way;
use crate::report::{Happening, Report, Reporter, count};
use crate::request::Request;
use crate::sources::Sources;
use crate::status::Published;
use crate::work::{self, Announcement, Attachment, Build, Checked, Fate, Leaving, PodOutcome, ReloadFailure, SwapOutcomes, Trial};
use crate::workloads;
use agents::Station;
use devloop_core::agent::{Agent, AgentError, AgentImages, Swapped};
use devloop_core::build::BuildError;
use devloop_core::changes;
use devloop_core::cluster::Cluster;
use devloop_core::shutdown::Shutdown;
use devloop_core::watch::{ChangeKind, Generation, WatchRoot, Watcher};
use devloop_core::{CommandError, Context, ErrorContext, ExitStatus, Result};
use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

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
    Attached { lane: usize, pod: String, container_id: String, number: u64, outcome: Box<Result<Attachment, AgentError>> },
    /// A container's files were compared with the local ones.
    Checked { lane: usize, pod: String, container_id: String, outcome: Result<Checked, AgentError> },
    /// Files are in their pods.
    Delivered { lane: usize, delivery: Delivery, outcomes: Vec<PodOutcome<()>>, delivered: Instant },
    /// Apps took note of changed files, or didn't.
    Reloaded {
        lane: usize,
        order: Box<ReloadOrder>,
        outcomes: Vec<PodOutcome<Option<Swapped>, ReloadFailure>>,
        started: Instant,
        ended: Instant,
    },
    /// Pods answered the probe, or one didn't.
    Served { lane: usize, announcement: Box<Announcement>, served: Option<Duration>, ways: Vec<(String, Way)> },
    /// It is known how pods can be asked.
    WaysFound { lane: usize, ways: Vec<(String, Way)> },
    /// The build is done.
    Built { lane: usize, number: u64, outcome: Box<Result<Build, BuildError>> },
    /// Processes were replaced.
    Swapped { lane: usize, outcomes: Box<SwapOutcomes> },
    /// A process that stood still for a debugger may run by now.
    MayRun { lane: usize },
    /// What became of them.
    Judged { lane: usize, number: u64, trial: Trial, fates: Vec<(String, Fate)> },
    /// Which sources there are now.
    Reshaped { lane: usize, outcome: Result<Sources> },
    /// Other folders are watched now.
    Rewatched(Box<Result<(Watcher, mpsc::Receiver<Generation>)>>),
    /// The user wants something.
    Key(Key),
    /// What pods said of late.
    Logs { pod: String, outcome: Result<Vec<String>> },
    /// An agent is gone.
    AgentEnded { place: Place, number: u64, reason: String },
    /// An agent was started, or not.
    AgentStarted { place: Place, number: u64, outcome: Result<Agent, AgentError> },
}

/// Runs until the user ends it.
pub(crate) async fn run(context: Context, request: Request, gathered: Gathered, journal: changes::Session) -> Result<ExitStatus> {
    let mut reporter = Reporter::new(context.ui.clone(), request.output);
    let Gathered { cluster, found } = gathered;
    let starting = async {
        let mut services = Vec::new();
        for found in &found {
            services.push(prepare(&request, found).await?);
        }
        let keep = keep::folder().context("could not make a temporary folder")?;
        let watching = watch(roots(services.iter().map(|(_, layout)| layout.roots()))).await?;
        Ok((services, keep, watching))
    };
    let (services, keep, (watcher, generation_rx)) = match context.shutdown.guard(starting).await {
        Ok(started) => started,
        Err(error) => {
            let mut journal = journal;
            for line in workloads::restore(&cluster, &mut journal).await? {
                reporter.say(&line);
            }
            journal.end()?;
            return if error.status() == ExitStatus::Interrupted { Ok(ExitStatus::Success) } else { Err(error) };
        }
    };
    let (keyboard, key_rx) = reporter.screen.as_ref().and_then(|_| Keyboard::listen()).unzip();
    for warning in watcher.take_warnings() {
        reporter.warn(&format!("{warning}; {}", warning.hint()));
    }
    let lanes: Vec<Lane> = services.into_iter().map(|(facts, layout)| Lane::new(facts, layout)).collect();
    let pods = pod_events(&cluster, &lanes);
    let session = Session {
        reporter,
        shutdown: context.shutdown,
        routes: Routes { via: request.via, reachable: cluster.nodes.iter().map(|node| node.name().to_owned()).collect() },
        agent_images: AgentImages::new(cluster.client.clone(), request.agent_image),
        cluster,
        builds: lanes.iter().map(|_| Builds::default()).collect(),
        relisted: lanes.iter().map(|_| None).collect(),
        lanes,
        stations: BTreeMap::new(),
        agents_started: 0,
        journal: Some(journal),
        published: Published::default(),
        containers_before: BTreeMap::new(),
        keep,
        is_ready: false,
        is_paused: false,
        keyboard,
        key_rx,
        leaving: request.leaving,
        tasks: JoinSet::new(),
        watcher,
        generation_rx,
        pods,
    };
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
    routes: Routes,
    agent_images: AgentImages,
    lanes: Vec<Lane>,
    builds: Vec<Builds>,
    /// The pods seen so far in a list that is under way.
    relisted: Vec<Option<BTreeSet<String>>>,
    stations: BTreeMap<Place, Station>,
    /// Counts them, to tell one from the next.
    agents_started: u64,
    /// What is changed in the cluster, on disk; until the end.
    journal: Option<changes::Session>,
    /// What was last said to whoever asks for the status.
    published: Published,
    /// The container that was worked on last, by the uid of its pod.
    containers_before: BTreeMap<String, String>,
    keep: tempfile::TempDir,
    is_ready: bool,
    /// Whether nothing is brought into pods until the user goes on.
    is_paused: bool,
    keyboard: Option<Keyboard>,
    key_rx: Option<mpsc::UnboundedReceiver<Key>>,
    leaving: Leaving,
    tasks: JoinSet<Event>,
    watcher: Watcher,
    generation_rx: mpsc::Receiver<Generation>,
    pods: SelectAll<BoxStream<'static, Event>>,
}

impl Session {
    /// Works until the user ends it, or something makes it pointless; then leaves
    /// the pods as they are to be.
    async fn run(mut self) -> Result<ExitStatus> {
        let worked = self.work().await;
        let left = self.leave().await;
        worked.and(left).map(|()| ExitStatus::Success)
    }

    async fn work(&mut self) -> Result<()> {
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].facts.build.is_some() {
                // What was saved before the session began is to run, too.
                self.start_build(lane, None)?;
            }
        }
        loop {
            let event = tokio::select! {
                biased;
                () = self.shutdown.requested() => return Ok(()),
                generation = self.generation_rx.recv() => generation.map_or(Event::WatchEnded, Event::Saved),
                Some(outcome) = self.tasks.join_next() => match outcome {
                    Ok(event) => event,
                    // A build that a newer save made pointless.
                    Err(error) if error.is_cancelled() => continue,
                    Err(error) => return Err(CommandError::new("a task of the session failed").caused_by(error)),
                },
                Some(event) = self.pods.next() => event,
                Some(key) = next_key(self.key_rx.as_mut()) => match key {
                    Key::Quit => return Ok(()),
                    key => Event::Key(key),
                },
            };
            self.take(event)?;
            self.retire();
            self.pump();
            self.announce()?;
            self.show();
            self.publish()?;
        }
    }

    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Saved(generation) => self.saved(&generation),
            Event::WatchEnded => self.watch_ended(),
            Event::Pod { lane, event } => self.pod(lane, *event),
            Event::Attached { lane, pod, container_id, number, outcome } => self.attached(lane, &pod, &container_id, number, *outcome),
            Event::Checked { lane, pod, container_id, outcome } => self.checked(lane, &pod, &container_id, outcome),
            Event::Reloaded { lane, order, outcomes, started, ended } => self.reloaded(lane, &order, outcomes, started, ended),
            Event::Delivered { lane, delivery, outcomes, delivered } => self.delivered(lane, delivery, outcomes, delivered),
            Event::Served { lane, announcement, served, ways } => {
                self.ways_found(lane, ways);
                self.served(lane, *announcement, served)
            }
            Event::WaysFound { lane, ways } => {
                self.ways_found(lane, ways);
                Ok(())
            }
            Event::Built { lane, number, outcome } => self.built(lane, number, *outcome),
            Event::Swapped { lane, outcomes } => self.swapped(lane, *outcomes),
            Event::MayRun { lane } => {
                self.lanes[lane].may_run();
                Ok(())
            }
            Event::Judged { lane, number, trial, fates } => self.judged(lane, number, &trial, fates),
            Event::Reshaped { lane, outcome } => self.reshaped(lane, outcome),
            Event::Rewatched(outcome) => {
                // What the old one still holds was seen by the new one, too.
                (self.watcher, self.generation_rx) = (*outcome)?;
                Ok(())
            }
            Event::Key(key) => self.key(key),
            Event::Logs { pod, outcome } => {
                match outcome {
                    Ok(lines) => self.reporter.say(format!("── {pod}\n{}", lines.join("\n")).trim_end()),
                    Err(error) => self.reporter.warn(&format!("the log of {pod} can't be read: {error}")),
                }
                Ok(())
            }
            Event::AgentEnded { place, number, reason } => self.agent_ended(place, number, AgentError::Ended(reason)),
            Event::AgentStarted { place, number, outcome } => self.agent_started(place, number, outcome),
        }
    }

    fn saved(&mut self, generation: &Generation) -> Result<()> {
        for warning in self.watcher.take_warnings() {
            self.reporter.warn(&format!("{warning}; {}", warning.hint()));
        }
        let origin = origin(generation);
        for lane in 0..self.lanes.len() {
            let plan = self.lanes[lane].layout.plan(&generation.changes);
            self.lanes[lane].note_files(&plan, origin);
            if plan.reshape {
                self.tasks.spawn(work::reshape(lane, Arc::clone(&self.lanes[lane].facts)));
            }
            if plan.build {
                self.start_build(lane, Some(origin))?;
            }
        }
        Ok(())
    }

    /// Builds anew; a build under way is of older sources and ends here.
    fn start_build(&mut self, lane: usize, origin: Option<Origin>) -> Result<()> {
        let builds = &mut self.builds[lane];
        if let Some(running) = builds.running.take() {
            running.abort();
        }
        builds.number += 1;
        let (facts, keep) = (Arc::clone(&self.lanes[lane].facts), self.keep.path().to_owned());
        let report = Report { generation: origin.map(|origin| origin.generation), ..Report::of(Happening::BuildStarted, &facts.name) };
        builds.running = Some(self.tasks.spawn(work::compile(lane, builds.number, facts, origin, keep, self.shutdown.clone())));
        self.reporter.tell(&report)
    }

    fn watch_ended(&self) -> Result<()> {
        let error = CommandError::new("files are not watched any more");
        Err(match self.watcher.failure() {
            Some(failure) => error.caused_by(failure.to_string()),
            None => error,
        })
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

    /// Starts whatever is due.
    fn pump(&mut self) {
        if self.is_paused {
            return;
        }
        for lane in 0..self.lanes.len() {
            if let Some(delivery) = self.lanes[lane].next_delivery() {
                self.tasks.spawn(work::deliver(self.agents_of(lane), lane, delivery));
            }
            if let Some(binary) = self.lanes[lane].facts.binary.clone()
                && let Some(order) = self.lanes[lane].next_swap()
            {
                // What becomes of these processes from here on is this order's.
                self.lanes[lane].begin_trial(order.pods.iter().map(|receiver| receiver.pod.clone()));
                self.tasks.spawn(work::swap(self.agents_of(lane), lane, order, binary, self.lanes[lane].facts.restart.by));
            }
            if let Some(order) = self.lanes[lane].next_reload() {
                let facts = Arc::clone(&self.lanes[lane].facts);
                self.lanes[lane].begin_trial(order.restarted().map(|receiver| receiver.pod.clone()));
                self.tasks.spawn(work::reload(self.agents_of(lane), self.cluster.clone(), facts, lane, order));
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

/// The next key; never, where there are none.
async fn next_key(key_rx: Option<&mut mpsc::UnboundedReceiver<Key>>) -> Option<Key> {
    match key_rx {
        Some(key_rx) => key_rx.recv().await,
        None => std::future::pending().await,
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
