//! Apps take note of changed files: by a new start, a signal, a call, a program.

use super::{Agents, PodOutcome, agent_of};
use crate::lane::{PodReload, ReloadOrder};
use crate::probe;
use crate::session::Event;
use devloop_core::agent::{AgentError, Swapped};
use devloop_core::cluster::Cluster;
use devloop_core::project::ReloadAction;
use devloop_core::{CommandError, exec};
use futures::future;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// How long a call, or a program in the container, may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Why an app did not take note.
#[derive(Debug)]
pub(crate) enum ReloadFailure {
    /// The agent could not do it.
    Agent(AgentError),
    /// The app's own way failed.
    Call(CommandError),
}

/// Makes apps take note; answers which were started again.
pub(crate) async fn reload(agents: Agents, cluster: Cluster, container: String, lane: usize, order: ReloadOrder) -> Event {
    let started = Instant::now();
    let pods: Api<Pod> = Api::namespaced(cluster.client, &cluster.namespace);
    let outcomes = future::join_all(order.pods.iter().map(|pod| one(&agents, &pods, &container, pod))).await;
    Event::Reloaded { lane, order: Box::new(order), outcomes, started, ended: Instant::now() }
}

async fn one(agents: &Agents, pods: &Api<Pod>, container: &str, pod: &PodReload) -> PodOutcome<Option<Swapped>, ReloadFailure> {
    let outcome = carry_out(agents, pods, container, pod).await;
    PodOutcome { pod: pod.receiver.pod.clone(), container_id: pod.receiver.container.id.clone(), outcome }
}

async fn carry_out(agents: &Agents, pods: &Api<Pod>, container: &str, pod: &PodReload) -> Result<Option<Swapped>, ReloadFailure> {
    let agent = agent_of(agents, &pod.receiver.pod).map_err(ReloadFailure::Agent)?;
    let restarted = match &pod.reload.restart {
        None => None,
        Some(changed) => Some(agent.restart(pod.receiver.process, changed).await.map_err(ReloadFailure::Agent)?),
    };
    for call in &pod.reload.calls {
        match call {
            ReloadAction::None | ReloadAction::Restart => {}
            ReloadAction::Signal(name) => {
                let Ok(signal) = format!("SIG{name}").parse::<Signal>() else { continue };
                agent.signal(pod.receiver.process, signal as i32).await.map_err(ReloadFailure::Agent)?;
            }
            ReloadAction::Http(call) => {
                let address = pod.receiver.container.address.as_deref();
                probe::call(pods, &pod.receiver.pod, address, call, LIMIT).await.map_err(ReloadFailure::Call)?;
            }
            ReloadAction::Exec(command) => {
                let said = exec::run(pods, &pod.receiver.pod, container, command, LIMIT).await;
                let said = said.map_err(|error| ReloadFailure::Call(CommandError::new("the reload command failed").caused_by(error)))?;
                tracing::debug!(pod = pod.receiver.pod, said, "the reload command ended well");
            }
        }
    }
    Ok(restarted)
}
