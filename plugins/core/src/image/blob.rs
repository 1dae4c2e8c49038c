//! Layers, as an image names them, and how their bytes are had: a layer that was
//! made here is a file of the cache; one of a base may lie elsewhere until
//! somebody needs it.

use super::ImageError;
use super::layer::digest_of_file;
use super::store::{Hold, Receiving};
use futures::future::BoxFuture;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// An uncompressed layer (image specification, "Layer media types").
pub(crate) const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// `sha256:...` of the blob, which may be compressed.
    pub digest: String,
    /// `sha256:...` of the uncompressed tar; the same as the digest for a layer
    /// that was made here.
    pub diff_id: String,
    /// What the manifest says it is.
    pub media_type: String,
    /// Of the blob, in bytes.
    pub size: u64,
    /// The blob's file, in the cache. It is there once [`Layer::obtain`] was
    /// called.
    pub path: PathBuf,
    origin: Origin,
    hold: Hold,
}

/// Why a layer's bytes can't be had.
pub(crate) type Unobtainable = Box<dyn std::error::Error + Send + Sync>;

/// Where blobs come from that aren't in the cache.
pub(crate) trait Supplier: Debug + Send + Sync {
    /// Writes a layer's blob; whether it is the right one is seen afterwards.
    fn supply<'a>(&'a self, layer: &'a Layer, to: &'a mut Receiving) -> BoxFuture<'a, Result<(), Unobtainable>>;

    /// For messages: where that is.
    fn describe(&self) -> String;

    /// The repository of this registry that has them, if it is one.
    fn repository_at(&self, _registry: &str) -> Option<String> {
        None
    }
}

/// The way to a blob, and whether it was gone already.
#[derive(Clone, Debug, Default)]
enum Origin {
    /// It was written to the cache by this process, or is no file of the cache.
    #[default]
    Here,
    Elsewhere {
        supplier: Arc<dyn Supplier>,
        obtained: Arc<OnceCell<()>>,
    },
}

impl PartialEq for Origin {
    /// A blob is what its digest says, wherever it comes from.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Origin {}

impl Layer {
    /// A layer whose blob is an uncompressed tar in a file.
    pub fn uncompressed(digest: String, size: u64, path: PathBuf) -> Self {
        let (media_type, diff_id) = (LAYER_TYPE.to_owned(), digest.clone());
        Self { digest, diff_id, media_type, size, path, origin: Origin::Here, hold: Hold::default() }
    }

    /// The layer of a description, whose blob is or will be at a place in the cache.
    pub(super) fn described(described: Described, path: PathBuf) -> Self {
        let Described { digest, diff_id, media_type, size } = described;
        Self { diff_id, media_type: oci_type(&media_type), ..Self::uncompressed(digest, size, path) }
    }

    pub(super) fn held(self, hold: Hold) -> Self {
        Self { hold, ..self }
    }

    pub(in crate::image) fn supplied_by(self, supplier: Arc<dyn Supplier>) -> Self {
        Self { origin: Origin::Elsewhere { supplier, obtained: Arc::default() }, ..self }
    }

    /// The repository of this registry that the blob would come from: there, it
    /// need not be sent.
    pub(crate) fn repository_at(&self, registry: &str) -> Option<String> {
        match &self.origin {
            Origin::Elsewhere { supplier, .. } => supplier.repository_at(registry),
            Origin::Here => None,
        }
    }

    /// The same, now that its blob is in the cache.
    pub(super) fn at_hand(self) -> Self {
        Self { origin: Origin::Here, ..self }
    }

    /// Sees to it that the blob is at [`Layer::path`]: one that the cache has is
    /// read once and made sure of, one that is missing or damaged is got. Does
    /// nothing for a layer that was made just now.
    ///
    /// # Errors
    /// [`ImageError::Unobtainable`] when it is nowhere to be had.
    pub async fn obtain(&self) -> Result<(), ImageError> {
        let Origin::Elsewhere { supplier, obtained } = &self.origin else { return Ok(()) };
        obtained.get_or_try_init(|| self.get(supplier.as_ref())).await.map(|_| ())
    }

    async fn get(&self, supplier: &dyn Supplier) -> Result<(), ImageError> {
        let failed = |source: Unobtainable| ImageError::Unobtainable { digest: self.digest.clone(), from: supplier.describe(), source };
        let (path, size, digest) = (self.path.clone(), self.size, self.digest.clone());
        let checked = tokio::task::spawn_blocking(move || is_whole(&path, size, &digest)).await;
        if checked.is_ok_and(|whole| whole) {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let mut receiving = Receiving::begin(folder).map_err(|error| failed(error.into()))?;
        supplier.supply(self, &mut receiving).await.map_err(failed)?;
        let kept = receiving.keep(&self.digest, self.size, &self.path);
        kept.map_err(|error| failed(error.into()))
    }
}

/// What a manifest and a configuration say of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub(crate) digest: String,
    pub(crate) diff_id: String,
    pub(crate) media_type: String,
    pub(crate) size: u64,
}

/// The specification's name for a layer's type, of which Docker has others for
/// the same bytes.
fn oci_type(media_type: &str) -> String {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => format!("{LAYER_TYPE}+gzip"),
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => format!("{LAYER_TYPE}+zstd"),
        "application/vnd.docker.image.rootfs.diff.tar" => LAYER_TYPE.to_owned(),
        other => other.to_owned(),
    }
}

/// Whether a file is what a digest says.
fn is_whole(path: &Path, size: u64, digest: &str) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.len() == size) && digest_of_file(path).is_ok_and(|found| found == digest)
}
