//! What can go. Pure: from what was found to a list, in the order in which it is
//! carried out.

use crate::journal::Created;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// All that was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) nodes: Vec<NodeImages>,
    pub(super) registries: Vec<RegistryBlobs>,
    pub(super) caches: Caches,
    pub(super) leftovers: Vec<Leftover>,
    /// What could not be looked at, for the user.
    pub(super) notes: Vec<String>,
}

/// The images of a node.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeImages {
    pub(super) node: String,
    /// Reference and digest of the manifest.
    pub(super) images: Vec<(String, String)>,
    /// References of the images of all containers, running or not.
    pub(super) used: BTreeSet<String>,
    /// By digest, those that can be read.
    pub(super) manifests: BTreeMap<String, Manifest>,
}

/// What a manifest says, and when it came to the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    /// Nanoseconds since 1970.
    pub(super) written: u128,
    /// Digest and size of configuration and layers.
    pub(super) blobs: Vec<(String, u64)>,
}

/// What no tag of a registry refers to.
#[derive(Clone, Debug)]
pub(super) struct RegistryBlobs {
    pub(super) registry: String,
    pub(super) blobs: usize,
    pub(super) bytes: Option<u64>,
    pub(super) action: Action,
}

/// What is in the cache.
#[derive(Clone, Debug, Default)]
pub(super) struct Caches {
    /// Node programs, with whether something uses them.
    pub(super) programs: Vec<(Cached, bool)>,
    /// Layers of images that were made here and that no run uses.
    pub(super) layers: Vec<Cached>,
    /// What kind node images are made from.
    pub(super) node_images: Vec<Cached>,
}

/// A file or folder of the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cached {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// Seconds since it was used or made.
    pub(super) age: u64,
}

/// What an environment that is gone has left.
#[derive(Clone, Debug)]
pub(super) enum Leftover {
    /// Its folder, without a record.
    Folder { name: String, bytes: u64 },
    /// Something of the Docker engine.
    Created(Created),
}

/// One thing to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    /// What kind of thing it is.
    pub(super) what: &'static str,
    /// Where it is: a node, a registry, `cache`, `docker`, `state`.
    pub(super) place: String,
    pub(super) name: String,
    /// The space that this frees, where that is known.
    pub(super) bytes: Option<u64>,
    /// Why it can go.
    pub(super) reason: &'static str,
    #[serde(skip)]
    pub(super) action: Action,
}

/// How a thing is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    RemoveImage { node: String, digest: String, references: Vec<String> },
    CollectNode { node: String },
    CollectContainer,
    RemovePaths { paths: Vec<PathBuf> },
    RemoveLayers { paths: Vec<PathBuf> },
    RemoveEnvironment { name: String },
    RemoveCreated { created: Created },
}

/// References of images that devloop delivered begin like this.
const OURS: &str = "devloop.local/";
/// Of those, the repositories that a node itself is made of.
const INFRASTRUCTURE: [&str; 5] = ["pause", "kindnet", "kind-node", "kind-components", "registry"];
/// Names that containerd's CRI plugin gives an image besides its reference.
const BY_CONFIG: &str = "sha256:";
/// A layer that was used within this time may be about to be used again.
const RECENT_SECONDS: u64 = 60 * 60;

pub(super) fn plan(snapshot: &Snapshot) -> Vec<Item> {
    let mut items: Vec<Item> = snapshot.nodes.iter().flat_map(images).collect();
    items.extend(snapshot.registries.iter().filter(|registry| registry.blobs > 0).map(|registry| Item {
        what: "registryBlobs",
        place: registry.registry.clone(),
        name: format!("{} blobs", registry.blobs),
        bytes: registry.bytes,
        reason: "no tag refers to them; the registry stops for a moment",
        action: registry.action.clone(),
    }));
    items.extend(caches(&snapshot.caches));
    items.extend(snapshot.leftovers.iter().map(leftover));
    items
}

