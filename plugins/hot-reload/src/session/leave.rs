//! The end of a session: pods are again what they were, or stay as they are.

use super::Session;
use crate::lane::{PodReload, Receiver, ReloadOrder};
use crate::report::{Happening, Report, count};
use crate::work::{self, Leaving, PodOutcome};
use crate::workloads;
use devloop_core::changes::Entry;
use devloop_core::{CommandError, Result};
use std::sync::Arc;

impl Session {
    /// Leaves all pods as was asked for, and says what came of it.
    pub(super) async fn leave(&mut self) -> Result<()> {
        // From here on a terminal is as it was: a second Ctrl-C ends it all.
        self.keyboard = None;
        if let Some(screen) = &mut self.reporter.screen {
            screen.close();
        }
        // What is under way would change them again.
        self.tasks.abort_all();
        let mut failed = 0;
        for lane in 0..self.lanes.len() {
            failed += self.leave_lane(lane).await?;
        }
        self.close_journal(failed).await?;
        let targets: Vec<String> = self.lanes.iter().map(|lane| lane.facts.selection.target.to_string()).collect();
        let restart = format!("kubectl rollout restart {} -n {}", targets.join(" "), self.cluster.namespace);
        let text = match self.leaving {
            Leaving::Keep => format!(
                "stopped; pods that were changed keep running the changed code until they are replaced\nto go back to their image: {restart}"
            ),
            Leaving::Undo if failed > 0 => format!("stopped; to go back to the image: {restart}"),
            Leaving::Undo => "stopped; the pods are as they were".to_owned(),
        };
        self.reporter.tell(&Report::new(Happening::Stopped).message(text))
    }

    /// Restores workloads, and drops what is on record if nothing is left of it.
    async fn close_journal(&mut self, failed: usize) -> Result<()> {
        let Some(mut journal) = self.journal.take() else { return Ok(()) };
        if self.leaving == Leaving::Keep {
            for entry in journal.entries() {
                if matches!(entry, Entry::Container(_)) {
                    journal.forget(&entry)?;
                }
            }
            if !journal.entries().is_empty() {
                self.reporter.say("patched workloads stay so until the next session, or `kubectl hot-reload undo`");
                return Ok(());
            }
        } else {
            for line in workloads::restore(&self.cluster, &mut journal).await? {
                self.reporter.say(&line);
            }
            if failed > 0 {
                // The next run tries again.
                return Ok(());
            }
        }
        journal.end()
    }

    /// How many pods of a service could not be left as was asked for.
    async fn leave_lane(&mut self, lane: usize) -> Result<usize> {
        let service = self.lanes[lane].facts.name.clone();
        let agents = self.agents_of(lane);
        let receivers: Vec<Receiver> = self.lanes[lane].receivers().collect();
        let (mut undone_pods, mut stale_pods, mut restored, mut failed) = (Vec::new(), Vec::new(), 0, 0);
        for PodOutcome { pod, outcome, .. } in work::leave(&agents, &receivers, self.leaving).await {
            match outcome {
                Ok(Some(undone)) if undone.restored > 0 || undone.restarted => {
                    restored += usize::try_from(undone.restored).unwrap_or(usize::MAX);
                    if !undone.restarted {
                        stale_pods.push(pod.clone());
                    }
                    undone_pods.push(pod);
                }
                Ok(_) => {}
                // The container is gone, and what was changed in it with it.
                Err(error) if error.is_vanished() => {}
                Err(error) => {
                    failed += 1;
                    let error =
                        CommandError::new(format!("{service}: pod {pod} could not be left as it was")).caused_by(CommandError::from(error));
                    self.reporter.fail(Happening::Error, Some(&service), vec![pod], &error)?;
                }
            }
        }
        if undone_pods.is_empty() {
            return Ok(failed);
        }
        self.tell_apps(lane, &undone_pods, &stale_pods).await;
        let report = Report { files: Some(restored), ..Report::of(Happening::Undone, &service).pods(undone_pods) };
        self.reporter.tell(&report.message(format!("{} put back", count(restored, "file"))))?;
        Ok(failed)
    }

    /// Apps that were told of changed files are told that these are back. Those
    /// that were started again were by the agent, but for `stale` ones: they read
    /// changed files of a volume when their container restarted.
    async fn tell_apps(&self, lane: usize, pods: &[String], stale: &[String]) {
        let state = &self.lanes[lane];
        let told = state.attached_pods().filter(|(receiver, _)| pods.contains(&receiver.pod));
        let orders = told.map(|(receiver, attached)| {
            let mut reload = state.facts.rules.decide(&attached.processes, state.files());
            if !stale.contains(&receiver.pod) {
                reload.restart = None;
            }
            PodReload { receiver, epoch: 0, reload }
        });
        let order = ReloadOrder { asked: false, pods: orders.filter(|order| !order.reload.is_empty()).collect(), origin: None };
        if !order.pods.is_empty() {
            // The files are back in any case; an app that can't be told is not
            // the worse for it than after a restart of its own.
            let restarted: Vec<Receiver> = order.restarted().cloned().collect();
            work::reload(self.agents_of(lane), self.cluster.clone(), Arc::clone(&state.facts), lane, order).await;
            // That start was the last one: nothing of it is to be undone.
            work::leave(&self.agents_of(lane), &restarted, Leaving::Keep).await;
        }
    }
}
