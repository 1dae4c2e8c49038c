//! New code is swapped to, and is on trial for a while.

use super::Session;
use super::outcomes::phases_of;
use crate::lane::Lane;
use crate::report::{Happening, Phases, Report};
use crate::work::{self, Fate, PodOutcome, SwapOutcomes, SwappedPod, Trial};
use devloop_core::{CommandError, Result};
use std::collections::BTreeSet;
use std::time::Duration;

impl Session {
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
        self.judge(lane, Trial::Binary(order.binary.clone()), judged);
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

    /// Watches processes that were just replaced.
    pub(super) fn judge(&mut self, lane: usize, trial: Trial, pods: Vec<SwappedPod>) {
        let container = self.lanes[lane].facts.container.clone();
        self.tasks.spawn(work::judge(self.agents_of(lane), self.cluster.clone(), container, lane, trial, pods));
    }

    pub(super) fn judged(&mut self, lane: usize, trial: &Trial, fates: Vec<(String, Fate)>) -> Result<()> {
        let service = self.lanes[lane].facts.name.clone();
        let ended: Vec<_> = fates.into_iter().filter(|(_, fate)| !matches!(fate, Fate::Alive | Fate::Unknown)).collect();
        let state = &mut self.lanes[lane];
        match (trial, ended.is_empty()) {
            (Trial::Binary(binary), true) => state.prove(binary),
            (Trial::Binary(binary), false) => state.condemn(binary.hash),
            (Trial::Files(_), true) => {}
            (Trial::Files(epoch), false) => state.hold(*epoch),
        }
        let next = match trial {
            Trial::Binary(_) if state.has_good_binary() => "the last good code of this session",
            Trial::Binary(_) => "its image's code",
            Trial::Files(_) => "its image's files, until the next save",
        };
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
