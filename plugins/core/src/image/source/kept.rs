//! Images that were taken in before, and are in the cache.

use super::Documents;
use crate::image::{Image, Layer, Receiving, Store, Supplier, Unobtainable, digest, reference_of};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What an image is found by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// `sha256:...` of the configuration.
    config: String,
    /// `sha256:...` of the manifest.
    manifest: String,
}

/// Keeps an image's documents beside its layers.
pub fn remember(cache: &Path, image: &Image) -> Remembered {
    if let Ok(store) = Store::open(cache) {
        store.keep_document(&image.config);
        store.keep_document(&image.manifest);
    }
    Remembered { config: digest(&image.config), manifest: image.manifest_digest.clone() }
}

/// Finds an image again; `None` where the cache has lost some of it. Layers are
/// made sure of when their bytes are needed; for one that is damaged the `record`
/// is removed, so that the next run makes the image anew.
pub fn recall(cache: &Path, name: &str, remembered: &Remembered, architecture: &str, record: &Path) -> Option<Image> {
    let store = Store::open(cache).ok()?;
    let (config, manifest) = (store.document(&remembered.config)?, store.document(&remembered.manifest)?);
    let supplier: Arc<dyn Supplier> = Arc::new(Lost { record: record.to_owned() });
    let base = Documents { config: &config, manifest: &manifest }.base(&store, name, architecture, &supplier).ok()?;
    let is_there = |layer: &Layer| std::fs::metadata(&layer.path).is_ok_and(|metadata| metadata.len() == layer.size);
    if !base.layers.iter().all(is_there) {
        return None;
    }
    Some(Image {
        reference: reference_of(name, &remembered.manifest),
        manifest_digest: remembered.manifest.clone(),
        architecture: base.architecture,
        layers: base.layers,
        config,
        manifest,
    })
}

/// Nobody has the layers but the cache.
#[derive(Debug)]
struct Lost {
    record: PathBuf,
}

impl Supplier for Lost {
    fn supply<'a>(&'a self, _: &'a Layer, _: &'a mut Receiving) -> BoxFuture<'a, Result<(), Unobtainable>> {
        Box::pin(async move {
            crate::files::remove_all(&self.record)?;
            Err("it is damaged; run the command again, and the image is made anew".into())
        })
    }

    fn describe(&self) -> String {
        "the cache".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Ingredients, assemble};
    use crate::project::{FileMapping, ImageSpec};

    #[tokio::test]
    async fn what_was_kept_is_found_unless_some_of_it_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::write(root.join("a"), "content").unwrap();
        let files = vec![FileMapping { from: "a".into(), to: "/a".into() }];
        let spec = ImageSpec { name: "web".into(), files, ..ImageSpec::default() };
        let image = assemble(root, &spec, &Ingredients::of(root)).unwrap();
        let remembered = remember(root, &image);
        let record = root.join("record");
        std::fs::write(&record, "").unwrap();
        let find = || recall(root, "web", &remembered, &image.architecture, &record);
        let found = find().unwrap();
        assert_eq!((&found.reference, &found.layers), (&image.reference, &image.layers));
        found.obtain(&[]).await.unwrap();
        // Damaged, and as long as before.
        std::fs::write(&image.layers[0].path, vec![0; usize::try_from(image.layers[0].size).unwrap()]).unwrap();
        assert!(find().unwrap().obtain(&[]).await.is_err());
        assert!(!record.exists());
        std::fs::remove_file(&image.layers[0].path).unwrap();
        assert!(find().is_none());
    }
}
