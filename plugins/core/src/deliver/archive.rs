//! Images that someone else put into a file or folder.
//!
//! Two layouts are known: OCI image layout (`index.json` and `blobs/`), and
//! Docker's (`manifest.json`), which newer versions of Docker write side by side.
//! A tar's content is not copied: its headers tell where everything is. What is
//! sent of it is checked before.

use super::DeliverError;
use super::package::{Content, Package, PackedLayer, blob_path};
use crate::image::{self, IMAGE_NAME_ANNOTATION, LAYER_TYPE, REF_NAME_ANNOTATION, reference};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

/// Larger than any manifest or configuration.
const DOCUMENT: u64 = 4 << 20;

/// What is in a file or folder; at least one image.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(super) path: PathBuf,
    /// For each image its names and what there is of it for each platform.
    images: Vec<Vec<Package>>,
}

/// Whether an image without a name is of any use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    Required,
    Optional,
}

impl Archive {
    /// Reads a tar or an OCI layout folder: all documents, but no layer.
    pub(crate) fn open(path: &Path, naming: Naming) -> Result<Self, DeliverError> {
        let files = Files::open(path).map_err(|source| DeliverError::Io { doing: format!("read {}", path.display()), source })?;
        let refused = |reason| DeliverError::NotAnImage { path: path.to_owned(), reason };
        let images = files.and_then(|files| files.images(&fallback_name(path), naming)).map_err(refused)?;
        if images.is_empty() {
            let reason = if naming == Naming::Required { "no image in it has a name" } else { "there is no image in it" };
            return Err(refused(reason.into()));
        }
        Ok(Self { path: path.to_owned(), images })
    }

    /// Each image as it is for nodes of this architecture.
    pub(crate) fn for_architecture(&self, wanted: &str) -> Result<Vec<Package>, DeliverError> {
        let choose = |platforms: &Vec<Package>| {
            platforms.iter().find(|package| package.architecture == wanted).cloned().ok_or_else(|| DeliverError::WrongArchitecture {
                image: self.path.display().to_string(),
                found: platforms.iter().map(|package| package.architecture.as_str()).collect::<Vec<_>>().join(", "),
                wanted: wanted.to_owned(),
            })
        };
        self.images.iter().map(choose).collect()
    }

    /// All images for all platforms.
    pub(super) fn all(&self) -> impl Iterator<Item = &Package> {
        self.images.iter().flatten()
    }
}

/// For images that have a tag for a name: what the file is called.
fn fallback_name(path: &Path) -> String {
    let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
    stem.map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Files by name, in a tar or in a folder.
enum Files {
    Tar { path: PathBuf, file: File, entries: HashMap<String, Place> },
    Folder(PathBuf),
}

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    size: u64,
}

impl Files {
    fn open(path: &Path) -> io::Result<Result<Self, String>> {
        if path.is_dir() {
            return Ok(Ok(Self::Folder(path.to_owned())));
        }
        let mut file = File::open(path)?;
        let mut magic = Vec::new();
        (&mut file).take(4).read_to_end(&mut magic)?;
        match magic[..] {
            [] => return Ok(Err("it is empty".into())),
            [0x1f, 0x8b, ..] => return Ok(Err("it is compressed with gzip; decompress it first (gunzip)".into())),
            [0x28, 0xb5, 0x2f, 0xfd] => return Ok(Err("it is compressed with zstd; decompress it first (unzstd)".into())),
            _ => {}
        }
        io::Seek::rewind(&mut file)?;
        let length = file.metadata()?.len();
        Ok(entries(&file, length).map(|entries| Self::Tar { path: path.to_owned(), file, entries }))
    }

