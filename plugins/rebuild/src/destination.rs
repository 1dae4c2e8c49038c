//! Where images go: one way in for `execute`, whatever the cluster. `place` is a
//! registry, as a user names it.

mod place;

use devloop_core::Result;
use devloop_core::args::Via;
use devloop_core::cluster::Cluster;
use devloop_core::deliver::rates::{Estimate, Expectation, Rates};
use devloop_core::deliver::{self, Progress, ledger};
use devloop_core::environment::Directories;
use devloop_core::error::CommandError;
use devloop_core::image::ImageSet;
use devloop_core::node::Node;
use devloop_core::registry::{self, Access, Hosting, PushOptions};
use devloop_core::ui::{human_bytes, human_duration};
use place::Place;
use std::time::{Duration, Instant};

/// Where the cluster's nodes get images from: the ways that there are, the one
/// that is taken first.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    ways: Vec<Way>,
    access: Access,
    directories: Directories,
    context: String,
}

/// The share of the usual way's time that another may take at most, to be worth going
/// another way: what was measured varies, and images under two names take twice the room.
const WORTH_A_CHANGE: f64 = 0.8;

/// A way to the nodes.
#[derive(Clone, Debug)]
enum Way {
    /// Straight into the containerd of each, since a pod may land on any.
    Nodes(Vec<Node>),
    /// A registry that they pull from.
    Registry(Place),
}

/// What the user says about the way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) via: Via,
    /// `--push`.
    pub(crate) push: Option<String>,
    /// `--insecure-registry`.
    pub(crate) insecure: Vec<String>,
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

impl Wishes {
    /// # Errors
    /// When `--push` can't be understood, whatever the images are.
    pub(crate) fn check(self) -> Result<Self> {
        self.push.as_deref().map(|text| Place::parse(text, 1)).transpose()?;
        Ok(self)
    }
}

impl Destination {
    /// Finds the ways into a cluster for so many images.
    pub(crate) async fn of(cluster: &Cluster, wishes: &Wishes, images: usize) -> Result<Self> {
        let push = wishes.push.as_deref().map(|text| Place::parse(text, images)).transpose()?;
        let nodes = cluster.nodes.clone();
        let hosting = match (&push, wishes.via) {
            (Some(_), _) | (None, Via::Node) => None,
            (None, Via::Auto) if !nodes.is_empty() => match registry::hosting(&cluster.client).await {
                Ok(hosting) => hosting,
                // There is another way; if the API is gone, what comes next says so.
                Err(error) => {
                    tracing::info!(%error, "the cluster's registry is not considered");
                    None
                }
            },
            (None, _) => registry::hosting(&cluster.client).await?,
        };
        let ways = ways(wishes.via, push, nodes, hosting, &cluster.context)?;
        let access = Access::from_env().with_insecure(&wishes.insecure);
        Ok(Self { ways, access, directories: Directories::from_env()?, context: cluster.context.clone() })
    }

    /// Takes the cheapest of the ways that can work, by what they have cost so
    /// far, or the usual one where it is hardly dearer; answers a line that says so,
    /// where there was something to choose.
    pub(crate) async fn choose(mut self, images: &[&ImageSet]) -> (Self, Option<String>) {
        if self.ways.len() < 2 {
            tracing::info!(way = self.way().key(), "images go there, there is no other way");
            return (self, None);
        }
        let rates = Rates::load(&self.directories.cache, &self.context);
        let mut estimates: Vec<(Way, Estimate)> = self
            .ways
            .drain(..)
            .map(|way| {
                let estimate = estimate(&rates, &way, images);
                (way, estimate)
            })
            .collect();
        // The way of last time, else the one that is taken first.
        let usual = estimates.iter().position(|(way, _)| rates.is_last(&way.key())).unwrap_or_default();
        let bar = estimates[usual].1.time.mul_f64(WORTH_A_CHANGE);
        let usual = estimates[usual].0.key();
        estimates.sort_by_key(|(way, estimate)| (way.key() != usual && estimate.time >= bar, estimate.time, way.key() != usual));
        for (way, estimate) in &estimates {
            let (bytes, measured) = (human_bytes(estimate.bytes), estimate.measured);
            tracing::info!(way = way.key(), time = human_duration(estimate.time), bytes, measured, "what a way would cost");
        }
        if let (Way::Registry(place), _) = &estimates[0]
            && let Err(error) = registry::wait_until_serving(&place.host).await
        {
            tracing::info!(%error, "the registry does not answer, images go another way");
            estimates.rotate_left(1);
        }
        let line = said(&estimates);
        self.ways = estimates.into_iter().map(|(way, _)| way).collect();
        (self, Some(line))
    }

