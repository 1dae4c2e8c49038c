//! Where images go: one way in for `execute`, whatever the cluster.

use devloop_core::Result;
use devloop_core::args::Via;
use devloop_core::cluster::Cluster;
use devloop_core::deliver::{self, Progress};
use devloop_core::error::CommandError;
use devloop_core::image::Image;
use devloop_core::node::Node;
use devloop_core::registry::{self, Hosting};
use std::time::Instant;

/// Where the cluster's nodes get images from.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// Straight into the containerd of each, since a pod may land on any.
    Nodes(Vec<Node>),
    /// A registry that they pull from.
    Registry(Place),
}

/// A registry and the names of images in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// `HOST[:PORT]` to push to.
    host: String,
    /// What nodes know it by.
    from_nodes: String,
    /// Goes before a repository's name; empty or ends with `/`.
    prefix: String,
}

/// What the user says about the way, and what there is: enough to choose.
#[derive(Clone, Debug)]
pub(crate) struct Ways {
    pub(crate) via: Via,
    /// `--registry`.
    pub(crate) named: Option<String>,
    pub(crate) nodes: Vec<Node>,
    /// What the cluster says of a registry; not asked when it doesn't matter.
    pub(crate) hosting: Option<Hosting>,
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
    /// Finds the way into a cluster.
    pub(crate) async fn of(cluster: &Cluster, via: Via, named: Option<&str>) -> Result<Self> {
        let mut ways = Ways { via, named: named.map(str::to_owned), nodes: cluster.nodes.clone(), hosting: None };
        if ways.named.is_none() && (via == Via::Api || ways.nodes.is_empty()) {
            ways.hosting = registry::hosting(&cluster.client).await?;
        }
        let destination = choose(ways, &cluster.context)?;
        tracing::info!(way = destination.describe(), ?via, "images go there");
        Ok(destination)
    }

    /// For messages: `the node`, `all 3 nodes`, `registry localhost:5001`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Nodes(nodes) if nodes.len() == 1 => "the node".to_owned(),
            Self::Nodes(nodes) => format!("all {} nodes", nodes.len()),
            Self::Registry(place) => format!("registry {}", place.host),
        }
    }

    /// The image under the name that the nodes will know it by.
    pub(crate) fn name(&self, image: Image) -> Image {
        match self {
            Self::Nodes(_) => image,
            Self::Registry(place) => {
                let (repository, tag) = place.repository(&image);
                Image { reference: format!("{}/{repository}:{tag}", place.from_nodes), ..image }
            }
        }
    }

    /// Delivers the image. It is there for every pod then, or this fails.
    pub(crate) async fn deliver(&self, image: &Image, progress: &Progress) -> Result<Delivered> {
        match self {
            Self::Nodes(nodes) => to_nodes(nodes, image, progress).await,
            Self::Registry(place) => {
                let (repository, tag) = place.repository(image);
                let pushed = registry::push(&place.host, image, &repository, &tag).await?;
                Ok(Delivered {
                    sent_bytes: pushed.sent_bytes,
                    sent_layers: pushed.sent_layers,
                    total_layers: image.layers.len(),
                    already_present: pushed.sent_bytes == 0,
                    ms: u64::try_from(pushed.duration.as_millis()).unwrap_or(u64::MAX),
                })
            }
        }
    }

    /// How many bytes [`Destination::deliver`] would send; `None` when the image
    /// is everywhere already.
    pub(crate) async fn missing_bytes(&self, image: &Image) -> Result<Option<u64>> {
        match self {
            Self::Nodes(nodes) => Ok(deliver::missing_bytes(nodes, image).await?),
            Self::Registry(place) => {
                let (repository, tag) = place.repository(image);
                Ok(registry::missing_bytes(&place.host, image, &repository, &tag).await?)
            }
        }
    }
}

