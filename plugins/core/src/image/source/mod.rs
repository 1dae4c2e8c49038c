//! Images that others made, as something to build upon or as the image itself:
//! out of a file or a folder, a Docker engine, a registry, or a node.
//!
//! Of a base only the documents are read. Its layers are got where somebody needs
//! their bytes, and kept in the cache by their digests: a node that has the base
//! is never sent it, and then nobody reads it.

mod engine;
mod file;
mod kept;
mod node;
mod remote;

pub use file::import;
pub use kept::{Remembered, recall, remember};
#[cfg(test)]
pub(crate) use node::on_node;

use super::base::BaseImage;
use super::{Described, ImageError, Store, Supplier, base, digest};
use crate::files::write_atomic;
use crate::node::Node;
use crate::project::Base;
use crate::registry::Access;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// A manifest's own account of its layers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    media_type: Option<String>,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

/// An image's two documents.
struct Documents<'a> {
    config: &'a [u8],
    manifest: &'a [u8],
}

impl Documents<'_> {
    fn manifest(&self, name: &str) -> Result<Manifest, ImageError> {
        serde_json::from_slice(self.manifest)
            .map_err(|error| ImageError::Base { name: name.to_owned(), reason: format!("its manifest is none: {error}") })
    }

    /// The base that they describe, whose layers are held, and got by `supplier`.
    fn base(&self, store: &Store, name: &str, wanted: &str, supplier: &Arc<dyn Supplier>) -> Result<BaseImage, ImageError> {
        let refused = |reason: String| ImageError::Base { name: name.to_owned(), reason };
        let found = base::architecture(self.config).map_err(|error| refused(format!("its configuration is none: {error}")))?;
        if found != wanted {
            return Err(ImageError::Platform { name: name.to_owned(), found, wanted: wanted.to_owned() });
        }
        let diff_ids = base::diff_ids(self.config).map_err(|error| refused(format!("its configuration is none: {error}")))?;
        let manifest = self.manifest(name)?;
        if diff_ids.len() != manifest.layers.len() {
            return Err(refused("its configuration names other layers than its manifest".to_owned()));
        }
        let layers = manifest.layers.into_iter().zip(diff_ids).map(|(layer, diff_id)| {
            let Descriptor { media_type, digest, size } = layer;
            store.layer(Described { digest, diff_id, media_type, size }, Arc::clone(supplier))
        });
        BaseImage::new(name, self.config, layers.collect::<Result<_, _>>()?)
    }
}

/// Where bases are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// Where layers and documents are kept.
    pub cache: &'a Path,
    /// The project's folder.
    pub root: &'a Path,
    /// The cluster's nodes that can be reached.
    pub nodes: &'a [Node],
    /// How registries are reached.
    pub access: &'a Access,
}

/// Finds what an image for a platform is to be built upon; `None` for nothing.
/// `wanted` is its architecture, as Go names it.
///
/// # Errors
/// [`ImageError`].
pub async fn find(places: &Places<'_>, base: &Base, wanted: &str) -> Result<Option<BaseImage>, ImageError> {
    let Places { cache, root, nodes, access } = *places;
    let shown = base.to_string();
    match base {
        Base::Scratch => return Ok(None),
        Base::File(path) => file::base(cache, &shown, &root.join(path), wanted).await,
        Base::Docker(name) => engine::base(cache, &shown, name, wanted).await,
        Base::Cluster(name) => node::base(cache, &shown, name, nodes, wanted).await,
        Base::Registry(name) => remote::base(cache, name, access, wanted).await,
    }
    .map(Some)
}

/// The image for a platform that an index names; `None` for what is no index.
fn choose(name: &str, document: &[u8], wanted: &str) -> Result<Option<String>, ImageError> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Option<Vec<Entry>>,
    }
    #[derive(Deserialize)]
    struct Entry {
        digest: String,
        platform: Option<Platform>,
    }
    #[derive(Deserialize)]
    struct Platform {
        architecture: String,
        #[serde(default)]
        os: String,
    }
    let index: Index = serde_json::from_slice(document)
        .map_err(|error| ImageError::Base { name: name.to_owned(), reason: format!("its manifest is none: {error}") })?;
    let Some(entries) = index.manifests else { return Ok(None) };
    // Without a platform it is for whoever asks; attestations are for nobody.
    let is_for = |platform: &Option<Platform>| {
        platform.as_ref().is_none_or(|platform| platform.architecture == wanted && matches!(platform.os.as_str(), "" | "linux"))
    };
    if let Some(entry) = entries.iter().find(|entry| is_for(&entry.platform)) {
        return Ok(Some(entry.digest.clone()));
    }
    let mut found: Vec<String> = entries.into_iter().filter_map(|entry| Some(entry.platform?.architecture)).collect();
    found.retain(|architecture| architecture != "unknown");
    found.dedup();
    Err(ImageError::Platform { name: name.to_owned(), found: found.join(", "), wanted: wanted.to_owned() })
}

/// The digest of the configuration that a manifest names.
fn config_of(name: &str, manifest: &[u8]) -> Result<String, ImageError> {
    #[derive(Deserialize)]
    struct Manifest {
        config: Config,
    }
    #[derive(Deserialize)]
    struct Config {
        digest: String,
    }
    let manifest: Result<Manifest, _> = serde_json::from_slice(manifest);
    manifest
        .map(|manifest| manifest.config.digest)
        .map_err(|error| ImageError::Base { name: name.to_owned(), reason: format!("its manifest is none: {error}") })
}

/// Remembers the documents of an image by a name that never means another one.
struct Memory {
    path: PathBuf,
}

impl Memory {
    fn of(cache: &Path, name: &str) -> Self {
        Self { path: cache.join("bases").join(blake3::hash(name.as_bytes()).to_hex().as_str()) }
    }

    /// Configuration and manifest.
    fn recall(&self, store: &Store) -> Option<(Vec<u8>, Vec<u8>)> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        let (config, manifest) = text.trim().split_once(' ')?;
        Some((store.document(config)?, store.document(manifest)?))
    }

    /// The next run may do without: this never fails.
    fn keep(&self, store: &Store, config: &[u8], manifest: &[u8]) {
        store.keep_document(config);
        store.keep_document(manifest);
        let text = format!("{} {}\n", digest(config), digest(manifest));
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        if let Err(error) = std::fs::create_dir_all(folder).and_then(|()| write_atomic(&self.path, text.as_bytes(), 0o644)) {
            tracing::info!(%error, "what an image consists of is not remembered");
        }
    }
}