    /// How registries are reached.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    fn way(&self) -> &Way {
        &self.ways[0]
    }

    /// For messages: `the node`, `all 3 nodes`, `registry localhost:5001`.
    pub(crate) fn describe(&self) -> String {
        self.way().describe()
    }

    /// The image under the name that the nodes will know it by.
    pub(crate) fn name(&self, image: ImageSet) -> ImageSet {
        match self.way() {
            Way::Nodes(_) => image,
            Way::Registry(place) => {
                let reference = place.reference(&image);
                image.named(&reference)
            }
        }
    }

    /// Delivers the image. It is there for every pod then, or this fails.
    pub(crate) async fn deliver(&self, image: &ImageSet, progress: &Progress) -> Result<Delivered> {
        let started = Instant::now();
        let delivered = match self.way() {
            Way::Nodes(nodes) => to_nodes(nodes, image, progress).await?,
            Way::Registry(place) => self.to_registry(place, image, progress).await?,
        };
        let mut rates = Rates::load(&self.directories.cache, &self.context);
        rates.learn(&self.way().key(), image, delivered.sent_bytes, started.elapsed());
        rates.store(&self.directories.cache, &self.context);
        Ok(delivered)
    }

    async fn to_registry(&self, place: &Place, image: &ImageSet, progress: &Progress) -> Result<Delivered> {
        let (repository, tag) = place.repository(image);
        let entries = ledger::read(&self.directories.state, &self.context).unwrap_or_default();
        let options = PushOptions { access: self.access.clone(), mount_from: place.neighbours(&repository, &entries), piece_bytes: None };
        let pushed = registry::push_with(&place.host, image, &repository, &tag, &options, progress).await?;
        let entry = ledger::Entry {
            registry: place.host.clone(),
            reference: image.reference.clone(),
            digest: pushed.digest,
            bytes: image.size(),
            delivered: jiff::Timestamp::now().as_second(),
        };
        // The image is there; that it can't be listed later is no reason to fail.
        if let Err(error) = ledger::add(&self.directories.state, &self.context, entry) {
            tracing::warn!(%error, "`kubectl rebuild image ls` will not know of it");
        }
        Ok(Delivered {
            sent_bytes: pushed.sent_bytes,
            sent_layers: pushed.sent_layers,
            total_layers: image.images().iter().map(|image| image.layers.len()).sum(),
            already_present: pushed.sent_bytes == 0,
            ms: milliseconds(pushed.duration),
        })
    }

    /// How many bytes [`Destination::deliver`] would send; `None` when the image
    /// is everywhere already.
    pub(crate) async fn missing_bytes(&self, image: &ImageSet) -> Result<Option<u64>> {
        match self.way() {
            Way::Nodes(nodes) => Ok(deliver::missing_bytes(nodes, image).await?),
            Way::Registry(place) => {
                let (repository, tag) = place.repository(image);
                Ok(registry::missing_bytes(&place.host, image, &repository, &tag, &self.access).await?)
            }
        }
    }
}

impl Way {
    fn describe(&self) -> String {
        match self {
            Self::Nodes(nodes) if nodes.len() == 1 => "the node".to_owned(),
            Self::Nodes(nodes) => format!("all {} nodes", nodes.len()),
            Self::Registry(place) => format!("registry {}", place.host),
        }
    }

    /// What its costs are kept under.
    fn key(&self) -> String {
        match self {
            Self::Nodes(nodes) => format!("nodes {}", nodes.len()),
            Self::Registry(place) => format!("registry {}", place.host),
        }
    }
}

