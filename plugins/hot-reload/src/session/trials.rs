//! New code is swapped to, and is on trial for a while.

use super::outcomes::phases_of;
use super::{Event, Session};
use crate::lane::{Lane, Waiting};
use crate::report::{Happening, Phases, Report};
use crate::work::{self, Fate, PodOutcome, SwapOutcomes, SwappedPod, Trial};
use devloop_core::{CommandError, Result};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a process that stands still for a debugger is left alone.
const HALTED: Duration = Duration::from_millis(300);

impl Session {
    pub(super) fn swapped(&mut self, lane: usize, done: SwapOutcomes) -> Result<()> {
        let SwapOutcomes { order, outcomes, started, ended } = done;
        let hash = order.binary.hash;
        let service = self.lanes[lane].facts.name.clone();
        self.lanes[lane].swapping = false;
        let (mut judged, mut missed, mut halted) = (Vec::new(), Vec::new(), Vec::new());
        let (mut replacing, mut in_memory) = (Duration::ZERO, false);
        for (PodOutcome { pod, container_id, outcome }, receiver) in outcomes.into_iter().zip(&order.pods) {
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
                Err(error) if error.is_halted() => halted.push(pod),
                // Perhaps the new code took the container, and the agent in it, along.
                Err(error) if work::is_passing(&error) => missed.push(SwappedPod { pod, container_id, process: receiver.process }),
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
        let is_halted = !halted.is_empty();
        if is_halted {
            self.await_debugger(lane, Waiting::Binary(hash), halted)?;
        }
        if judged.is_empty() {
            if missed.is_empty() && is_halted {
                self.lanes[lane].try_again(hash);
            } else if missed.is_empty() {
                self.lanes[lane].give_up(hash);
            } else if !order.catching_up {
                self.judge(lane, Trial::Missed(order.binary.clone()), missed);
            }
            return Ok(());
        }
        let pods: Vec<String> = judged.iter().map(|swapped| swapped.pod.clone()).collect();
        self.lanes[lane].note_swapped(&order.binary);
        self.judge(lane, Trial::Binary(order.binary.clone()), judged);
        if order.catching_up || !order.is_news {
            return Ok(());
        }
        let origin = order.binary.origin;
        let phases = Phases {
            compile: Some(order.binary.compile),
            deliver: Some((ended - started.min(order.binary.ready)).saturating_sub(replacing)),
            swap: Some(replacing),
            ..origin.map_or_else(Phases::default, |origin| phases_of(&origin, ended))
        };
        let message = if in_memory { "new code runs (from memory: the root is read-only)" } else { "new code runs" };
        let report = Report { generation: origin.map(|origin| origin.generation), phases, ..Report::of(Happening::Swapped, &service) };
        self.tell_when_served(lane, report.pods(pods).message(message), Some(hash))
    }

    /// Has a service's new code wait while a debugger has its process stand still.
    pub(super) fn await_debugger(&mut self, lane: usize, waiting: Waiting, pods: Vec<String>) -> Result<()> {
        self.tasks.spawn(async move {
            tokio::time::sleep(HALTED).await;
            Event::MayRun { lane }
        });
        if !self.lanes[lane].halt(waiting) {
            return Ok(());
        }
        let report = Report::of(Happening::Halted, &self.lanes[lane].facts.name).pods(pods);
        self.reporter.tell(&report.message("the process stands still in a debugger; new code waits until it runs on"))
    }

    /// Watches processes that were just replaced.
    pub(super) fn judge(&mut self, lane: usize, trial: Trial, pods: Vec<SwappedPod>) {
        let number = self.lanes[lane].begin_trial(pods.iter().map(|swapped| swapped.pod.clone()));
        let container = self.lanes[lane].facts.container.clone();
        let judging = work::judge(self.agents_of(lane), self.cluster.clone(), container, trial, pods);
        self.tasks.spawn(async move {
            let (trial, fates) = judging.await;
            Event::Judged { lane, number, trial, fates }
        });
    }

    pub(super) fn judged(&mut self, lane: usize, number: u64, trial: &Trial, mut fates: Vec<(String, Fate)>) -> Result<()> {
        // A later replacement is judged for what became of these pods.
        fates.retain(|(pod, _)| self.lanes[lane].is_on_trial(pod, number));
        if fates.is_empty() {
            return Ok(());
        }
        let service = self.lanes[lane].facts.name.clone();
        let was_killed = fates.iter().any(|(_, fate)| *fate == Fate::Killed);
        let ended: Vec<_> = fates.into_iter().filter(|(_, fate)| matches!(fate, Fate::Ended { .. } | Fate::RolledBack)).collect();
        let state = &mut self.lanes[lane];
        match trial {
            Trial::Binary(binary) | Trial::Missed(binary) if !ended.is_empty() => state.condemn(binary.hash),
            // Those that replace the containers are swapped again.
            Trial::Binary(binary) | Trial::Missed(binary) if was_killed => state.try_again(binary.hash),
            Trial::Binary(binary) => state.prove(binary),
            Trial::Missed(binary) => state.retry(binary.hash),
            Trial::Files(epoch) if !ended.is_empty() => state.hold(*epoch),
            Trial::Files(_) => {}
        }
        let next = match trial {
            Trial::Binary(_) | Trial::Missed(_) if state.has_good_binary() => "the last good code of this session",
            Trial::Binary(_) | Trial::Missed(_) => "its image's code",
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
