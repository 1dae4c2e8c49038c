//! What the session starts and waits for: each function does one piece of IO
//! and answers with an event.

mod agents;
mod attach;
mod compile;
mod deliver;
mod logs;
mod reload;
mod served;
mod swap;
mod undo;

pub(crate) use agents::{await_end, start_agent};
pub(crate) use attach::{Attachment, Checked, Depth, attach, check};
pub(crate) use compile::{Build, compile, is_interrupted, reshape};
pub(crate) use deliver::deliver;
pub(crate) use logs::logs;
pub(crate) use reload::{ReloadFailure, reload};
pub(crate) use served::{Announcement, await_served, find_way};
pub(crate) use swap::{Fate, SwapOutcomes, SwappedPod, Trial, judge, swap};
pub(crate) use undo::{Leaving, leave};

use devloop_core::agent::{Agent, AgentError, ErrorKind};
use std::collections::BTreeMap;

/// How one pod fared.
#[derive(Debug)]
pub(crate) struct PodOutcome<T, E = AgentError> {
    pub(crate) pod: String,
    pub(crate) container_id: String,
    pub(crate) outcome: Result<T, E>,
}

/// The agent of each pod, with its number: several pods may share one.
pub(crate) type Agents = BTreeMap<String, (u64, Agent)>;

/// Why a pod has none: it was lost a moment ago, and the session learns of it.
fn agent_of<'a>(agents: &'a Agents, pod: &str) -> Result<&'a Agent, AgentError> {
    agents.get(pod).map(|(_, agent)| agent).ok_or_else(|| AgentError::Ended(String::new()))
}

/// Whether a failure is the business of the pods' watcher: the container went
/// away under our hands.
pub(crate) fn is_passing(error: &AgentError) -> bool {
    error.is_fatal() || matches!(error, AgentError::Refused { kind: ErrorKind::Vanished, .. })
}