fn estimate(rates: &Rates, way: &Way, images: &[&ImageSet]) -> Estimate {
    let (expected, places) = match way {
        Way::Nodes(nodes) => (Expectation::IMPORT, nodes.len() as u64),
        Way::Registry(place) if place.is_local() => (Expectation::LOCAL_REGISTRY, 1),
        Way::Registry(_) => (Expectation::REMOTE_REGISTRY, 1),
    };
    rates.estimate(&way.key(), expected, images, places)
}

/// Which way is taken, and why.
fn said(estimates: &[(Way, Estimate)]) -> String {
    let how = |way: &Way| match way {
        Way::Nodes(_) => format!("by import into {}", way.describe()),
        Way::Registry(_) => format!("through {}", way.describe()),
    };
    let cost = |estimate: &Estimate| match estimate.time {
        Duration::ZERO => "sent there before".to_owned(),
        time => format!("about {}", human_duration(time)),
    };
    let others: Vec<String> = estimates[1..].iter().map(|(way, estimate)| format!("{}: {}", how(way), cost(estimate))).collect();
    format!("images go {}: {} ({})", how(&estimates[0].0), cost(&estimates[0].1), others.join(", "))
}

fn ways(via: Via, push: Option<Place>, nodes: Vec<Node>, hosting: Option<Hosting>, context: &str) -> Result<Vec<Way>> {
    if let Some(place) = push {
        return Ok(vec![Way::Registry(place)]);
    }
    if via == Via::Node && nodes.is_empty() {
        return Err(CommandError::new(format!("no node of context {context:?} can be reached from here"))
            .with_hint("leave out --via, or choose an environment of `kubectl devenv status`"));
    }
    let nodes = Some(nodes).filter(|nodes| via != Via::Api && !nodes.is_empty()).map(Way::Nodes);
    let registry = hosting.filter(|hosting| via != Via::Node && !hosting.host.is_empty()).map(|hosting| Way::Registry(Place::of(hosting)));
    let ways: Vec<Way> = nodes.into_iter().chain(registry).collect();
    if ways.is_empty() {
        return Err(CommandError::new(format!("there is no way to bring an image to the nodes of context {context:?}"))
            .with_hint("name a registry that they pull from with --push HOST[:PORT][/PATH]")
            .with_hint("or let the cluster say which it has: ConfigMap kube-public/local-registry-hosting (KEP-1755)"));
    }
    Ok(ways)
}

