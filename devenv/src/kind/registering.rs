//! The image registry of a kind cluster: when one is started, and when the
//! cluster is told of it.

use super::Work;
use crate::journal::Journal;
use crate::registry::{self, Registry};
use crate::request::RegistryChoice;
use devloop_core::environment::KindOrigin;
use devloop_core::error::{CommandError, ErrorHint, Result};
use devloop_core::node::Node;
use devloop_core::registry::hosting;
use kube::Client;
use std::time::Instant;

/// The Docker network of kind's nodes.
fn network() -> String {
    // kind has this variable for its own tests; who sets it means it.
    std::env::var("KIND_EXPERIMENTAL_DOCKER_NETWORK").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "kind".to_owned())
}

/// Tells a new cluster of the registry. Answers when that was done.
pub(super) async fn connect(
    work: &Work<'_>,
    registry: Option<&Registry>,
    client: &Client,
    journal: &mut Journal,
) -> Result<Option<Instant>> {
    let Some(registry) = registry else { return Ok(None) };
    let nodes = Node::of_kind(work.engine, work.name()).await?;
    registry::connect(registry, work.engine, &network(), &nodes, client, journal).await?;
    Ok(Some(Instant::now()))
}

/// Makes sure that a cluster that is there has the registry that is wanted;
/// answers its port. `known` is the port of the last time.
pub(super) async fn ensure(
    work: &Work<'_>,
    origin: KindOrigin,
    known: Option<u16>,
    restarted: bool,
    client: &Client,
    journal: &mut Journal,
) -> Result<Option<u16>> {
    let RegistryChoice::Local { port: named } = work.request.registry else { return Ok(known) };
    if let (Some(known), Some(named)) = (known, named)
        && known != named
    {
        return Err(CommandError::usage(format!("the registry of environment {:?} is on port {known}", work.name())))
            .hint("leave --registry-port out, or take the environment down first");
    }
    let registers = journal.newest_first().iter().any(|created| matches!(created, crate::journal::Created::Object { .. }));
    if origin == KindOrigin::Adopted && !registers {
        let announced = hosting(client).await?;
        if let Some(announced) = announced {
            // Whoever made the cluster has seen to it.
            return Ok(announced.host.rsplit_once(':').and_then(|(_, port)| port.parse().ok()));
        }
    }
    let Some(registry) = registry::start(work.context, work.engine, work.directories, work.request.registry, journal).await? else {
        return Ok(None);
    };
    if restarted || known != Some(registry.port) {
        connect(work, Some(&registry), client, journal).await?;
    }
    Ok(Some(registry.port))
}