    /// The place of a file's content.
    fn find(&self, name: &str) -> Option<(PathBuf, Place)> {
        match self {
            Self::Tar { path, entries, .. } => entries.get(name).map(|place| (path.clone(), *place)),
            Self::Folder(folder) => {
                // A name comes from a document; it must stay in the folder.
                let inside = Path::new(name).components().all(|component| matches!(component, Component::Normal(_)));
                let path = folder.join(name);
                let metadata = inside.then(|| path.metadata().ok()).flatten().filter(std::fs::Metadata::is_file)?;
                Some((path, Place { offset: 0, size: metadata.len() }))
            }
        }
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        let (path, place) = self.find(name).ok_or_else(|| format!("{name} is missing"))?;
        if place.size > DOCUMENT {
            return Err(format!("{name} is too large for what it should be"));
        }
        let mut bytes = vec![0; usize::try_from(place.size).unwrap_or(0)];
        let read = match self {
            Self::Tar { file, .. } => file.read_exact_at(&mut bytes, place.offset),
            Self::Folder(_) => File::open(path).and_then(|file| file.read_exact_at(&mut bytes, 0)),
        };
        read.map_err(|error| format!("{name} can't be read: {error}"))?;
        if let Some(hex) = name.strip_prefix("blobs/sha256/")
            && image::digest(&bytes) != format!("sha256:{hex}")
        {
            return Err(format!("{name} is damaged"));
        }
        Ok(bytes)
    }

    fn document<T: DeserializeOwned>(&self, name: &str) -> Result<T, String> {
        parse(name, &self.read(name)?)
    }

    fn images(&self, fallback: &str, naming: Naming) -> Result<Vec<Vec<Package>>, String> {
        if self.find("index.json").is_some() && self.find("oci-layout").is_some() {
            self.oci(fallback, naming)
        } else if self.find("manifest.json").is_some() {
            self.docker(naming)
        } else {
            Err("it is neither an OCI nor a Docker image".into())
        }
    }

    fn docker(&self, naming: Naming) -> Result<Vec<Vec<Package>>, String> {
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
            let names = entry.repo_tags.unwrap_or_default();
            if names.is_empty() && naming == Naming::Required {
                continue;
            }
            let config = self.read(&entry.config)?;
            let Config { architecture, rootfs } = parse(&entry.config, &config)?;
            if rootfs.diff_ids.len() != entry.layers.len() {
                return Err(format!("{} names {} layers, manifest.json {}", entry.config, rootfs.diff_ids.len(), entry.layers.len()));
            }
            let mut layers = Vec::with_capacity(entry.layers.len());
            let mut types = Vec::with_capacity(entry.layers.len());
            for (name, diff_id) in entry.layers.iter().zip(rootfs.diff_ids) {
                let (path, place) = self.find(name).ok_or_else(|| format!("layer {name} is missing"))?;
                let content = Some(Content::Part { path, offset: place.offset });
                let mut layer = PackedLayer { digest: diff_id.clone(), size: place.size, diff_id, content };
                // Docker doesn't compress them, others do.
                let compression = compression(&layer).map_err(|error| format!("layer {name} can't be read: {error}"))?;
                if !compression.is_empty() {
                    let mut hash = super::package::Hashing::default();
                    layer.copy_to(&mut hash).map_err(|error| format!("layer {name} can't be read: {error}"))?;
                    layer.digest = hash.digest();
                }
                types.push(format!("{LAYER_TYPE}{compression}"));
                layers.push(layer);
            }
            let described = types.iter().zip(&layers).map(|(kind, layer)| (kind.as_str(), layer.digest.as_str(), layer.size));
            let manifest = image::manifest_of(&config, described);
            images.push(vec![Package {
                names: if naming == Naming::Optional { Vec::new() } else { spell_out(&names)? },
                architecture,
                config,
                manifest,
                layers,
            }]);
        }
        Ok(images)
    }

    fn oci(&self, fallback: &str, naming: Naming) -> Result<Vec<Vec<Package>>, String> {
        let index: Node = self.document("index.json")?;
        let mut images = Vec::new();
        for descriptor in &index.manifests {
            let name = [IMAGE_NAME_ANNOTATION, REF_NAME_ANNOTATION].iter().find_map(|key| descriptor.annotations.get(*key));
            let names = match name.filter(|name| !name.is_empty()) {
                _ if naming == Naming::Optional => Vec::new(),
                Some(name) if name.contains(['/', ':', '@']) => spell_out(std::slice::from_ref(name))?,
                Some(name) => spell_out(&[format!("{fallback}:{name}")])?,
                None => continue,
            };
            let mut platforms = Vec::new();
            self.collect(descriptor, &names, &mut platforms, 0)?;
            images.push(platforms);
        }
        Ok(images)
    }

    /// Follows a descriptor down to the images that are whole.
    fn collect(&self, descriptor: &Descriptor, names: &[String], found: &mut Vec<Package>, depth: usize) -> Result<(), String> {
        let path = path_of(&descriptor.digest)?;
        let manifest = self.read(&path)?;
        let node: Node = parse(&path, &manifest)?;
        if let Some(config) = &node.config {
            let config = self.read(&path_of(&config.digest)?)?;
            let Config { architecture, rootfs } = parse(&path, &config)?;
            if rootfs.diff_ids.len() != node.layers.len() {
                return Err(format!("{path} names {} layers, its configuration {}", node.layers.len(), rootfs.diff_ids.len()));
            }
            let layer = |(layer, diff_id): (&Descriptor, String)| {
                let (path, place) = self.find(&path_of(&layer.digest)?).ok_or_else(|| format!("layer {} is missing", layer.digest))?;
                if place.size != layer.size {
                    return Err(format!("layer {} is damaged", layer.digest));
                }
                let content = Some(Content::Part { path, offset: place.offset });
                Ok(PackedLayer { digest: layer.digest.clone(), size: place.size, diff_id, content })
            };
            let layers = node.layers.iter().zip(rootfs.diff_ids).map(layer).collect::<Result<_, String>>()?;
            found.push(Package { names: names.to_vec(), architecture, config, manifest, layers });
            return Ok(());
        }
        for child in &node.manifests {
            // An index may name images of other platforms that the archive
            // doesn't hold, and attestations, which no platform runs.
            let is_attestation = child.platform.as_ref().is_some_and(|platform| platform.architecture == "unknown");
            if depth < 4 && !is_attestation && self.find(&path_of(&child.digest)?).is_some() {
                self.collect(child, names, found, depth + 1)?;
            }
        }
        if found.is_empty() { Err(format!("{path} is an index without an image")) } else { Ok(()) }
    }
}