async fn to_nodes(nodes: &[Node], image: &ImageSet, progress: &Progress) -> Result<Delivered> {
    let started = Instant::now();
    let mut sum = Delivered { sent_bytes: 0, sent_layers: 0, total_layers: 0, already_present: true, ms: 0 };
    for node in deliver::to_nodes(nodes, image, progress).await? {
        let delivery = node.outcome.map_err(|error| match nodes {
            [_] => error.into(),
            _ => CommandError::new(format!("node {} does not have it", node.node)).caused_by(CommandError::from(error)),
        })?;
        sum.sent_bytes += delivery.sent_bytes;
        sum.sent_layers = sum.sent_layers.max(delivery.sent_layers);
        sum.total_layers = sum.total_layers.max(delivery.total_layers);
        sum.already_present &= delivery.already_present;
    }
    sum.ms = milliseconds(started.elapsed());
    Ok(sum)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use devloop_core::ui::render_error;

    fn hosting() -> Hosting {
        Hosting { host: "localhost:5001".into(), ..Hosting::default() }
    }

    fn node() -> Vec<Node> {
        vec![Node::embedded("dev", 1)]
    }

    fn found(via: Via, push: Option<&str>, nodes: Vec<Node>, hosting: Option<Hosting>) -> String {
        let place = push.map(|text| Place::parse(text, 1)).transpose();
        let found = place.and_then(|place| ways(via, place, nodes, hosting, "far"));
        let describe = |ways: Vec<Way>| ways.iter().map(Way::describe).collect::<Vec<_>>().join(" or ");
        found.map_or_else(|error| render_error(&error), describe)
    }

    #[test]
    fn every_way_that_there_is_can_be_taken() {
        assert_eq!(found(Via::Auto, None, node(), Some(hosting())), "the node or registry localhost:5001");
        assert_eq!(found(Via::Node, None, node(), Some(hosting())), "the node");
        assert_eq!(found(Via::Api, None, node(), Some(hosting())), "registry localhost:5001");
        assert_eq!(found(Via::Auto, None, vec![], Some(hosting())), "registry localhost:5001");
        assert_eq!(found(Via::Auto, Some("example.com/team"), node(), Some(hosting())), "registry example.com");
        let texts =
            [found(Via::Node, None, vec![], None), found(Via::Auto, None, vec![], None), found(Via::Auto, Some("a b"), node(), None)];
        insta::assert_snapshot!(texts.join("\n\n"), @r#"
        Error: no node of context "far" can be reached from here
        Hint: leave out --via, or choose an environment of `kubectl devenv status`

        Error: there is no way to bring an image to the nodes of context "far"
        Hint: name a registry that they pull from with --push HOST[:PORT][/PATH]
        Hint: or let the cluster say which it has: ConfigMap kube-public/local-registry-hosting (KEP-1755)

        Error: --push "a b" names no registry
        Hint: write HOST[:PORT][/PATH] for all images, or HOST[:PORT]/NAME:TAG for one, such as localhost:5001 or docker.io/me/shop:dev
        "#);
    }

    #[tokio::test]
    async fn the_cheapest_way_is_taken_and_what_is_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let directories = Directories { state: folder.path().into(), cache: folder.path().into() };
        // Nobody listens at this registry.
        let place = Place::of(Hosting { host: "localhost:1".into(), ..Hosting::default() });
        let destination = Destination {
            ways: vec![Way::Registry(place), Way::Nodes(node())],
            access: Access::default(),
            directories: directories.clone(),
            context: "far".into(),
        };
        let layer = devloop_core::image::Layer::uncompressed("sha256:l".into(), 20_000_000, "x".into());
        let image = place::tests::image(vec![layer]);
        let (chosen, line) = destination.clone().choose(&[&image]).await;
        assert_eq!(chosen.describe(), "the node");
        insta::assert_snapshot!(line.unwrap(), @"images go by import into the node: about 246 ms (through registry localhost:1: about 706 ms)");
        let mut rates = Rates::default();
        rates.learn("nodes 1", &image, 20_000_000, Duration::from_millis(90));
        rates.store(folder.path(), "far");
        let (_, line) = destination.clone().choose(&[&image]).await;
        insta::assert_snapshot!(line.unwrap(), @"images go by import into the node: sent there before (through registry localhost:1: about 706 ms)");
        // A little dearer than the other is no reason to leave the usual way; much is.
        let layer = devloop_core::image::Layer::uncompressed("sha256:n".into(), 20_000_000, "x".into());
        let mut new = place::tests::image(vec![layer]);
        new.digest = "sha256:new".into();
        let ways = vec![Way::Nodes(node()), Way::Nodes([node(), node()].concat())];
        let two = Destination { ways, ..destination.clone() };
        let mut texts = vec![];
        for slow in [300, 600] {
            let mut rates = Rates::default();
            for (way, ms) in [("nodes 2", 100), ("nodes 1", slow)] {
                (0..16).for_each(|_| rates.learn(way, &image, 20_000_000, Duration::from_millis(ms)));
            }
            rates.store(folder.path(), "far");
            texts.extend(two.clone().choose(&[&new]).await.1);
        }
        insta::assert_snapshot!(texts.join("\n"), @"
        images go by import into the node: about 294 ms (by import into all 2 nodes: about 238 ms)
        images go by import into all 2 nodes: about 238 ms (by import into the node: about 565 ms)
        ");
        // It would be cheaper, but isn't there.
        let mut rates = Rates::default();
        rates.learn("registry localhost:1", &image, 0, Duration::ZERO);
        rates.store(folder.path(), "far");
        let (chosen, _) = destination.choose(&[&image]).await;
        assert_eq!(chosen.describe(), "the node");
    }
}
