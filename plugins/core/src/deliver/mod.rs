//! From an image on this machine into the containerd of nodes, without a registry.
//!
//! A layer whose files a node has unpacked already is not sent to it: containerd
//! is asked which stacks of layers it knows ("Layer ChainID" in the OCI image
//! specification), and gets an archive that lacks the blobs of those. Whether it
//! worked is asked again afterwards, not concluded from an exit code.
//!
//! `supply` (where images come from: `archive`, `engine` with `tar_split`) gives
//! `package`s, `spread` decides what each node lacks and sends it, `containerd`
//! speaks to a node. `inventory` is what nodes have from here, `ledger` what was
//! pushed to registries, `rates` what the ways have cost.

pub(crate) mod archive;
pub(crate) mod containerd;
pub(crate) mod engine;
pub mod inventory;
pub mod ledger;
pub(crate) mod package;
mod progress;
pub mod rates;
mod spread;
mod supply;
mod tar_split;

pub use progress::Progress;

use crate::docker::{DockerError, Engine};
use crate::error::{CommandError, Result};
use crate::image::{Image, ImageError, ImageSet};
use crate::node::Node;
use archive::{Archive, Naming};
use containerd::Containerd;
use engine::EngineImage;
use std::path::{Path, PathBuf};
use std::time::Duration;
use supply::Supply;

/// What it took to deliver images to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Bytes sent to the node, 0 when it had the images.
    pub sent_bytes: u64,
    /// Layers sent.
    pub sent_layers: usize,
    /// Layers of the images.
    pub total_layers: usize,
    /// Whether the node had the very same images, ready to run.
    pub already_present: bool,
    /// Wall time of it all.
    pub duration: Duration,
}

/// How it went on one node.
#[derive(Debug)]
pub struct NodeDelivery {
    /// The node's name.
    pub node: String,
    /// What it took, or why the images aren't there.
    pub outcome: Result<Delivery, DeliverError>,
}

