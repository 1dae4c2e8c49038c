//! An OCI layout, as a folder or as a tar, or what `docker save` writes.

use super::Documents;
use crate::deliver::DeliverError;
use crate::deliver::archive::{Archive, Naming};
use crate::deliver::package::{Package, PackedLayer};
use crate::image::base::BaseImage;
use crate::image::config::{MANIFEST_TYPE, described, manifest_of};
use crate::image::{Image, ImageError, Layer, Receiving, Store, Supplier, Unobtainable, digest, reference_of};
use futures::future::BoxFuture;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Takes in an image that another builder has left in a file, as the image called
/// `name` for `architecture`: its configuration stays as it is, its layers are
/// made sure of and kept in the cache. The file is not needed afterwards.
///
/// # Errors
/// [`ImageError`].
pub async fn import(cache: &Path, name: &str, path: &Path, architecture: &str) -> Result<Image, ImageError> {
    let shown = path.display().to_string();
    let package = open(&shown, path, architecture).await?;
    let store = Store::open(cache)?;
    let documents = Documents { config: &package.config, manifest: &package.manifest };
    let is_oci = documents.manifest(&shown)?.media_type.as_deref() == Some(MANIFEST_TYPE);
    let base = documents.base(&store, &shown, architecture, &supplier(path, &package))?;
    // Docker's manifest has other names for the same things.
    let manifest = if is_oci { package.manifest.clone() } else { manifest_of(&package.config, described(&base.layers)) };
    let manifest_digest = digest(&manifest);
    let image = Image {
        reference: reference_of(name, &manifest_digest),
        manifest_digest,
        architecture: base.architecture,
        layers: base.layers,
        config: package.config,
        manifest,
    };
    image.obtain(&[]).await?;
    store.prune();
    Ok(Image { layers: image.layers.into_iter().map(Layer::at_hand).collect(), ..image })
}

pub(super) async fn base(cache: &Path, name: &str, path: &Path, wanted: &str) -> Result<BaseImage, ImageError> {
    let package = open(name, path, wanted).await?;
    let store = Store::open(cache)?;
    let documents = Documents { config: &package.config, manifest: &package.manifest };
    documents.base(&store, name, wanted, &supplier(path, &package))
}

/// The one image for a platform that is there.
async fn open(name: &str, path: &Path, wanted: &str) -> Result<Package, ImageError> {
    let to_open = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || Archive::open(&to_open, Naming::Optional)).await;
    let opened = opened.map_err(|error| ImageError::Unreachable { name: name.to_owned(), source: error.into() })?;
    let mut packages = opened.and_then(|archive| archive.for_architecture(wanted)).map_err(|error| match error {
        DeliverError::NotAnImage { reason, .. } => ImageError::Base { name: name.to_owned(), reason },
        DeliverError::WrongArchitecture { found, wanted, .. } => ImageError::Platform { name: name.to_owned(), found, wanted },
        DeliverError::Io { source, .. } => ImageError::Io { doing: "read", path: path.to_owned(), source },
        other => ImageError::Unreachable { name: name.to_owned(), source: other.into() },
    })?;
    match packages.pop() {
        Some(package) if packages.iter().all(|other| other.manifest == package.manifest) => Ok(package),
        _ => Err(ImageError::Base { name: name.to_owned(), reason: "it holds several images".to_owned() }),
    }
}

fn supplier(path: &Path, package: &Package) -> Arc<dyn Supplier> {
    Arc::new(FileSupplier { path: path.to_owned(), layers: package.layers.clone() })
}

/// Layers that are parts of a file.
#[derive(Debug)]
struct FileSupplier {
    path: PathBuf,
    layers: Vec<PackedLayer>,
}

impl Supplier for FileSupplier {
    fn supply<'a>(&'a self, layer: &'a Layer, to: &'a mut Receiving) -> BoxFuture<'a, Result<(), Unobtainable>> {
        Box::pin(async move {
            let packed = self.layers.iter().find(|packed| packed.digest == layer.digest).ok_or("it is not there")?;
            // In a disk's time, on a thread of the runtime's: others go on.
            packed.copy_to(to)?;
            Ok(())
        })
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}
