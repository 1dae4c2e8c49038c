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
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Where the agent is in its image.
pub(super) const ENTRYPOINT: &str = "/devloop-agent";

/// Files that the agent's image has, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Companion {
    /// The image's name then.
    pub image: String,
    /// They.
    pub files: Vec<CompanionFile>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompanionFile {
    /// The file on this machine.
    pub source: PathBuf,
    /// Its path in the image.
    pub path: String,
    /// Whether it is a program that has to run without any other file, which is
    /// made sure of.
    pub is_alone: bool,
}

/// The agent's image for the pods of a cluster. It is brought to each place once,
/// however many pods ask for it at the same time.
#[derive(Clone)]
pub struct AgentImages {
    client: Client,
    named: Option<String>,
    companion: Option<Companion>,
    /// What is there already, by the name of the node; without, in the registry.
    provided: Arc<Mutex<BTreeMap<Option<String>, String>>>,
}

impl AgentImages {
    /// Of a cluster; `named` is an image of the agent that its nodes can pull.
    pub fn new(client: Client, named: Option<String>) -> Self {
        Self { client, named, companion: None, provided: Arc::default() }
    }

    /// The same with other files in the image.
    #[must_use]
    pub fn with(mut self, companion: Companion) -> Self {
        self.companion = Some(companion);
        self
    }

    /// What ends the image's reference in whichever place: its name and a tag that
    /// tells its content; the named one as it is.
    ///
    /// # Errors
    /// When the agent can't be used.
    pub async fn short_reference(&self) -> Result<String, AgentError> {
        match &self.named {
            Some(named) => Ok(named.clone()),
            None => Ok(format!("{}:{}", self.name(), tag_of(&self.make().await?))),
        }
    }

    fn name(&self) -> &str {
        self.companion.as_ref().map_or(binary::NAME, |companion| &companion.image)
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
            Some(node) => self.put_on(node).await?,
            None => self.push().await?,
        };
        provided.insert(place, reference.clone());
        Ok(reference)
    }

    async fn put_on(&self, node: &Node) -> Result<String, AgentError> {
        let image = self.make().await?;
        deliver::to_node(node, &image).await.map_err(AgentError::Image)?;
        tracing::info!(image = image.reference, node = node.name(), "the agent's image was put on the node");
        Ok(image.reference)
    }

    async fn push(&self) -> Result<String, AgentError> {
        let hosting = registry::hosting(&self.client).await.map_err(AgentError::Image)?.ok_or(AgentError::NoImage)?;
        let image = self.make().await?;
        let (name, tag) = (self.name(), tag_of(&image));
        registry::push(&hosting.host, &image, name, tag).await.map_err(|error| AgentError::Image(error.into()))?;
        let reference = format!("{}/{name}:{tag}", hosting.from_nodes());
        tracing::info!(image = reference, "the agent's image was pushed to the cluster's registry");
        Ok(reference)
    }

    /// Makes the image; its tag names its content.
    async fn make(&self) -> Result<Image, AgentError> {
        let (name, companion) = (self.name().to_owned(), self.companion.clone());
        let made = tokio::task::spawn_blocking(move || {
            let program = binary::find()?;
            let mut content = binary::read(&program)?;
            let (mut binaries, mut others) = (vec![(program.as_path(), ENTRYPOINT)], Vec::new());
            for CompanionFile { source: path, path: to, is_alone } in companion.iter().flat_map(|companion| &companion.files) {
                content.extend(std::fs::read(path).map_err(|source| AgentError::Source { path: path.clone(), source })?);
                let files = if *is_alone { &mut binaries } else { &mut others };
                files.push((path.as_path(), to.as_str()));
            }
            let reference = format!("{}/{name}:{}", image::REGISTRY, binary::short_hash(&content));
            let cache = Directories::from_env().map_err(AgentError::Image)?.cache;
            image::static_binaries(&cache, &reference, &binaries, &others).map_err(|error| AgentError::Image(CommandError::from(error)))
        });
        made.await.map_err(|error| AgentError::Start(io::Error::other(error)))?
    }
}

impl std::fmt::Debug for AgentImages {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AgentImages").field("named", &self.named).finish_non_exhaustive()
    }
}

fn tag_of(image: &Image) -> &str {
    image.reference.rsplit_once(':').map_or("latest", |(_, tag)| tag)
}
