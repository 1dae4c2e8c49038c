//! Where images go: one way in for `execute`, whatever the cluster.

use devloop_core::Result;
use devloop_core::cluster::Cluster;
use devloop_core::deliver::{self, Progress};
use devloop_core::error::{CommandError, ErrorHint};
use devloop_core::image::Image;
use devloop_core::node::Node;
use std::time::Instant;

/// Where the cluster's nodes get images from.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// Straight into the containerd of each, since a pod may land on any.
    Nodes(Vec<Node>),
}

/// What a delivery took, to all nodes together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) sent_bytes: u64,
    /// The most that any node got.
    pub(crate) sent_layers: usize,
    pub(crate) total_layers: usize,
    /// Whether it was everywhere already.
    pub(crate) already_present: bool,
    pub(crate) ms: u64,
}

impl Destination {
    pub(crate) fn of(cluster: &Cluster) -> Result<Self> {
        if cluster.nodes.is_empty() {
            return Err(CommandError::new(format!(
                "context {:?} is not an environment of `kubectl devenv`: images can only be delivered to those yet",
                cluster.context
            )))
            .hint("bring one up with `kubectl devenv up`, and choose it with --context devloop-NAME");
        }
        Ok(Self::Nodes(cluster.nodes.clone()))
    }

    /// For messages: `the node`, `all 3 nodes`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Nodes(nodes) if nodes.len() == 1 => "the node".to_owned(),
            Self::Nodes(nodes) => format!("all {} nodes", nodes.len()),
        }
    }

    /// Delivers the image. It is there for every pod then, or this fails.
    pub(crate) async fn deliver(&self, image: &Image, progress: &Progress) -> Result<Delivered> {
        match self {
            Self::Nodes(nodes) => to_nodes(nodes, image, progress).await,
        }
    }

    /// How many bytes [`Destination::deliver`] would send; `None` when the image
    /// is everywhere already.
    pub(crate) async fn missing_bytes(&self, image: &Image) -> Result<Option<u64>> {
        match self {
            Self::Nodes(nodes) => Ok(deliver::missing_bytes(nodes, image).await?),
        }
    }
}

async fn to_nodes(nodes: &[Node], image: &Image, progress: &Progress) -> Result<Delivered> {
    let started = Instant::now();
    let mut sum = Delivered { sent_bytes: 0, sent_layers: 0, total_layers: image.layers.len(), already_present: true, ms: 0 };
    for node in deliver::to_nodes(nodes, image, progress).await? {
        let delivery = node.outcome.map_err(|error| match nodes {
            [_] => error.into(),
            _ => CommandError::new(format!("node {} does not have it", node.node)).caused_by(CommandError::from(error)),
        })?;
        sum.sent_bytes += delivery.sent_bytes;
        sum.sent_layers = sum.sent_layers.max(delivery.sent_layers);
        sum.already_present &= delivery.already_present;
    }
    sum.ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(sum)
}
