//! The agent as an image that a pod can use, and the ways to get it there.

use super::{AgentError, binary};
use crate::environment::Directories;
use crate::image::{self, Image};
use crate::node::Node;
use crate::registry;
use crate::{CommandError, deliver};
use kube::Client;
use std::io;

/// Where the agent is in its image.
const ENTRYPOINT: &str = "/devloop-agent";

/// The agent's image, as a pod on `node` can name it: `named` as it is; else
/// put on the node, where that can be reached without the API; else pushed to
/// the registry that the cluster says it has.
///
/// # Errors
/// [`AgentError::NoImage`] when there is none of the three ways.
pub async fn image(client: &Client, named: Option<&str>, node: Option<&Node>) -> Result<String, AgentError> {
    if let Some(named) = named {
        tracing::info!(image = named, "the agent's image is the named one");
        return Ok(named.to_owned());
    }
    if let Some(node) = node {
        let image = make().await?;
        deliver::to_node(node, &image).await.map_err(AgentError::Image)?;
        tracing::info!(image = image.reference, node = node.name(), "the agent's image was put on the node");
        return Ok(image.reference);
    }
    let hosting = registry::hosting(client).await.map_err(AgentError::Image)?.ok_or(AgentError::NoImage)?;
    let image = make().await?;
    let tag = tag_of(&image);
    registry::push(&hosting.host, &image, binary::NAME, tag).await.map_err(|error| AgentError::Image(error.into()))?;
    let reference = format!("{}/{}:{tag}", hosting.from_nodes(), binary::NAME);
    tracing::info!(image = reference, "the agent's image was pushed to the cluster's registry");
    Ok(reference)
}

/// Makes the image; its tag names its content.
async fn make() -> Result<Image, AgentError> {
    let made = tokio::task::spawn_blocking(|| {
        let program = binary::find()?;
        let content = binary::read(&program)?;
        let reference = format!("{}/{}:{}", image::REGISTRY, binary::NAME, binary::short_hash(&content));
        let cache = Directories::from_env().map_err(AgentError::Image)?.cache;
        image::single_binary(&cache, &reference, &program, ENTRYPOINT).map_err(|error| AgentError::Image(CommandError::from(error)))
    });
    made.await.map_err(|error| AgentError::Start(io::Error::other(error)))?
}

fn tag_of(image: &Image) -> &str {
    image.reference.rsplit_once(':').map_or("latest", |(_, tag)| tag)
}
