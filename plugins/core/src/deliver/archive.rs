//! What is in an image archive that someone else made.
//!
//! Two layouts are known: OCI image layout (`index.json` and `blobs/`), and
//! Docker's (`manifest.json`), which newer versions of Docker write side by side.

use super::DeliverError;
use crate::image::{IMAGE_NAME_ANNOTATION, REF_NAME_ANNOTATION};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// What an archive holds; at least one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) images: Vec<ArchivedImage>,
}

/// One image of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArchivedImage {
    /// Its whole reference, or only a tag.
    pub(super) name: String,
    /// As Go names them; several for a multi-platform image.
    pub(super) architectures: Vec<String>,
}

impl Summary {
    /// Whether an image has only a tag for a name.
    pub(super) fn needs_base_name(&self) -> bool {
        self.images.iter().any(|image| !image.name.contains(['/', ':', '@']))
    }
}

/// Reads an archive through and checks that it is whole.
pub(super) fn inspect(path: &Path) -> Result<Summary, DeliverError> {
    let file = File::open(path).map_err(|source| DeliverError::Io { doing: format!("read {}", path.display()), source })?;
    let content = Content::read(BufReader::with_capacity(1 << 18, file));
    content.and_then(|content| content.summarize()).map_err(|reason| DeliverError::NotAnImage { path: path.to_owned(), reason })
}

/// The documents of an archive, and the names and digests of the rest.
#[derive(Default)]
struct Content {
    names: HashSet<String>,
    documents: HashMap<String, Vec<u8>>,
}

impl Content {
    fn read(mut input: impl Read) -> Result<Self, String> {
        // Larger than any manifest or configuration.
        const DOCUMENT: u64 = 4 << 20;
        let mut magic = [0; 4];
        input.read_exact(&mut magic).map_err(|_| "it is empty".to_owned())?;
        match magic {
            [0x1f, 0x8b, ..] => return Err("it is compressed with gzip; decompress it first (gunzip)".into()),
            [0x28, 0xb5, 0x2f, 0xfd] => return Err("it is compressed with zstd; decompress it first (unzstd)".into()),
            _ => {}
        }
        let mut content = Self::default();
        let mut archive = tar::Archive::new(magic.as_slice().chain(input));
        let broken = |error: io::Error| format!("it is not a whole tar archive: {error}");
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            let name = entry.path().map_err(broken)?.to_string_lossy().trim_start_matches("./").to_owned();
            let size = entry.size();
            let digest = if size <= DOCUMENT {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(broken)?;
                if bytes.len() as u64 != size {
                    return Err(format!("it ends in the middle of {name}"));
                }
                let digest = Sha256::digest(&bytes);
                if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| b"{[".contains(byte)) {
                    content.documents.insert(name.clone(), bytes);
                }
                digest
            } else {
                let mut hash = Hash(Sha256::new());
                if io::copy(&mut entry, &mut hash).map_err(broken)? != size {
                    return Err(format!("it ends in the middle of {name}"));
                }
                hash.0.finalize()
            };
            if let Some(hex) = name.strip_prefix("blobs/sha256/")
                && !hex.is_empty()
                && format!("{digest:x}") != hex
            {
                return Err(format!("{name} is damaged"));
            }
            content.names.insert(name);
        }
        Ok(content)
    }

    fn summarize(&self) -> Result<Summary, String> {
        let images = if self.names.contains("index.json") && self.names.contains("oci-layout") {
            self.oci()?
        } else if self.names.contains("manifest.json") {
            self.docker()?
        } else {
            return Err("it is neither an OCI nor a Docker image archive".into());
        };
        if images.is_empty() {
            return Err("no image in it has a name".into());
        }
        Ok(Summary { images })
    }

    fn docker(&self) -> Result<Vec<ArchivedImage>, String> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry {
            config: String,
            #[serde(default)]
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let mut images = Vec::new();
        for entry in self.document::<Vec<Entry>>("manifest.json")? {
            if let Some(missing) = entry.layers.iter().find(|layer| !self.names.contains(*layer)) {
                return Err(format!("layer {missing} is missing"));
            }
            let architectures = vec![self.document::<Platform>(&entry.config)?.architecture];
            let names = entry.repo_tags.unwrap_or_default();
            images.extend(names.into_iter().map(|name| ArchivedImage { name, architectures: architectures.clone() }));
        }
        Ok(images)
    }

    fn oci(&self) -> Result<Vec<ArchivedImage>, String> {
        let index: Node = self.document("index.json")?;
        let mut images = Vec::new();
        for descriptor in &index.manifests {
            let name = [IMAGE_NAME_ANNOTATION, REF_NAME_ANNOTATION].iter().find_map(|key| descriptor.annotations.get(*key));
            let Some(name) = name.filter(|name| !name.is_empty()) else { continue };
            let mut architectures = Vec::new();
            self.collect_architectures(descriptor, &mut architectures, 0)?;
            images.push(ArchivedImage { name: name.clone(), architectures });
        }
        Ok(images)
    }

    /// Follows a descriptor down to the images that are whole.
    fn collect_architectures(&self, descriptor: &Descriptor, found: &mut Vec<String>, depth: usize) -> Result<(), String> {
        let path = blob_path(&descriptor.digest);
        let node: Node = self.document(&path)?;
        if let Some(config) = &node.config {
            if let Some(missing) = node.layers.iter().find(|layer| !self.names.contains(&blob_path(&layer.digest))) {
                return Err(format!("layer {} is missing", missing.digest));
            }
            found.push(self.document::<Platform>(&blob_path(&config.digest))?.architecture);
            return Ok(());
        }
        for child in &node.manifests {
            // An index may name images of other platforms that the archive
            // doesn't hold, and attestations, which no platform runs.
            let is_attestation = child.platform.as_ref().is_some_and(|platform| platform.architecture == "unknown");
            if depth < 4 && !is_attestation && self.names.contains(&blob_path(&child.digest)) {
                self.collect_architectures(child, found, depth + 1)?;
            }
        }
        if found.is_empty() { Err(format!("{path} is an index without an image")) } else { Ok(()) }
    }

    fn document<T: DeserializeOwned>(&self, name: &str) -> Result<T, String> {
        let bytes = self.documents.get(name).ok_or_else(|| format!("{name} is missing"))?;
        serde_json::from_slice(bytes).map_err(|error| format!("{name} is not what it should be: {error}"))
    }
}

/// An OCI index (with manifests) or manifest (with config and layers).
#[derive(Deserialize)]
struct Node {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

struct Hash(Sha256);

impl io::Write for Hash {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.update(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
