//! Where the images come from that nodes lack.

use super::DeliverError;
use super::archive::Archive;
use super::engine::EngineImage;
use super::package::{Identity, Package};
use crate::image::Image;

/// A source of images, whose documents are known and whose layers may have to
/// be got.
#[derive(Debug)]
pub(super) enum Supply {
    /// An image made here.
    Made { image: Box<Image>, package: Package },
    /// A tar or a folder.
    Archive(Archive),
    /// A Docker engine.
    Engine(EngineImage),
}

impl Supply {
    pub(super) fn made(image: &Image) -> Self {
        Self::Made { image: Box::new(image.clone()), package: Package::of_image(image) }
    }

    /// The images for nodes of an architecture; for all, where none is given.
    pub(super) fn identities(&self, architecture: Option<&str>) -> Result<Vec<Identity>, DeliverError> {
        let (own, one) = match self {
            Self::Archive(archive) => {
                return match architecture {
                    Some(architecture) => Ok(archive.for_architecture(architecture)?.iter().map(Package::identity).collect()),
                    None => Ok(archive.all().map(Package::identity).collect()),
                };
            }
            Self::Made { package, .. } => (&package.architecture, package.identity()),
            Self::Engine(image) => (&image.architecture, image.identity()),
        };
        match architecture {
            Some(wanted) if wanted != own => {
                let image = one.names.join(", ");
                Err(DeliverError::WrongArchitecture { image, found: own.clone(), wanted: wanted.to_owned() })
            }
            _ => Ok(vec![one]),
        }
    }

    /// An image, by its place among the identities, with the content of these
    /// layers, which is what their digests say.
    pub(super) async fn fetch(&self, architecture: &str, index: usize, include: &[bool]) -> Result<Package, DeliverError> {
        match self {
            Self::Made { image, package } => {
                let obtained = image.obtain(include).await;
                obtained.map_err(|source| DeliverError::Base { image: image.reference.clone(), source })?;
                Ok(package.clone())
            }
            Self::Engine(image) => image.fetch(include).await,
            Self::Archive(archive) => {
                let packages = archive.for_architecture(architecture)?;
                let package = packages.into_iter().nth(index);
                let path = archive.path.clone();
                let gone = || DeliverError::NotAnImage { path: path.clone(), reason: "it changed while it was read".into() };
                let (package, include) = (package.ok_or_else(gone)?, include.to_owned());
                let checked = tokio::task::spawn_blocking(move || package.verify(&include).map(|()| package)).await;
                checked.map_err(|_| gone())?.map_err(|broken| DeliverError::NotAnImage {
                    path: path.clone(),
                    reason: match broken.source {
                        Some(source) => format!("layer {} can't be read: {source}", broken.digest),
                        None => format!("layer {} is damaged", broken.digest),
                    },
                })
            }
        }
    }
}
