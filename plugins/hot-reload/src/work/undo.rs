//! The end of a session in its pods: what was changed is put back, or left.

use super::{Agents, PodOutcome, agent_of};
use crate::lane::Receiver;
use devloop_core::agent::Undone;
use futures::future;

/// What becomes of the changed pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// They are again what they were.
    Undo,
    /// They stay as they are.
    Keep,
}

/// Leaves pods; answers what was put back in each.
pub(crate) async fn leave(agents: &Agents, receivers: &[Receiver], leaving: Leaving) -> Vec<PodOutcome<Option<Undone>>> {
    let one = async |receiver: &Receiver| {
        let outcome = match (agent_of(agents, &receiver.pod), leaving) {
            (Ok(agent), Leaving::Undo) => agent.undo(receiver.process).await.map(Some),
            (Ok(agent), Leaving::Keep) => agent.keep(receiver.process).await.map(|()| None),
            (Err(error), _) => Err(error),
        };
        PodOutcome { pod: receiver.pod.clone(), container_id: receiver.container.id.clone(), outcome }
    };
    future::join_all(receivers.iter().map(one)).await
}
