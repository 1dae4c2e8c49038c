//! The end of a session: pods are again what they were, or stay as they are.

use super::Session;
use crate::lane::{PodReload, Receiver, ReloadOrder};
use crate::reload::Reload;
use crate::report::{Happening, Report, count};
use crate::work::{self, Leaving, PodOutcome};
use devloop_core::{CommandError, Result};

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

    /// How many pods of a service could not be left as was asked for.
    async fn leave_lane(&mut self, lane: usize) -> Result<usize> {
        let service = self.lanes[lane].facts.name.clone();
        let agents = self.agents_of(lane);
        let receivers: Vec<Receiver> = self.lanes[lane].receivers().collect();
        let (mut undone_pods, mut restored, mut failed) = (Vec::new(), 0, 0);
        for PodOutcome { pod, outcome, .. } in work::leave(&agents, &receivers, self.leaving).await {
            match outcome {
                Ok(Some(undone)) if undone.restored > 0 || undone.restarted => {
                    restored += usize::try_from(undone.restored).unwrap_or(usize::MAX);
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
        self.tell_apps(lane, &undone_pods).await;
        let report = Report { files: Some(restored), ..Report::of(Happening::Undone, &service).pods(undone_pods) };
        self.reporter.tell(&report.message(format!("{} put back", count(restored, "file"))))?;
        Ok(failed)
    }

    /// Apps that were told of changed files are told that these are back. Those
    /// that were started again were by the agent.
    async fn tell_apps(&self, lane: usize, pods: &[String]) {
        let state = &self.lanes[lane];
        let told = state.attached_pods().filter(|(receiver, _)| pods.contains(&receiver.pod));
        let orders = told.map(|(receiver, attached)| PodReload {
            receiver,
            main: attached.main,
            epoch: 0,
            reload: Reload { restart: None, calls: state.facts.rules.decide(attached.runtime, state.files()).calls },
        });
        let order = ReloadOrder { pods: orders.filter(|order| !order.reload.is_empty()).collect(), origin: None };
        if !order.pods.is_empty() {
            // The files are back in any case; an app that can't be told is not
            // the worse for it than after a restart of its own.
            work::reload(self.agents_of(lane), self.cluster.clone(), state.facts.container.clone(), lane, order).await;
        }
    }
}
