//! What became of deliveries, builds and swaps.

use super::Session;
use crate::lane::{Binary, Delivery, Lane, Origin, Verdict};
use crate::probe::{Asked, Way};
use crate::report::{Happening, Phases, Report, count};
use crate::work::{self, Announcement, Build, Fate, PodOutcome, SwapOutcomes, SwappedPod};
use devloop_core::build::BuildError;
use devloop_core::{CommandError, Result};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

impl Session {
    pub(super) fn delivered(&mut self, lane: usize, delivery: Delivery, outcomes: Vec<PodOutcome<()>>, delivered: Instant) -> Result<()> {
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
        let asked = report.pods.iter().filter_map(|pod| self.asked(lane, pod)).collect();
        self.tasks.spawn(work::await_served(self.cluster.clone(), lane, probe, Announcement { report, asked, running }));
        Ok(())
    }

    /// How to ask a pod whether it serves.
    pub(super) fn asked(&self, lane: usize, pod: &str) -> Option<Asked> {
        let entry = self.lanes[lane].pods.get(pod)?;
        Some(Asked { pod: pod.to_owned(), address: entry.container.address.clone(), way: entry.way })
    }

    /// Remembers how pods can be asked.
    pub(super) fn ways_found(&mut self, lane: usize, ways: Vec<(String, Way)>) {
        for (pod, way) in ways {
            if let Some(entry) = self.lanes[lane].pods.get_mut(&pod)
                && entry.way.replace(way).is_none()
            {
                tracing::info!(pod, ?way, "the way of the probe is chosen");
            }
        }
    }

    pub(super) fn served(&mut self, lane: usize, announcement: Announcement, served: Option<Duration>) -> Result<()> {
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

    pub(super) fn built(&mut self, lane: usize, number: u64, outcome: Result<Build, BuildError>) -> Result<()> {
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

    pub(super) fn swapped(&mut self, lane: usize, done: SwapOutcomes) -> Result<()> {
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
        let container = self.lanes[lane].facts.container.clone();
        self.tasks.spawn(work::judge(self.agents_of(lane), self.cluster.clone(), container, lane, order.binary.clone(), judged));
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

    pub(super) fn judged(&mut self, lane: usize, binary: &Binary, fates: Vec<(String, Fate)>) -> Result<()> {
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
}

fn phases_of(origin: &Origin, ended: Instant) -> Phases {
    let total = ended.saturating_duration_since(origin.first_event) + origin.watch.unwrap_or_default();
    Phases { watch: origin.watch, settle: Some(origin.settled - origin.first_event), total: Some(total), ..Phases::default() }
}
