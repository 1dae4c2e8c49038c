//! The agents of a session: one in each place that holds a pod. They start with
//! the first pod there and end with the last. What befalls one concerns the pods
//! of its place only.

use super::Session;
use crate::lane::{PodEntry, Stage};
use crate::place::Place;
use crate::report::Happening;
use crate::work::{self, Agents};
use devloop_core::agent::{Agent, AgentError};
use devloop_core::{CommandError, Result};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

/// Agents that may fail one soon after the other before their place is given up.
const AGENT_LIMIT: u32 = 5;
/// An agent that ran for longer failed for a reason of its own.
const SOON: Duration = Duration::from_secs(60);

/// A place's agent.
#[derive(Debug)]
pub(super) struct Station {
    /// Absent while it starts.
    agent: Option<Agent>,
    /// Tells what concerns this agent from what concerned one before it.
    number: u64,
    /// How many failed, one soon after the other.
    failures: u32,
    started: Instant,
    /// Starts the agent, or waits for its end.
    task: AbortHandle,
}

impl Drop for Station {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Session {
    /// The agent for a container, as far as one can be told.
    ///
    /// # Errors
    /// When no way that was allowed leads there.
    fn place_of(&self, lane: usize, pod: &str, entry: &PodEntry) -> Result<Place> {
        self.routes.place(pod, &self.lanes[lane].facts.container, &entry.container).map(|(place, _)| place)
    }

    /// Attaches to a container that is new, as soon as there is an agent.
    pub(super) fn connect(&mut self, lane: usize, pod: &str) -> Result<()> {
        let container = self.lanes[lane].facts.container.clone();
        let Some(entry) = self.lanes[lane].pods.get_mut(pod) else { return Ok(()) };
        let (place, why) = match self.routes.place(pod, &container, &entry.container) {
            Ok(found) => found,
            Err(error) => {
                entry.stage = Stage::Failed;
                let service = self.lanes[lane].facts.name.clone();
                return self.reporter.fail(Happening::Error, Some(&service), vec![pod.to_owned()], &error);
            }
        };
        tracing::info!(pod, via = %place, "{why}");
        match self.stations.get(&place) {
            Some(Station { agent: Some(agent), number, .. }) => {
                let (agent, number, container) = (agent.clone(), *number, entry.container.clone());
                self.tasks.spawn(work::attach(agent, number, lane, pod.to_owned(), container));
            }
            // All who wait are attached when it has started.
            Some(Station { agent: None, .. }) => {}
            None => self.start_agent(place, 0),
        }
        Ok(())
    }

    fn start_agent(&mut self, place: Place, failures: u32) {
        self.agents_started += 1;
        let number = self.agents_started;
        let starting = work::start_agent(self.cluster.clone(), self.agent_images.clone(), place.clone(), number, failures);
        let task = self.tasks.spawn(starting);
        self.stations.insert(place, Station { agent: None, number, failures, started: Instant::now(), task });
    }

    /// Ends the agents of places that hold no pod any more.
    pub(super) fn retire(&mut self) {
        let mut used = BTreeSet::new();
        for (lane, state) in self.lanes.iter().enumerate() {
            used.extend(state.pods.iter().filter_map(|(pod, entry)| self.place_of(lane, pod, entry).ok()));
        }
        self.stations.retain(|place, _| {
            let is_used = used.contains(place);
            if !is_used {
                tracing::debug!(%place, "no pod is left there; its agent ends");
            }
            is_used
        });
    }

    /// The agents for the pods of a service.
    pub(super) fn agents_of(&self, lane: usize) -> Agents {
        let agent = |(pod, entry): (&String, &PodEntry)| {
            let station = self.stations.get(&self.place_of(lane, pod, entry).ok()?)?;
            Some((pod.clone(), (station.number, station.agent.clone()?)))
        };
        self.lanes[lane].pods.iter().filter_map(agent).collect()
    }

