//! Images that others made, as something to build upon or as the image itself:
//! out of a file or a folder, a Docker engine, a registry, or a node.
//!
//! Of a base only the documents are read. Its layers are got where somebody needs
//! their bytes, and kept in the cache by their digests: a node that has the base
//! is never sent it, and then nobody reads it.

mod file;

pub use file::import;

use super::base::BaseImage;
use super::{Described, ImageError, Store, Supplier, base};
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;

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

/// The image of a file or a folder of the project.
///
/// # Errors
/// [`ImageError`].
pub async fn of_file(cache: &Path, name: &str, path: &Path, wanted: &str) -> Result<BaseImage, ImageError> {
    file::base(cache, name, path, wanted).await
}
