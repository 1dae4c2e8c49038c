//! The agent as an image that a pod can use, and the ways to get it there.

use super::{AgentError, binary};
use crate::environment::Directories;
use crate::image::{self, Image};
use crate::node::Node;
use crate::registry;
use crate::{CommandError, deliver};
use kube::Client;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Where the agent is in its image.
const ENTRYPOINT: &str = "/devloop-agent";

/// The agent's image for the pods of a cluster. It is brought to each place once,
/// however many pods ask for it at the same time.
#[derive(Clone)]
pub struct AgentImages {
    client: Client,
    named: Option<String>,
    /// What is there already, by the name of the node; without, in the registry.
    provided: Arc<Mutex<BTreeMap<Option<String>, String>>>,
}

impl AgentImages {
    /// Of a cluster; `named` is an image of the agent that its nodes can pull.
    pub fn new(client: Client, named: Option<String>) -> Self {
        Self { client, named, provided: Arc::default() }
    }

    /// The image, as a pod on `node` can name it: the named one as it is; else it
    /// is put on the node, where that can be reached without the API; else pushed
    /// to the registry that the cluster says it has.
    ///
    /// # Errors
    /// [`AgentError::NoImage`] when there is none of the three ways.
    pub async fn for_pod_on(&self, node: Option<&Node>) -> Result<String, AgentError> {
        if let Some(named) = &self.named {
            return Ok(named.clone());
        }
        let place = node.map(|node| node.name().to_owned());
        // Held until it is there: others wait for that.
        let mut provided = self.provided.lock().await;
        if let Some(reference) = provided.get(&place) {
            return Ok(reference.clone());
        }
        let reference = match node {
            Some(node) => put_on(node).await?,
            None => push(&self.client).await?,
        };
        provided.insert(place, reference.clone());
        Ok(reference)
    }
}

impl std::fmt::Debug for AgentImages {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AgentImages").field("named", &self.named).finish_non_exhaustive()
    }
}

async fn put_on(node: &Node) -> Result<String, AgentError> {
    let image = make().await?;
    deliver::to_node(node, &image).await.map_err(AgentError::Image)?;
    tracing::info!(image = image.reference, node = node.name(), "the agent's image was put on the node");
    Ok(image.reference)
}

async fn push(client: &Client) -> Result<String, AgentError> {
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
