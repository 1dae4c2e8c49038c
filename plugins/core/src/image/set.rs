//! One name for the images of several platforms: an image index
//! (<https://github.com/opencontainers/image-spec/blob/main/image-index.md>). An image
//! for one platform needs none.

use super::{Image, digest, reference_of};
use serde_json::{Value, json};

/// The type of an index.
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// An image for each of some platforms, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSet {
    /// What all of them are called, see [`Image::reference`].
    pub reference: String,
    /// `sha256:...` of [`ImageSet::document`].
    pub digest: String,
    images: Vec<Image>,
    index: Option<Vec<u8>>,
}

impl From<Image> for ImageSet {
    fn from(image: Image) -> Self {
        Self { reference: image.reference.clone(), digest: image.manifest_digest.clone(), images: vec![image], index: None }
    }
}

impl ImageSet {
    /// Images of one name, for different platforms; `None` of no image.
    pub fn of(name: &str, mut images: Vec<Image>) -> Option<Self> {
        if images.len() < 2 {
            return images.pop().map(Self::from);
        }
        let index = index(&images);
        let digest = digest(&index);
        let set = Self { reference: String::new(), digest, images, index: Some(index) };
        let reference = reference_of(name, &set.digest);
        Some(set.named(&reference))
    }

    /// The same under another name.
    #[must_use]
    pub fn named(self, reference: &str) -> Self {
        let images = self.images.into_iter().map(|image| Image { reference: reference.to_owned(), ..image }).collect();
        Self { reference: reference.to_owned(), images, ..self }
    }

    /// The images, in the order of the platforms.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// The image for an architecture, as Go names it.
    pub fn for_architecture(&self, wanted: &str) -> Option<&Image> {
        self.images.iter().find(|image| image.architecture == wanted)
    }

    /// Whether there is an index: not for an image for one platform.
    pub fn has_index(&self) -> bool {
        self.index.is_some()
    }

    /// The index, or the manifest of the only image.
    pub fn document(&self) -> &[u8] {
        self.index.as_deref().or_else(|| self.images.first().map(|image| image.manifest.as_slice())).unwrap_or_default()
    }

    /// The size of all layers, in bytes.
    pub fn size(&self) -> u64 {
        self.images.iter().flat_map(|image| &image.layers).map(|layer| layer.size).sum()
    }
}

fn index(images: &[Image]) -> Vec<u8> {
    let manifests: Vec<Value> = images
        .iter()
        .map(|image| {
            let mut platform = json!({ "architecture": image.architecture, "os": "linux" });
            // Such as `v8` of arm64, where the base says so.
            let config: Value = serde_json::from_slice(&image.config).unwrap_or_default();
            if let Some(variant) = config["variant"].as_str() {
                platform["variant"] = variant.into();
            }
            let media_type = media_type(&image.manifest);
            json!({ "mediaType": media_type, "digest": image.manifest_digest, "size": image.manifest.len(), "platform": platform })
        })
        .collect();
    json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests }).to_string().into_bytes()
}

/// What a manifest or an index says it is.
pub(crate) fn media_type(document: &[u8]) -> String {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    document["mediaType"].as_str().unwrap_or(super::config::MANIFEST_TYPE).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Ingredients, assemble};
    use crate::project::{FileMapping, ImageSpec};

    #[test]
    fn an_index_names_an_image_for_each_platform() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "x").unwrap();
        let spec = ImageSpec { name: "web".into(), files: vec![FileMapping { from: "a".into(), to: "/a".into() }], ..ImageSpec::default() };
        let made = |architecture| {
            let ingredients = Ingredients { architecture: Some(architecture), ..Ingredients::of(folder.path()) };
            assemble(folder.path(), &spec, &ingredients).unwrap()
        };
        assert_eq!(ImageSet::of("web", Vec::new()), None);
        let one = ImageSet::of("web", vec![made("amd64")]).unwrap();
        assert_eq!((one.has_index(), one.document()), (false, one.images()[0].manifest.as_slice()));
        let both = ImageSet::of("web", vec![made("amd64"), made("arm64")]).unwrap();
        assert_eq!(both.digest, digest(both.document()));
        assert!(both.images().iter().all(|image| image.reference == both.reference) && both.reference != one.reference);
        assert_eq!(both.for_architecture("arm64").unwrap().manifest_digest, both.images()[1].manifest_digest);
        insta::assert_json_snapshot!(serde_json::from_slice::<Value>(both.document()).unwrap(), @r#"
        {
          "manifests": [
            {
              "digest": "sha256:63d2c3ef0363da50541d47b696af9bdd5306adce0a83b8d8a9d7488953acc412",
              "mediaType": "application/vnd.oci.image.manifest.v1+json",
              "platform": {
                "architecture": "amd64",
                "os": "linux"
              },
              "size": 397
            },
            {
              "digest": "sha256:c6bad06da505c7b48dc880c25a07277473e297d69e7e69d30c47b4a2ebb6f14e",
              "mediaType": "application/vnd.oci.image.manifest.v1+json",
              "platform": {
                "architecture": "arm64",
                "os": "linux"
              },
              "size": 397
            }
          ],
          "mediaType": "application/vnd.oci.image.index.v1+json",
          "schemaVersion": 2
        }
        "#);
    }
}