fn images(node: &NodeImages) -> Vec<Item> {
    let mut by_digest: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (reference, digest) in &node.images {
        by_digest.entry(digest).or_default().push(reference);
    }
    let written = |digest: &str| node.manifests.get(digest).map(|manifest| manifest.written);
    let mut newest: BTreeMap<&str, (Option<u128>, &str)> = BTreeMap::new();
    for (digest, references) in &by_digest {
        for repository in references.iter().filter_map(|reference| repository(reference)) {
            let this = (written(digest), *digest);
            let best = newest.entry(repository).or_insert(this);
            *best = this.max(*best);
        }
    }
    let goes = |digest: &str, references: &[&str]| {
        let mut named = references.iter().filter(|reference| !reference.starts_with(BY_CONFIG)).peekable();
        named.peek().is_some()
            && named.all(|reference| {
                repository(reference).is_some_and(|repository| newest.get(repository).is_none_or(|(_, best)| *best != digest))
            })
            && !references.iter().any(|reference| node.used.contains(*reference))
            // Which is the newest can't be told without its time.
            && written(digest).is_some()
    };
    let (go, stay): (Vec<_>, Vec<_>) = by_digest.iter().partition(|(digest, references)| goes(digest, references));
    let blobs_of = |digest: &str| node.manifests.get(digest).map(|manifest| manifest.blobs.as_slice()).unwrap_or_default();
    let mut counted: BTreeSet<&str> = stay.iter().flat_map(|(digest, _)| blobs_of(digest)).map(|(blob, _)| blob.as_str()).collect();
    go.iter()
        .map(|(digest, references)| {
            let bytes = blobs_of(digest).iter().filter(|(blob, _)| counted.insert(blob)).map(|(_, size)| size).sum();
            let named = references.iter().find(|reference| !reference.starts_with(BY_CONFIG)).copied().unwrap_or_default();
            Item {
                what: "image",
                place: node.node.clone(),
                name: named.to_owned(),
                bytes: Some(bytes),
                reason: "no container uses it, and there is a newer one",
                action: Action::RemoveImage {
                    node: node.node.clone(),
                    digest: (**digest).to_owned(),
                    references: references.iter().map(|reference| (*reference).to_owned()).collect(),
                },
            }
        })
        .collect()
}

/// The repository of an image that devloop delivered and that may go; `None` for
/// others' images.
fn repository(reference: &str) -> Option<&str> {
    let path = reference.strip_prefix(OURS)?;
    let name = path.split(['@', ':']).next()?;
    (!name.is_empty() && !INFRASTRUCTURE.contains(&name)).then_some(name)
}

fn caches(caches: &Caches) -> Vec<Item> {
    let item = |what, name: String, found: &[&Cached], reason| Item {
        what,
        place: "cache".to_owned(),
        name,
        bytes: Some(found.iter().map(|cached| cached.bytes).sum()),
        reason,
        action: Action::RemovePaths { paths: found.iter().map(|cached| cached.path.clone()).collect() },
    };
    let name = |cached: &Cached| cached.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut items = Vec::new();
    for (cached, _) in caches.programs.iter().filter(|(_, used)| !used) {
        items.push(item("nodePrograms", name(cached), &[cached], "of another version, and no environment runs them"));
    }
    let old: Vec<&Cached> = caches.layers.iter().filter(|layer| layer.age > RECENT_SECONDS).collect();
    if !old.is_empty() {
        let layers = item("layers", format!("{} layers", old.len()), &old, "not used for an hour; made again when needed");
        // A run may begin to use one of them before they are removed.
        let paths = old.iter().map(|layer| layer.path.clone()).collect();
        items.push(Item { action: Action::RemoveLayers { paths }, ..layers });
    }
    let mut youngest: BTreeMap<String, &Cached> = BTreeMap::new();
    for cached in &caches.node_images {
        let best = youngest.entry(series(&name(cached))).or_insert(cached);
        if (cached.age, &cached.path) < (best.age, &best.path) {
            *best = cached;
        }
    }
    for cached in &caches.node_images {
        if youngest.get(&series(&name(cached))).is_some_and(|best| best.path != cached.path) {
            items.push(item("nodeImage", name(cached), &[cached], "there is a newer one"));
        }
    }
    items
}

/// Files of which only the newest is of use have this in common: archives their
/// ending, folders what is before the first dash.
fn series(name: &str) -> String {
    name.strip_suffix(".tar").map_or_else(|| name.split('-').next().unwrap_or_default().to_owned(), |_| ".tar".to_owned())
}

fn leftover(leftover: &Leftover) -> Item {
    let reason = "its environment is gone";
    match leftover {
        Leftover::Folder { name, bytes } => Item {
            what: "environment",
            place: "state".to_owned(),
            name: name.clone(),
            bytes: Some(*bytes),
            reason: "it has no record, and no process",
            action: Action::RemoveEnvironment { name: name.clone() },
        },
        Leftover::Created(created) => {
            let (what, name) = match created {
                Created::Container { name } => ("container", name.clone()),
                Created::Volume { name } => ("volume", name.clone()),
                other => ("other", format!("{other:?}")),
            };
            let action = Action::RemoveCreated { created: created.clone() };
            Item { what, place: "docker".to_owned(), name, bytes: None, reason, action }
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
