//! OCI images made here, without a daemon: layers, configuration, manifest.
//!
//! The same input gives the same bytes, whatever the clock, the umask or the
//! order in which a folder lists its files: every entry is owned by root, has
//! time 0 and one of two modes, and comes in sorted order. Layers stay
//! uncompressed, for they travel to a node on this machine
//! (<https://github.com/opencontainers/image-spec>).

mod archive;
mod base;
mod blob;
mod config;
mod elf;
mod folder;
mod known;
mod layer;
pub mod reference;
mod set;
pub mod source;
mod store;

pub use base::BaseImage;
pub use blob::Layer;
pub use set::ImageSet;
pub use store::{blobs_in_use, remove_blobs};

pub(crate) use archive::{IMAGE_NAME_ANNOTATION, REF_NAME_ANNOTATION, append as append_file, header as tar_header, index};
pub(crate) use blob::{Described, LAYER_TYPE, Supplier, Unobtainable};
pub(crate) use config::{MANIFEST_TYPE, manifest_of};
pub(crate) use folder::layer_of_folder;
pub(crate) use layer::{digest, digest_of_file, render as render_digest};
pub(crate) use set::media_type;
pub(crate) use store::{Receiving, Store, read_size};

use crate::project::ImageSpec;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The registry part of the references of images made here. There is no such
/// registry; nothing is ever pulled from it.
pub const REGISTRY: &str = "devloop.local";

/// So many layers are got at once.
const AT_ONCE: usize = 4;

/// An image whose layers are files on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// `devloop.local/NAME:TAG`; the tag comes from the manifest's digest.
    pub reference: String,
    /// `sha256:...` of the manifest.
    pub manifest_digest: String,
    /// As Go names it: `amd64`, `arm64`, ...
    pub architecture: String,
    /// From the lowest to the uppermost.
    pub layers: Vec<Layer>,
    /// The configuration, JSON.
    pub config: Vec<u8>,
    /// The manifest, JSON.
    pub manifest: Vec<u8>,
}

/// Why an image can't be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A mapped file or folder is not there.
    #[error("{} does not exist", path.display())]
    NotFound {
        /// It.
        path: PathBuf,
    },
    /// A file changed or vanished while it was read. Trying again helps.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Something that an image can't hold, or that leads out of the project.
    #[error("{} can't go into the image: {reason}", path.display())]
    Refused {
        /// It.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Not a program that the image could run.
    #[error("{} can't run in the image: {reason}", path.display())]
    Binary {
        /// The program.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Not an image that another one could be built upon.
    #[error("{name} can't be built upon: {reason}")]
    Base {
        /// As the user names it.
        name: String,
        /// Why.
        reason: String,
    },
    /// The base is not for the processor that the image is for.
    #[error("{name} is for {found}, the image is to run on {wanted}")]
    Platform {
        /// As the user names it.
        name: String,
        /// The architectures that it is for.
        found: String,
        /// The one that is needed.
        wanted: String,
    },
    /// The base is not where it is said to be.
    #[error("could not get {name}")]
    Unreachable {
        /// As the user names it.
        name: String,
        /// Why.
        source: Unobtainable,
    },
    /// A layer's bytes are nowhere to be had.
    #[error("could not get layer {digest} from {from}")]
    Unobtainable {
        /// The layer.
        digest: String,
        /// Where it should be.
        from: String,
        /// Why it isn't.
        source: Unobtainable,
    },
    /// The file system said no.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// `read`, `write`, ...
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl ImageError {
    /// Whether the same call may well succeed now.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Changed { .. })
    }
}

impl From<ImageError> for crate::CommandError {
    fn from(error: ImageError) -> Self {
        let hint = match &error {
            ImageError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => Some("free some disk space"),
            ImageError::Changed { .. } => Some("run the command again"),
            ImageError::Platform { .. } => Some("name a base for that platform in `image.base`, or choose another with --platform"),
            _ => None,
        };
        let command = Self::new("could not make the image").caused_by(error);
        match hint {
            Some(hint) => command.with_hint(hint),
            None => command,
        }
    }
}

/// What an image is made of, beside what its description says.
#[derive(Clone, Copy, Debug)]
pub struct Ingredients<'a> {
    /// The folder that the description's paths are relative to.
    pub root: &'a Path,
    /// The program, where the image has one.
    pub binary: Option<&'a Path>,
    /// What it is built upon; nothing when absent.
    pub base: Option<&'a BaseImage>,
    /// What its program needs and seldom changes: the lowest of its own layers.
    pub dependencies: &'a [Layer],
    /// What the manifest says about the image.
    pub annotations: Option<&'a BTreeMap<String, String>>,
    /// The architecture that it is for, as Go names it, where neither a program nor
    /// a base says so; this machine's when absent.
    pub architecture: Option<&'a str>,
}