/// Where an image comes from that was not made here.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// A Docker engine, by a name or an id.
    Docker(&'a str),
    /// A tar by `docker save` or in OCI layout, or a folder in OCI layout.
    File(&'a Path),
}

/// Why an image is not on a node.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The node's processes are gone.
    #[error("the {node} is not running")]
    NodeGone {
        /// [`Node::describe`].
        node: String,
    },
    /// The node runs, but doesn't answer.
    #[error("the {node} does not answer")]
    Silent {
        /// [`Node::describe`].
        node: String,
    },
    /// The node's processor can't run it.
    #[error("{image} is for {found}, the node is {wanted}")]
    WrongArchitecture {
        /// The image's reference or file.
        image: String,
        /// The image's architectures.
        found: String,
        /// The node's.
        wanted: String,
    },
    /// The file is not an image.
    #[error("{} can't be loaded: {reason}", path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No name that an image can have.
    #[error("{name:?} is not the name of an image: {reason}")]
    BadName {
        /// It.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The Docker engine has no such image.
    #[error("the Docker engine has no image {name:?}")]
    NoSuchImage {
        /// Its name.
        name: String,
    },
    /// Layers of an image's base that a node lacks are nowhere to be had.
    #[error("{image} lacks layers of its base")]
    Base {
        /// The image's reference.
        image: String,
        /// Why.
        source: ImageError,
    },
    /// The Docker engine failed.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// The node's disk is full (mostly it is this machine's).
    #[error("no space left on the disk of the {node}")]
    DiskFull {
        /// [`Node::describe`].
        node: String,
    },
    /// containerd refused.
    #[error("containerd on the {node} failed to {doing}: {message}")]
    Containerd {
        /// [`Node::describe`].
        node: String,
        /// What it was asked to do.
        doing: &'static str,
        /// Its words.
        message: String,
    },
    /// The way to the node broke, or a file of this machine that was on it.
    #[error("could not {doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of this machine could not be read or written.
    #[error("could not {doing}")]
    Local {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl From<DeliverError> for CommandError {
    fn from(error: DeliverError) -> Self {
        use std::io::ErrorKind::StorageFull;
        let hint = match &error {
            DeliverError::NodeGone { .. } => Some("see `kubectl devenv status`, start it with `kubectl devenv up`"),
            DeliverError::Silent { .. } => Some("is it paused, or out of memory? see `docker ps` and `kubectl devenv status`"),
            DeliverError::WrongArchitecture { .. } => Some("build the image for the node's architecture"),
            DeliverError::NotAnImage { .. } => {
                Some("make it with `docker save IMAGE -o FILE` or `skopeo copy docker://IMAGE oci-archive:FILE:IMAGE`")
            }
            DeliverError::NoSuchImage { .. } => Some("see `docker images`; for a file, write its path, as in ./image.tar"),
            DeliverError::DiskFull { .. } => Some("free some disk space, then run the command again; no image was added"),
            DeliverError::Containerd { .. } => Some("see the node's containerd log, then run the command again"),
            DeliverError::Io { source, .. } | DeliverError::Local { source, .. } if source.kind() == StorageFull => {
                Some("free some disk space, or name another folder for temporary files with TMPDIR")
            }
            DeliverError::Base { .. } => Some("name a base in `image.base` that can be had from here, such as one of a registry"),
            DeliverError::BadName { .. } | DeliverError::Docker(_) | DeliverError::Io { .. } | DeliverError::Local { .. } => None,
        };
        let message = error.to_string();
        let command = match error {
            DeliverError::Io { source, .. } | DeliverError::Local { source, .. } => Self::new(message).caused_by(source),
            DeliverError::Docker(error) => error.into(),
            DeliverError::Base { source, .. } => Self::new(message).caused_by(source),
            DeliverError::BadName { .. } => Self::usage(message),
            _ => Self::new(message),
        };
        match hint {
            Some(hint) => command.with_hint(hint),
            None => command,
        }
    }
}

/// Puts an image into the containerd of every node, at the same time, unless it
/// is there: of several platforms, to each node its own. One node that fails doesn't
/// keep the others from it.
///
/// # Errors
/// When it could be delivered to none; see the outcome of each node otherwise.
pub async fn to_nodes(nodes: &[Node], set: &ImageSet, progress: &Progress) -> Result<Vec<NodeDelivery>, DeliverError> {
    let containerds: Vec<Containerd<'_>> = nodes.iter().map(Containerd::of).collect();
    spread::deliver(&containerds, &Supply::made(set), progress).await
}

/// [`to_nodes`] for one node and one image.
///
/// # Errors
/// [`DeliverError`].
pub async fn to_node(node: &Node, image: &Image) -> Result<Delivery> {
    let outcomes = to_nodes(std::slice::from_ref(node), &image.clone().into(), &Progress::default()).await?.into_iter();
    let delivered: Result<Vec<Delivery>, DeliverError> = outcomes.map(|delivered| delivered.outcome).collect();
    delivered?.pop().ok_or_else(|| CommandError::new("no node was named"))
}

/// The bytes that [`to_nodes`] would send, to all nodes together; `None` when
/// all of them have the image.
///
/// # Errors
/// When a node can't be asked, or can't run the image.
pub async fn missing_bytes(nodes: &[Node], set: &ImageSet) -> Result<Option<u64>, DeliverError> {
    let supply = Supply::made(set);
    let containerds: Vec<Containerd<'_>> = nodes.iter().map(Containerd::of).collect();
    let assessed = futures::future::try_join_all(containerds.iter().map(|containerd| spread::assess(containerd, &supply))).await?;
    let missing = assessed.iter().filter_map(|assessment| assessment.missing(set));
    Ok(missing.fold(None, |sum, bytes| Some(sum.unwrap_or(0) + bytes)))
}

/// Images to load, whose documents are known.
#[derive(Debug)]
pub struct Source(Supply);

impl Source {
    /// The images' names, spelled out.
    pub fn images(&self) -> Vec<String> {
        let identities = self.0.identities(None).unwrap_or_default();
        let mut names: Vec<String> = identities.into_iter().flat_map(|identity| identity.names).collect();
        names.dedup();
        names
    }
}

/// Finds out what there is to load. No layer is read yet.
///
/// # Errors
/// When there is no such image, or the file is truncated or none.
pub async fn find(origin: Origin<'_>) -> Result<Source, DeliverError> {
    Ok(Source(match origin {
        Origin::Docker(name) => Supply::Engine(Box::new(EngineImage::inspect(&Engine::connect().await?, name).await?)),
        Origin::File(path) => Supply::Archive(open(path).await?),
    }))
}

/// Puts images into the containerd of every node, at the same time, unless they
/// are there. One node that fails doesn't keep the others from it; a layer that
/// is damaged goes to none.
///
/// # Errors
/// When they can't be read; see the outcome of each node otherwise.
pub async fn load(nodes: &[Node], source: &Source, progress: &Progress) -> Result<Vec<NodeDelivery>, DeliverError> {
    let containerds: Vec<Containerd<'_>> = nodes.iter().map(Containerd::of).collect();
    spread::deliver(&containerds, &source.0, progress).await
}

async fn open(path: &Path) -> Result<Archive, DeliverError> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || Archive::open(&path, Naming::Required)).await;
    opened.map_err(|error| DeliverError::Local { doing: "read the archive".into(), source: std::io::Error::other(error) })?
}

#[cfg(test)]
mod tests;
