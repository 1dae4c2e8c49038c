//! Files are brought into pods: over each agent's connection once, into all
//! containers that it reaches.

use super::{Agents, PodOutcome};
use crate::lane::{Delivery, Group, Receiver};
use crate::plan::Item;
use crate::session::Event;
use devloop_core::agent::{Agent, AgentError, ProcessId};
use futures::{StreamExt, future, stream};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Instant;

/// Files on their way over one connection at the same time.
const FILES_AT_ONCE: usize = 64;

/// Brings files into pods, all at the same time.
pub(crate) async fn deliver(agents: Agents, lane: usize, delivery: Delivery) -> Event {
    let outcomes = future::join_all(delivery.groups.iter().map(|group| to_group(&agents, group))).await;
    Event::Delivered { lane, delivery, outcomes: outcomes.into_iter().flatten().collect(), delivered: Instant::now() }
}

async fn to_group(agents: &Agents, group: &Group) -> Vec<PodOutcome<()>> {
    let mut by_agent: BTreeMap<u64, (Agent, Vec<&Receiver>)> = BTreeMap::new();
    let mut outcomes = Vec::new();
    for receiver in &group.pods {
        match agents.get(&receiver.pod) {
            Some((number, agent)) => by_agent.entry(*number).or_insert_with(|| (agent.clone(), Vec::new())).1.push(receiver),
            // It was lost a moment ago, and the session learns of it.
            None => outcomes.push(outcome(receiver, Err(AgentError::Ended(String::new())))),
        }
    }
    let files = group.files.clone();
    let steps = tokio::task::spawn_blocking(move || Steps::of(files)).await.unwrap_or_default();
    let deliveries = by_agent.values().map(|(agent, receivers)| by(agent, receivers, &steps));
    outcomes.extend(future::join_all(deliveries).await.into_iter().flatten());
    outcomes
}

fn outcome(receiver: &Receiver, outcome: Result<(), AgentError>) -> PodOutcome<()> {
    PodOutcome { pod: receiver.pod.clone(), container_id: receiver.container.id.clone(), outcome }
}

/// One change of a container's files.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Put { path: String, local: PathBuf },
    Link { path: String, target: String },
    Remove { path: String, empty_parents: u32 },
}

/// The changes, in three rounds: what stands in the way goes first, and what is
/// only gone goes last, so that a file that was moved is always there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Steps {
    rounds: [Vec<Step>; 3],
}

impl Steps {
    /// Looks at what the local files are now.
    fn of(files: Vec<(String, Item)>) -> Self {
        let puts: BTreeSet<String> = files.iter().filter(|(_, item)| item.is_there).map(|(path, _)| path.clone()).collect();
        let mut steps = Self::default();
        for (path, item) in files {
            if !item.is_there {
                let round = if is_in_the_way(&path, &puts) { 0 } else { 2 };
                steps.rounds[round].push(Step::Remove { path, empty_parents: item.missing_parents() });
            } else if let Some(target) = item.link() {
                steps.rounds[1].push(Step::Link { path, target });
            } else {
                steps.rounds[1].push(Step::Put { path, local: item.local });
            }
        }
        steps
    }
}

/// Whether a path that goes is a folder above a new file, or below one.
fn is_in_the_way(path: &str, puts: &BTreeSet<String>) -> bool {
    let below = format!("{path}/");
    let is_above = puts.range(below.clone()..).next().is_some_and(|put| put.starts_with(&below));
    is_above || path.match_indices('/').any(|(index, _)| puts.contains(&path[..index]))
}

async fn by(agent: &Agent, receivers: &[&Receiver], steps: &Steps) -> Vec<PodOutcome<()>> {
    let processes: Vec<ProcessId> = receivers.iter().map(|receiver| receiver.process).collect();
    let mut failed: HashMap<ProcessId, AgentError> = HashMap::new();
    for round in &steps.rounds {
        let one = |step: &Step| {
            let (step, processes) = (step.clone(), processes.clone());
            async move { take(agent, &processes, &step).await }
        };
        let taken: Vec<_> = stream::iter(round.iter().map(one).collect::<Vec<_>>()).buffer_unordered(FILES_AT_ONCE).collect().await;
        for failures in taken {
            match failures {
                Ok(failures) => {
                    for (process, error) in failures {
                        failed.entry(process).or_insert(error);
                    }
                }
                Err(error) => return for_all(receivers, error),
            }
        }
    }
    receivers.iter().map(|receiver| outcome(receiver, failed.remove(&receiver.process).map_or(Ok(()), Err))).collect()
}

async fn take(agent: &Agent, processes: &[ProcessId], step: &Step) -> Result<Vec<(ProcessId, AgentError)>, AgentError> {
    match step {
        Step::Put { path, local } => match agent.put_file(processes, local, path).await {
            // The watcher saw that, too: the next generation brings it.
            Err(AgentError::SourceChanged(path)) => {
                tracing::debug!(path = %path.display(), "changed while it was copied");
                Ok(Vec::new())
            }
            outcome => outcome.map(|written| written.failed),
        },
        Step::Link { path, target } => agent.put_link(processes, target, path).await,
        Step::Remove { path, empty_parents } => agent.remove(processes, path, *empty_parents).await,
    }
}

/// A failure that is everybody's. The error itself can't be copied.
fn for_all(receivers: &[&Receiver], error: AgentError) -> Vec<PodOutcome<()>> {
    let reason = devloop_core::telemetry::error_chain(&error);
    let is_fatal = error.is_fatal();
    let mut error = Some(error);
    let mut next = || {
        error.take().unwrap_or_else(|| {
            if is_fatal { AgentError::Ended(reason.clone()) } else { AgentError::Start(std::io::Error::other(reason.clone())) }
        })
    };
    receivers.iter().map(|receiver| outcome(receiver, Err(next()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(local: &str, is_there: bool) -> Item {
        Item { local: local.into(), root: "/nowhere".into(), is_there }
    }

    #[test]
    fn what_is_in_the_way_goes_first_and_what_is_gone_last() {
        let files = vec![
            ("/a/b".to_owned(), item("/nowhere/a/b", true)),
            ("/a".to_owned(), item("/nowhere/a", false)),
            ("/c/d/e".to_owned(), item("/nowhere/c/d/e", false)),
            ("/c/d".to_owned(), item("/nowhere/c/d", true)),
            ("/ab".to_owned(), item("/nowhere/ab", false)),
        ];
        let steps = Steps::of(files);
        let names = |round: usize| {
            steps.rounds[round]
                .iter()
                .map(|step| match step {
                    Step::Put { path, .. } | Step::Link { path, .. } | Step::Remove { path, .. } => path.as_str(),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!((names(0), names(1), names(2)), (vec!["/a", "/c/d/e"], vec!["/a/b", "/c/d"], vec!["/ab"]));
    }
}
