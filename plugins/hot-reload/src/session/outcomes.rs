//! What became of deliveries, builds and swaps.

use super::Session;
use crate::lane::{Delivery, Origin, ReloadOrder, Verdict, Waiting};
use crate::probe::{Asked, Way};
use crate::reload;
use crate::report::{Happening, Phases, Report, count};
use crate::work::{self, Announcement, Build, PodOutcome, ReloadFailure, SwappedPod, Trial};
use devloop_core::agent::Swapped;
use devloop_core::build::BuildError;
use devloop_core::project;
use devloop_core::{CommandError, Result};
use std::collections::BTreeSet;
use std::sync::Arc;
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
        let files: BTreeSet<&String> = delivery.groups.iter().flat_map(|group| group.files.iter().map(|(path, _)| path)).collect();
        let message = match files.first() {
            Some(only) if files.len() == 1 => (*only).clone(),
            _ => count(files.len(), "file"),
        };
        let phases = Phases { deliver: Some(delivered - origin.settled), ..phases_of(&origin, delivered) };
        let report =
            Report { generation: Some(origin.generation), files: Some(files.len()), phases, ..Report::of(Happening::Synced, &service) };
        let report = report.pods(pods).message(message);
        if self.lanes[lane].has_pending_reload() {
            // Served is what the app makes of it, which is still to come.
            self.lanes[lane].reload_origin.get_or_insert((origin, delivered - origin.settled));
            return self.reporter.tell(&report);
        }
        self.tell_when_served(lane, report, None)
    }

    pub(super) fn reloaded(
        &mut self,
        lane: usize,
        order: &ReloadOrder,
        outcomes: Vec<PodOutcome<Option<Swapped>, ReloadFailure>>,
        started: Instant,
        ended: Instant,
    ) -> Result<()> {
        self.lanes[lane].reloading = false;
        let service = self.lanes[lane].facts.name.clone();
        let (mut pods, mut restarted, mut halted, mut epoch) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (PodOutcome { pod, container_id, outcome }, asked) in outcomes.into_iter().zip(&order.pods) {
            epoch = epoch.max(asked.epoch);
            if matches!(&outcome, Err(ReloadFailure::Agent(error)) if error.is_halted()) {
                halted.push(pod);
                continue;
            }
            if let Some(attached) = self.lanes[lane].attached_entry(&pod, &container_id) {
                // Also after a failure: the same again would fail again.
                attached.reloaded = asked.epoch;
                if let Ok(Some(swapped)) = &outcome {
                    attached.process = swapped.process;
                }
            }
            match outcome {
                Ok(swapped) => {
                    restarted.extend(swapped.map(|swapped| SwappedPod { pod: pod.clone(), container_id, process: swapped.process }));
                    pods.push(pod);
                }
                // Perhaps the new files took the container along.
                Err(ReloadFailure::Agent(error)) if work::is_passing(&error) => {
                    if asked.reload.restart.is_some() {
                        restarted.push(SwappedPod { pod, container_id, process: asked.receiver.process });
                    }
                }
                Err(failure) => {
                    let error = CommandError::new(format!("{service}: the app in pod {pod} was not told of its new files"));
                    let error = match failure {
                        ReloadFailure::Agent(cause) => error.caused_by(CommandError::from(cause)),
                        ReloadFailure::Call(cause) => error.caused_by(cause),
                    };
                    self.reporter.fail(Happening::Error, Some(&service), vec![pod], &error)?;
                }
            }
        }
        if !restarted.is_empty() {
            self.judge(lane, Trial::Files(epoch), restarted.clone());
        }
        if halted.is_empty() {
            self.lanes[lane].ran_on();
        } else {
            let state = &mut self.lanes[lane];
            state.postpone(order, &halted);
            self.await_debugger(lane, Waiting::Files(epoch), halted)?;
        }
        let Some((origin, deliver)) = order.origin.filter(|_| !pods.is_empty()) else {
            if !order.asked || restarted.is_empty() {
                return Ok(());
            }
            let phases = Phases { swap: Some(ended - started), ..Phases::default() };
            let report = Report { phases, ..Report::of(Happening::Restarted, &service) };
            return self.reporter.tell(&report.pods(pods).message("started again in place, as asked"));
        };
        let phases = Phases { deliver: Some(deliver), swap: Some(ended - started), ..phases_of(&origin, ended) };
        let (event, message) = if restarted.is_empty() {
            let calls: BTreeSet<String> = order.pods.iter().flat_map(|pod| &pod.reload.calls).map(reload::describe).collect();
            (Happening::Reloaded, format!("reloaded by {}", calls.into_iter().collect::<Vec<_>>().join(", ")))
        } else {
            (Happening::Restarted, "started again in place".to_owned())
        };
        let report = Report { generation: Some(origin.generation), phases, ..Report::of(event, &service) };
        self.tell_when_served(lane, report.pods(pods).message(message), None)
    }

    /// Tells a report at once, or when the pods in it answer the probe.
    pub(super) fn tell_when_served(&mut self, lane: usize, report: Report, running: Option<blake3::Hash>) -> Result<()> {
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
        let Build { binary, dep_info, compile } = match outcome {
            Ok(build) => build,
            Err(error) if work::is_interrupted(&error) => return Ok(()),
            Err(error) => return self.build_failed(lane, error),
        };
        let state = &mut self.lanes[lane];
        if let (Some(sources), Some(dep_info)) = (&mut state.layout.sources, dep_info) {
            sources.learn(&dep_info);
        }
        let was_failing = state.failed_build.take().is_some();
        if matches!(state.facts.build, Some(project::Build::Go(_))) {
            // Its imports may be others now, and only go itself can tell.
            let facts = Arc::clone(&state.facts);
            self.tasks.spawn(work::reshape(lane, facts));
        }
        let Some(binary) = binary else {
            let message = if was_failing { "builds again" } else { "built" };
            let report =
                Report { phases: Phases { compile: Some(compile), ..Phases::default() }, ..Report::of(Happening::Built, &service) };
            return self.reporter.tell(&report.message(message));
        };
        let state = &mut self.lanes[lane];
        let verdict = state.note_binary(binary.clone());
        let generation = binary.origin.map(|origin| origin.generation);
        match verdict {
            Verdict::New => Ok(()),
            // At the beginning of a session that is no news.
            Verdict::Unchanged if binary.origin.is_none() && !was_failing => Ok(()),
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
}

/// What every change has: when it was seen, and how long ago that is.
pub(super) fn phases_of(origin: &Origin, ended: Instant) -> Phases {
    let total = ended.saturating_duration_since(origin.first_event) + origin.watch.unwrap_or_default();
    Phases { watch: origin.watch, settle: Some(origin.settled - origin.first_event), total: Some(total), ..Phases::default() }
}