    pub(super) fn agent_started(&mut self, place: Place, number: u64, outcome: Result<Agent, AgentError>) -> Result<()> {
        let Some(station) = self.stations.get_mut(&place).filter(|station| station.number == number) else { return Ok(()) };
        let agent = match outcome {
            Ok(agent) => agent,
            Err(error) if error.is_worth_a_retry() => return self.agent_failed(place, error),
            Err(error) => return self.give_up(&place, error),
        };
        station.started = Instant::now();
        station.task = self.tasks.spawn(work::await_end(agent.clone(), place.clone(), number));
        station.agent = Some(agent.clone());
        for (lane, pod) in self.pods_at(&place) {
            let Some(entry) = self.lanes[lane].pods.get(&pod) else { continue };
            self.tasks.spawn(work::attach(agent.clone(), number, lane, pod, entry.container.clone()));
        }
        Ok(())
    }

    /// An agent is of no more use: another takes its place.
    pub(super) fn agent_ended(&mut self, place: Place, number: u64, error: AgentError) -> Result<()> {
        match self.stations.get(&place) {
            Some(station) if station.number == number => self.agent_failed(place, error),
            _ => Ok(()),
        }
    }

    /// The same, where only its number is known.
    pub(super) fn agent_useless(&mut self, number: u64, error: AgentError) -> Result<()> {
        match self.stations.iter().find(|(_, station)| station.number == number).map(|(place, _)| place.clone()) {
            Some(place) => self.agent_failed(place, error),
            None => Ok(()),
        }
    }

    fn agent_failed(&mut self, place: Place, error: AgentError) -> Result<()> {
        let Some(station) = self.stations.remove(&place) else { return Ok(()) };
        let ran_well = station.agent.is_some() && station.started.elapsed() > SOON;
        let failures = if ran_well { 1 } else { station.failures + 1 };
        drop(station);
        if failures > AGENT_LIMIT {
            return self.give_up(&place, error);
        }
        let error = devloop_core::telemetry::error_chain(&error);
        match &place {
            // With its container, most likely, and then no one needs another.
            Place::Pod { .. } if failures == 1 => {
                tracing::info!(%place, error, "the agent is gone; if its container is not, another one starts")
            }
            _ => tracing::warn!(%place, error, "the agent is gone; starting another one"),
        }
        self.set_stage(&place, &Stage::Attaching);
        self.start_agent(place, failures);
        Ok(())
    }

    /// There will be no agent in this place; without any other, there is nothing
    /// left to do.
    fn give_up(&mut self, place: &Place, error: AgentError) -> Result<()> {
        self.stations.remove(place);
        let is_alone = self.stations.values().all(|station| station.agent.is_none());
        let is_everywhere = error.is_everywhere() || error.is_about_namespace() && is_alone;
        let pods = self.set_stage(place, &Stage::Failed);
        let error = CommandError::new(format!("no agent can work on {place}")).caused_by(CommandError::from(error));
        let error = match place {
            Place::Node(_) => error.with_hint("is the node still running? see `kubectl get nodes`; --via api goes another way"),
            Place::Pod { .. } => error,
        };
        if is_everywhere || self.stations.is_empty() {
            return Err(error);
        }
        self.reporter.fail(Happening::Error, None, pods, &error)
    }

    fn pods_at(&self, place: &Place) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (lane, state) in self.lanes.iter().enumerate() {
            let here = state.pods.iter().filter(|(pod, entry)| self.place_of(lane, pod, entry).is_ok_and(|other| other == *place));
            found.extend(here.map(|(pod, _)| (lane, pod.clone())));
        }
        found
    }

    fn set_stage(&mut self, place: &Place, stage: &Stage) -> Vec<String> {
        let here = self.pods_at(place);
        for (lane, pod) in &here {
            if let Some(entry) = self.lanes[*lane].pods.get_mut(pod) {
                entry.stage = stage.clone();
            }
        }
        here.into_iter().map(|(_, pod)| pod).collect()
    }
}