impl<'a> Ingredients<'a> {
    /// Files of this folder, and nothing else yet.
    pub fn of(root: &'a Path) -> Self {
        Self { root, binary: None, base: None, dependencies: &[], annotations: None, architecture: None }
    }

    /// The same with this program.
    #[must_use]
    pub fn with_binary(self, binary: &'a Path) -> Self {
        Self { binary: Some(binary), ..self }
    }
}

/// Makes the image of a service: upon the layers of its base and of its
/// dependencies, one layer for each file mapping and one for the binary. Layers are kept in `cache/layers`.
///
/// What changes most often is the uppermost, for whatever lies above a changed
/// layer is sent again: the binary, and of the others the smallest. Where layers
/// overlap, the later one of the project file counts, and they stay in its order.
///
/// The creation time is `SOURCE_DATE_EPOCH`, else 1970.
///
/// # Errors
/// [`ImageError`]; [`ImageError::is_transient`] ones go away.
pub fn assemble(cache: &Path, spec: &ImageSpec, ingredients: &Ingredients<'_>) -> Result<Image, ImageError> {
    let Ingredients { root, binary, base, dependencies, annotations, architecture: wanted } = *ingredients;
    let program = match (binary, &spec.binary) {
        (Some(binary), Some(to)) => Some((binary, to, elf::inspect(binary)?)),
        (Some(binary), None) => {
            let reason = "it is not said where it goes; add `binary: /path` to the image".to_owned();
            return Err(ImageError::Binary { path: binary.to_owned(), reason });
        }
        (None, _) => None,
    };
    let architecture = match (&program, base) {
        (Some((path, _, program)), base) => {
            check_interpreter(path, program, spec, base)?;
            program.architecture.clone()
        }
        (None, Some(base)) => base.architecture.clone(),
        (None, None) => wanted.unwrap_or(local_architecture()).to_owned(),
    };
    if let (Some((path, ..)), Some(wanted)) = (&program, wanted.filter(|wanted| *wanted != architecture)) {
        let reason = format!("it is for {architecture}, the image is for {wanted}");
        return Err(ImageError::Binary { path: (*path).to_owned(), reason });
    }
    if let Some(base) = base.filter(|base| base.architecture != architecture) {
        return Err(ImageError::Platform { name: base.name.clone(), found: base.architecture.clone(), wanted: architecture });
    }
    let store = Store::open(cache)?;
    let mut plans = spec.files.iter().map(|mapping| layer::of_mapping(root, mapping)).collect::<Result<Vec<_>, _>>()?;
    if let Some((path, to, _)) = &program {
        plans.push(layer::of_files(&[(*path, to.as_str())], true)?);
    }
    let places = spec.files.iter().map(|mapping| &mapping.to).chain(program.iter().map(|(_, to, _)| *to));
    let known = |to| known::Known::of(cache, root, &[&spec.name, &architecture, to]);
    let made = plans.iter().zip(places).map(|(plan, to)| known(to).layer(&store, plan));
    let (mut own, written): (Vec<Layer>, Vec<bool>) = made.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    if !layer::overlap(&plans) {
        // By order of magnitude, so that layers of a similar size don't change
        // places with every edit.
        let assets = own.len() - usize::from(program.is_some());
        own[..assets].sort_by_key(|layer| std::cmp::Reverse(layer.size.max(1).ilog2()));
    }
    if written.contains(&true) {
        store.prune();
    }
    let layers: Vec<Layer> = base.map_or(&[][..], |base| &base.layers).iter().chain(dependencies).cloned().chain(own).collect();
    let entrypoint = match &program {
        Some((_, to, _)) if spec.entrypoint.is_empty() => vec![(*to).clone()],
        _ => spec.entrypoint.clone(),
    };
    let settings = config::Settings {
        user: spec.user.clone(),
        entrypoint,
        cmd: spec.cmd.clone(),
        env: spec.env.clone(),
        workdir: spec.workdir.clone(),
        ports: spec.ports.clone(),
        labels: spec.labels.clone(),
        stop_signal: spec.stop_signal.clone(),
        annotations: annotations.cloned().unwrap_or_default(),
        created: config::source_date(std::env::var("SOURCE_DATE_EPOCH").ok().as_deref()).unwrap_or(0),
    };
    let (config, manifest, manifest_digest) = config::documents(&architecture, &settings, base, &layers);
    let reference = reference_of(&spec.name, &manifest_digest);
    Ok(Image { reference, manifest_digest, architecture, layers, config, manifest })
}

