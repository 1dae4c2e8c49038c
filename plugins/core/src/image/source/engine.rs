//! An image of a Docker engine. Where this process may read the engine's folder, a
//! layer costs a layer; elsewhere the engine exports all of them at once.

use super::{Documents, Memory};
use crate::deliver::DeliverError;
use crate::deliver::engine::EngineImage;
use crate::deliver::package::Package;
use crate::docker::Engine;
use crate::image::base::BaseImage;
use crate::image::{ImageError, Layer, Receiving, Store, Supplier, Unobtainable};
use futures::future::BoxFuture;
use std::path::Path;
use std::sync::Arc;

pub(super) async fn base(cache: &Path, shown: &str, name: &str, wanted: &str) -> Result<BaseImage, ImageError> {
    let failed = |error: DeliverError| match error {
        DeliverError::NoSuchImage { .. } => {
            ImageError::Base { name: shown.to_owned(), reason: "the Docker engine has no such image; `docker pull` gets it".to_owned() }
        }
        error => ImageError::Unreachable { name: shown.to_owned(), source: error.into() },
    };
    let engine = Engine::connect().await.map_err(|error| failed(error.into()))?;
    let image = EngineImage::inspect(&engine, name).await.map_err(failed)?;
    let store = Store::open(cache)?;
    // What an id means never changes: asked once, it needs no layer to be read.
    let memory = Memory::of(cache, &format!("docker {}", image.id()));
    let supplier: Arc<dyn Supplier> = Arc::new(EngineSupplier { image: image.clone() });
    if let Some((config, manifest)) = memory.recall(&store) {
        return Documents { config: &config, manifest: &manifest }.base(&store, shown, wanted, &supplier);
    }
    let package = match image.documents().await {
        Ok(package) => package,
        Err(reason) => {
            tracing::info!(%reason, name, "the base comes out of an export, not out of the engine's folder");
            image.fetch(&vec![true; image.layers()]).await.map_err(failed)?
        }
    };
    memory.keep(&store, &package.config, &package.manifest);
    let base = Documents { config: &package.config, manifest: &package.manifest }.base(&store, shown, wanted, &supplier)?;
    take_exported(&package, &base).await?;
    Ok(base)
}

/// Puts layers that were exported into the cache at once: another export would
/// bring all of them again.
async fn take_exported(package: &Package, base: &BaseImage) -> Result<(), ImageError> {
    let supplier: Arc<dyn Supplier> = Arc::new(PackageSupplier { package: package.clone() });
    for (layer, packed) in base.layers.iter().zip(&package.layers) {
        if packed.content.is_some() {
            layer.clone().supplied_by(Arc::clone(&supplier)).obtain().await?;
        }
    }
    Ok(())
}

#[derive(Debug)]
struct EngineSupplier {
    image: EngineImage,
}

impl Supplier for EngineSupplier {
    fn supply<'a>(&'a self, layer: &'a Layer, to: &'a mut Receiving) -> BoxFuture<'a, Result<(), Unobtainable>> {
        Box::pin(async move {
            let include = self.image.places(&layer.diff_id);
            copy(&self.image.fetch(&include).await?, layer, to)
        })
    }

    fn describe(&self) -> String {
        "the Docker engine".to_owned()
    }
}

#[derive(Debug)]
struct PackageSupplier {
    package: Package,
}

impl Supplier for PackageSupplier {
    fn supply<'a>(&'a self, layer: &'a Layer, to: &'a mut Receiving) -> BoxFuture<'a, Result<(), Unobtainable>> {
        Box::pin(async move { copy(&self.package, layer, to) })
    }

    fn describe(&self) -> String {
        "the Docker engine's export".to_owned()
    }
}

fn copy(package: &Package, layer: &Layer, to: &mut Receiving) -> Result<(), Unobtainable> {
    let packed = package.layers.iter().find(|packed| packed.digest == layer.digest && packed.content.is_some());
    packed.ok_or("it has no such layer any more")?.copy_to(to)?;
    Ok(())
}
