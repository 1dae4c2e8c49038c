//! An image of a registry.

use super::{Documents, choose, config_of};
use crate::image::base::BaseImage;
use crate::image::{ImageError, Layer, Receiving, Store, Supplier, Unobtainable, reference};
use crate::registry::{Access, RegistryError, Repository};
use futures::future::BoxFuture;
use std::path::Path;
use std::sync::Arc;

pub(super) async fn base(cache: &Path, name: &str, access: &Access, wanted: &str) -> Result<BaseImage, ImageError> {
    let failed = |error: RegistryError| match error {
        RegistryError::Refused { status: 404, registry, .. } => {
            ImageError::Base { name: name.to_owned(), reason: format!("registry {registry} has no such image") }
        }
        error => ImageError::Unreachable { name: name.to_owned(), source: error.into() },
    };
    let parts = reference::parts(name);
    let repository = Repository::reached(parts.registry, parts.path, access).map_err(failed)?;
    let store = Store::open(cache)?;
    let digest = match parts.digest {
        Some(digest) => digest.to_owned(),
        None => repository.digest_of(parts.tag).await.map_err(failed)?,
    };
    let mut manifest = manifest(&store, &repository, &digest).await.map_err(failed)?;
    if let Some(chosen) = choose(name, &manifest, wanted)? {
        manifest = self::manifest(&store, &repository, &chosen).await.map_err(failed)?;
    }
    let of = config_of(name, &manifest)?;
    let config = match store.document(&of) {
        Some(config) => config,
        None => {
            let mut config = Vec::new();
            repository.blob(&of, &mut config).await.map_err(failed)?;
            if crate::image::digest(&config) != of {
                return Err(ImageError::Base { name: name.to_owned(), reason: "its configuration is damaged".to_owned() });
            }
            store.keep_document(&config);
            config
        }
    };
    let supplier: Arc<dyn Supplier> = Arc::new(RegistrySupplier { repository });
    Documents { config: &config, manifest: &manifest }.base(&store, name, wanted, &supplier)
}

async fn manifest(store: &Store, repository: &Repository, digest: &str) -> Result<Vec<u8>, RegistryError> {
    if let Some(manifest) = store.document(digest) {
        return Ok(manifest);
    }
    let manifest = repository.manifest(digest).await?;
    store.keep_document(&manifest);
    Ok(manifest)
}

#[derive(Debug)]
struct RegistrySupplier {
    repository: Repository,
}

impl Supplier for RegistrySupplier {
    fn supply<'a>(&'a self, layer: &'a Layer, to: &'a mut Receiving) -> BoxFuture<'a, Result<(), Unobtainable>> {
        Box::pin(async move { Ok(self.repository.blob(&layer.digest, to).await?) })
    }

    fn describe(&self) -> String {
        self.repository.describe()
    }

    fn repository_at(&self, registry: &str) -> Option<String> {
        (self.repository.registry() == registry).then(|| self.repository.name().to_owned())
    }
}