/// A program that is linked dynamically needs a loader, which an image built upon
/// nothing doesn't have by itself.
fn check_interpreter(path: &Path, program: &elf::Program, spec: &ImageSpec, base: Option<&BaseImage>) -> Result<(), ImageError> {
    match &program.interpreter {
        Some(interpreter) if base.is_none() && !spec.files.iter().any(|mapping| interpreter.starts_with(&mapping.to)) => {
            let reason = format!("it is linked dynamically and wants {interpreter}, which an image from scratch doesn't have");
            Err(ImageError::Binary { path: path.to_owned(), reason })
        }
        _ => Ok(()),
    }
}

/// Makes an image of nothing but one static binary, run as it is, under a fixed
/// reference.
///
/// # Errors
/// [`ImageError`].
pub fn single_binary(cache: &Path, reference: &str, binary: &Path, entrypoint: &str) -> Result<Image, ImageError> {
    static_binaries(cache, reference, &[(binary, entrypoint)], &[])
}

/// Makes an image of static binaries and any other files, each with its path in it,
/// under a fixed reference. The first binary is run.
///
/// # Errors
/// [`ImageError`].
pub fn static_binaries(cache: &Path, reference: &str, binaries: &[(&Path, &str)], others: &[(&Path, &str)]) -> Result<Image, ImageError> {
    let store = Store::open(cache)?;
    let (mut layers, mut architecture) = (Vec::new(), String::new());
    for (binary, path) in binaries {
        let program = elf::inspect(binary)?;
        let refused = |reason| ImageError::Binary { path: (*binary).to_owned(), reason };
        if let Some(interpreter) = &program.interpreter {
            return Err(refused(format!("it is linked dynamically and wants {interpreter}")));
        }
        if !architecture.is_empty() && architecture != program.architecture {
            return Err(refused(format!("it is for {}, the others are for {architecture}", program.architecture)));
        }
        architecture = program.architecture;
        layers.push(store.add(&layer::of_files(&[(*binary, *path)], true)?)?);
    }
    if !others.is_empty() {
        layers.push(store.add(&layer::of_files(others, true)?)?);
    }
    // See `assemble`: what changes less often is mostly the larger.
    layers.sort_by_key(|layer| std::cmp::Reverse(layer.size));
    let entrypoint = binaries.iter().take(1).map(|(_, path)| (*path).to_owned()).collect();
    let settings = config::Settings { entrypoint, ..config::Settings::default() };
    let (config, manifest, manifest_digest) = config::documents(&architecture, &settings, None, &layers);
    Ok(Image { reference: reference.to_owned(), manifest_digest, architecture, layers, config, manifest })
}

/// `devloop.local/NAME:TAG`, with the tag that tells what is in it.
fn reference_of(name: &str, manifest_digest: &str) -> String {
    format!("{REGISTRY}/{name}:{}", tag(manifest_digest))
}

/// What a compiled program or library is for, as Go names it; `None` for anything else.
pub(crate) fn architecture_of_program(path: &Path) -> Option<String> {
    elf::inspect(path).ok().map(|program| program.architecture)
}

/// This machine's, as Go names it.
pub fn local_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

impl Image {
    /// `sha256:...` of the configuration.
    pub fn config_digest(&self) -> String {
        digest(&self.config)
    }

    /// For each layer the id of the stack up to it, under which a node knows the
    /// unpacked files (OCI image specification, "Layer ChainID").
    pub fn chain_ids(&self) -> Vec<String> {
        chain_ids(self.layers.iter().map(|layer| layer.diff_id.as_str()))
    }

    /// Sees to it that the layers are at hand whose place in `include` is true;
    /// all when `include` is shorter than the layers.
    ///
    /// # Errors
    /// [`ImageError::Unobtainable`].
    pub async fn obtain(&self, include: &[bool]) -> Result<(), ImageError> {
        let wanted = self.layers.iter().enumerate().filter(|(index, _)| include.get(*index) != Some(&false));
        let obtained: Vec<BoxFuture<'_, Result<(), ImageError>>> = wanted.map(|(_, layer)| layer.obtain().boxed()).collect();
        futures::stream::iter(obtained).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Writes a tar in OCI image layout, with the layers whose place in
    /// `include` is true; all when `include` is shorter than the layers. They are
    /// at hand, see [`Image::obtain`]. The manifest names all of them in any case.
    ///
    /// # Errors
    /// When a layer can't be read or `out` can't be written.
    pub fn write_archive(&self, include: &[bool], out: impl io::Write) -> io::Result<()> {
        archive::write(self, include, out)
    }
}

/// The ids of the stacks of layers, from the digests of the uncompressed layers.
pub(crate) fn chain_ids<'a>(diff_ids: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => diff_id.to_owned(),
            Some(below) => digest(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(id);
    }
    chain
}

/// Enough of a digest to tell images apart, in a tag's alphabet.
fn tag(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    &hex[..hex.len().min(16)]
}

#[cfg(test)]
mod tests;
