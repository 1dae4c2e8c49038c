//! Agents start, and end.

use crate::place::Place;
use crate::session::Event;
use devloop_core::agent::{Agent, AgentError, AgentImages, Beside};
use devloop_core::cluster::Cluster;
use std::time::Duration;

/// Starts an agent, after a pause when some failed before.
pub(crate) async fn start_agent(cluster: Cluster, images: AgentImages, place: Place, number: u64, failures: u32) -> Event {
    if failures > 0 {
        // A container that ended takes the agent beside it along: its pod tells
        // of that within a second or two, and then no other one is wanted.
        let least = if matches!(place, Place::Pod { .. }) { Duration::from_secs(2) } else { Duration::ZERO };
        tokio::time::sleep(least + Duration::from_millis(250) * 2_u32.pow(failures.min(5))).await;
    }
    let outcome = start_agent_at(&cluster, &images, &place).await;
    Event::AgentStarted { place, number, outcome }
}

async fn start_agent_at(cluster: &Cluster, images: &AgentImages, place: &Place) -> Result<Agent, AgentError> {
    match place {
        Place::Node(name) => {
            let node = cluster.nodes.iter().find(|node| node.name() == name);
            let node = node.ok_or_else(|| AgentError::Start(std::io::Error::other(format!("node {name} is not on this machine"))))?;
            Agent::start(node).await
        }
        Place::Pod { pod, container, node, .. } => {
            let node = cluster.nodes.iter().find(|candidate| Some(candidate.name()) == node.as_deref());
            let image = images.for_pod_on(node).await?;
            let beside = Beside {
                client: cluster.client.clone(),
                namespace: cluster.namespace.clone(),
                pod: pod.clone(),
                container: container.clone(),
                image,
            };
            Agent::start_by(&beside).await
        }
    }
}

/// Waits for an agent to end.
pub(crate) async fn await_end(agent: Agent, place: Place, number: u64) -> Event {
    let reason = agent.ended().await;
    Event::AgentEnded { place, number, reason }
}
