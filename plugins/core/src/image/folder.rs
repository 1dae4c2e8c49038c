//! A folder outside of the project as a layer, which can be made again from it.

use super::blob::{Described, LAYER_TYPE, Layer, Supplier, Unobtainable};
use super::store::{Receiving, Store};
use super::{ImageError, layer};
use crate::project::FileMapping;
use futures::future::BoxFuture;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The layer of a folder's content, which goes `to` a place in the image. Where its
/// digest and size are known already, the folder isn't read before somebody needs
/// the layer and the cache lacks it.
///
/// # Errors
/// [`ImageError`].
pub(crate) fn layer_of_folder(cache: &Path, folder: &Path, to: &str, known: Option<(String, u64)>) -> Result<Layer, ImageError> {
    let store = Store::open(cache)?;
    let Some((digest, size)) = known else { return store.add(&plan(folder, to)?) };
    let described = Described { diff_id: digest.clone(), digest, media_type: LAYER_TYPE.to_owned(), size };
    store.layer(described, Arc::new(FolderSupplier { folder: folder.to_owned(), to: to.to_owned() }))
}

fn plan(folder: &Path, to: &str) -> Result<layer::Plan, ImageError> {
    layer::of_mapping(folder, &FileMapping { from: ".".into(), to: to.to_owned() })
}

#[derive(Debug)]
struct FolderSupplier {
    folder: PathBuf,
    to: String,
}

impl Supplier for FolderSupplier {
    fn supply<'a>(&'a self, _: &'a Layer, to: &'a mut Receiving) -> BoxFuture<'a, Result<(), Unobtainable>> {
        Box::pin(async move {
            layer::write_tar(&plan(&self.folder, &self.to)?, to)?;
            Ok(())
        })
    }

    fn describe(&self) -> String {
        self.folder.display().to_string()
    }
}