fn choose(ways: Ways, context: &str) -> Result<Destination> {
    if let Some(named) = &ways.named {
        return Ok(Destination::Registry(Place::parse(named)?));
    }
    if ways.via != Via::Api && !ways.nodes.is_empty() {
        return Ok(Destination::Nodes(ways.nodes));
    }
    if ways.via == Via::Node {
        return Err(CommandError::new(format!("no node of context {context:?} can be reached from here"))
            .with_hint("leave out --via, or choose an environment of `kubectl devenv status`"));
    }
    match ways.hosting.filter(|hosting| !hosting.host.is_empty()) {
        Some(hosting) => {
            Ok(Destination::Registry(Place { from_nodes: hosting.from_nodes().to_owned(), host: hosting.host, prefix: String::new() }))
        }
        None => Err(CommandError::new(format!("there is no way to bring an image to the nodes of context {context:?}"))
            .with_hint("name a registry that they pull from with --registry HOST[:PORT][/PREFIX]")
            .with_hint("or let the cluster say which it has: ConfigMap kube-public/local-registry-hosting (KEP-1755)")),
    }
}

impl Place {
    fn parse(text: &str) -> Result<Self> {
        let (host, prefix) = text.trim_end_matches('/').split_once('/').unwrap_or((text.trim_end_matches('/'), ""));
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte);
        let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
        if !is_host || !prefix.bytes().all(is_name) {
            return Err(CommandError::usage(format!("--registry {text:?} is not HOST[:PORT][/PREFIX]")));
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { host: host.to_owned(), from_nodes: host.to_owned(), prefix })
    }

    /// Repository and tag of an image, whichever registry its reference names.
    fn repository(&self, image: &Image) -> (String, String) {
        let name = image.reference.rsplit('/').next().unwrap_or_default();
        let (name, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
        (format!("{}{name}", self.prefix), tag.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;
    use devloop_core::ui::render_error;

    fn ways() -> Ways {
        let hosting = Hosting { host: "localhost:5001".into(), ..Hosting::default() };
        Ways { via: Via::Auto, named: None, nodes: vec![Node::embedded("dev", 1)], hosting: Some(hosting) }
    }

    fn way(ways: Ways) -> String {
        choose(ways, "far").map_or_else(|error| render_error(&error), |destination| destination.describe())
    }

    #[test]
    fn the_node_is_the_way_where_it_can_be_reached() {
        assert_eq!(way(ways()), "the node");
        assert_eq!(way(Ways { via: Via::Api, ..ways() }), "registry localhost:5001");
        assert_eq!(way(Ways { nodes: vec![], ..ways() }), "registry localhost:5001");
        assert_eq!(way(Ways { named: Some("example.com/team".into()), ..ways() }), "registry example.com");
        let nothing = Ways { nodes: vec![], hosting: None, ..ways() };
        let texts = [way(Ways { via: Via::Node, ..nothing.clone() }), way(nothing), way(Ways { named: Some("a b".into()), ..ways() })];
        insta::assert_snapshot!(texts.join("\n\n"), @r#"
        Error: no node of context "far" can be reached from here
        Hint: leave out --via, or choose an environment of `kubectl devenv status`

        Error: there is no way to bring an image to the nodes of context "far"
        Hint: name a registry that they pull from with --registry HOST[:PORT][/PREFIX]
        Hint: or let the cluster say which it has: ConfigMap kube-public/local-registry-hosting (KEP-1755)

        Error: --registry "a b" is not HOST[:PORT][/PREFIX]
        "#);
    }

    #[test]
    fn an_image_in_a_registry_is_named_by_what_nodes_know_it_by() {
        let image = Image {
            reference: "devloop.local/shop:abc".into(),
            manifest_digest: "sha256:abc".into(),
            architecture: "amd64".into(),
            layers: vec![],
            config: vec![],
            manifest: vec![],
        };
        let hosting = Hosting { host: "localhost:5001".into(), host_from_container_runtime: Some("reg:5000".into()), ..Hosting::default() };
        let named = choose(Ways { nodes: vec![], hosting: Some(hosting), ..ways() }, "far").unwrap().name(image.clone());
        assert_eq!(named.reference, "reg:5000/shop:abc");
        let named = choose(Ways { named: Some("example.com:8/a/b/".into()), ..ways() }, "far").unwrap().name(image);
        assert_eq!(named.reference, "example.com:8/a/b/shop:abc");
    }
}
