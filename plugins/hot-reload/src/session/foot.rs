//! The session on a terminal: what its foot shows, and what keys do.

use super::Session;
use crate::keys::Key;
use crate::lane::Lane;
use crate::screen::{ServiceLine, State};
use crate::work;
use devloop_core::Result;

impl Session {
    /// Shows the services as they are now.
    pub(super) fn show(&mut self) {
        let lines: Vec<ServiceLine> = (0..self.lanes.len()).map(|lane| self.line(lane)).collect();
        if let Some(screen) = &mut self.reporter.screen {
            screen.show(&lines, self.is_paused);
        }
    }

    fn line(&self, lane: usize) -> ServiceLine {
        let state = &self.lanes[lane];
        let name = state.facts.name.clone();
        let last = self.reporter.last(&name).cloned();
        ServiceLine { in_sync: state.in_sync_count(), pods: state.pods.len(), state: self.state_of(lane, state), last, name }
    }

    fn state_of(&self, lane: usize, state: &Lane) -> State {
        if self.builds[lane].running.is_some() {
            State::Building
        } else if state.failed_build.is_some() {
            State::Failing
        } else if state.in_sync_count() < state.pods.len() {
            State::Delivering
        } else {
            State::Watching
        }
    }

    pub(super) fn key(&mut self, key: Key) -> Result<()> {
        match key {
            Key::Restart => {
                self.reporter.say("starting all apps again");
                self.lanes.iter_mut().for_each(Lane::ask_for_restart);
            }
            Key::Pause => {
                self.is_paused = !self.is_paused;
                self.reporter.say(if self.is_paused { "paused: what you save waits" } else { "going on" });
            }
            Key::Logs => {
                for lane in &self.lanes {
                    for pod in lane.pods.keys() {
                        self.tasks.spawn(work::logs(self.cluster.clone(), pod.clone(), lane.facts.container.clone()));
                    }
                }
            }
            Key::Debug => {
                let namespace = &self.cluster.namespace;
                for lane in &self.lanes {
                    let target = &lane.facts.selection.target;
                    self.reporter.say(&format!("in another terminal: kubectl debug-attach {target} -n {namespace}"));
                }
            }
            Key::Quit => {}
        }
        Ok(())
    }
}
