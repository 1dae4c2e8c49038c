//! Where the images come from that nodes lack.

use super::DeliverError;
use super::archive::Archive;
use super::engine::EngineImage;
use super::package::{Identity, Package};
use crate::image::{Image, ImageSet};

/// A source of images, whose documents are known and whose layers may have to
/// be got.
#[derive(Debug)]
pub(super) enum Supply {
    /// An image made here, for each of some platforms.
    Made(Vec<(Image, Package)>),
    /// A tar or a folder.
    Archive(Archive),
    /// A Docker engine.
    Engine(Box<EngineImage>),
}

impl Supply {
    pub(super) fn made(set: &ImageSet) -> Self {
        Self::Made(set.images().iter().map(|image| (image.clone(), Package::of_image(image))).collect())
    }

    /// The images for nodes of an architecture; for all, where none is given.
    pub(super) fn identities(&self, architecture: Option<&str>) -> Result<Vec<Identity>, DeliverError> {
        let all: Vec<(&str, Identity)> = match self {
            Self::Archive(archive) => {
                return match architecture {
                    Some(architecture) => Ok(archive.for_architecture(architecture)?.iter().map(Package::identity).collect()),
                    None => Ok(archive.all().map(Package::identity).collect()),
                };
            }
            Self::Made(made) => made.iter().map(|(_, package)| (package.architecture.as_str(), package.identity())).collect(),
            Self::Engine(image) => vec![(&image.architecture, image.identity())],
        };
        let Some(wanted) = architecture else { return Ok(all.into_iter().map(|(_, identity)| identity).collect()) };
        if let Some((_, own)) = all.iter().find(|(own, _)| *own == wanted) {
            return Ok(vec![own.clone()]);
        }
        Err(wrong_architecture(all.iter().map(|(own, identity)| (*own, identity.names.join(", "))), wanted))
    }

    /// An image, by its place among the identities, with the content of these
    /// layers, which is what their digests say.
    pub(super) async fn fetch(&self, architecture: &str, index: usize, include: &[bool]) -> Result<Package, DeliverError> {
        match self {
            Self::Made(made) => {
                let Some((image, package)) = made.iter().find(|(image, _)| image.architecture == architecture) else {
                    return Err(wrong_architecture(
                        made.iter().map(|(image, _)| (image.architecture.as_str(), image.reference.clone())),
                        architecture,
                    ));
                };
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

/// `images` are what there is: architectures and names.
fn wrong_architecture<'a>(images: impl Iterator<Item = (&'a str, String)>, wanted: &str) -> DeliverError {
    let (found, mut names): (Vec<&str>, Vec<String>) = images.unzip();
    names.dedup();
    DeliverError::WrongArchitecture { image: names.join(", "), found: found.join(", "), wanted: wanted.to_owned() }
}