/// The regular files of a tar, and links to them.
fn entries(file: &File, length: u64) -> Result<HashMap<String, Place>, String> {
    let broken = |error: io::Error| format!("it is not a whole tar archive: {error}");
    let mut archive = tar::Archive::new(file);
    let (mut entries, mut links) = (HashMap::new(), Vec::new());
    for entry in archive.entries_with_seek().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let name = clean(&entry.path().map_err(broken)?);
        let kind = entry.header().entry_type();
        if let Some(target) = entry.link_name().map_err(broken)? {
            // Docker links layers that are in an image twice.
            let base = if kind.is_hard_link() { Path::new("") } else { Path::new(&name).parent().unwrap_or(Path::new("")) };
            links.push((name.clone(), clean(&base.join(target))));
        } else if kind.is_file() || kind.is_contiguous() {
            let place = Place { offset: entry.raw_file_position(), size: entry.size() };
            if place.offset.checked_add(place.size).is_none_or(|end| end > length) {
                return Err(format!("it ends in the middle of {name}"));
            }
            entries.insert(name, place);
        }
    }
    for (name, target) in links {
        if let Some(place) = entries.get(&target).copied() {
            entries.insert(name, place);
        }
    }
    Ok(entries)
}

/// A path without `.` and `..`.
fn clean(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts.join("/")
}

/// The end of the media type of a layer, by its first bytes.
fn compression(layer: &PackedLayer) -> io::Result<&'static str> {
    let Some(Content::Part { path, offset }) = &layer.content else { return Ok("") };
    let mut magic = [0; 4];
    let length = usize::try_from(layer.size.min(4)).unwrap_or(0);
    File::open(path)?.read_exact_at(&mut magic[..length], *offset)?;
    Ok(match magic {
        [0x1f, 0x8b, ..] => "+gzip",
        [0x28, 0xb5, 0x2f, 0xfd] => "+zstd",
        _ => "",
    })
}

fn spell_out(names: &[String]) -> Result<Vec<String>, String> {
    names
        .iter()
        .map(|name| reference::normalize(name).map_err(|reason| format!("{name:?} is not the name of an image: {reason}")))
        .collect()
}

fn path_of(digest: &str) -> Result<String, String> {
    if reference::is_digest(digest) { Ok(blob_path(digest)) } else { Err(format!("{digest:?} is not a SHA-256 digest")) }
}

fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{name} is not what it should be: {error}"))
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
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
}

#[derive(Deserialize)]
struct Config {
    architecture: String,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}
