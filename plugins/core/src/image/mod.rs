//! OCI images made here, without a daemon: layers, configuration, manifest.
//!
//! The same input gives the same bytes, whatever the clock, the umask or the
//! order in which a folder lists its files: every entry is owned by root, has
//! time 0 and one of two modes, and comes in sorted order. Layers stay
//! uncompressed, for they travel to a node on this machine
//! (<https://github.com/opencontainers/image-spec>).

mod archive;
mod config;
mod elf;
mod layer;
pub mod reference;

pub(crate) use archive::{IMAGE_NAME_ANNOTATION, REF_NAME_ANNOTATION, append as append_file, header as tar_header, index};
pub(crate) use config::{LAYER_TYPE, manifest_of};
pub(crate) use layer::{digest, render as render_digest};

use crate::project::ImageSpec;
use std::io;
use std::path::{Path, PathBuf};

/// The registry part of the references of images made here. There is no such
/// registry; nothing is ever pulled from it.
pub const REGISTRY: &str = "devloop.local";

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

/// One layer: an uncompressed tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// `sha256:...` of the tar; blob digest and diff id are the same.
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// The tar, in the cache.
    pub path: PathBuf,
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
            _ => None,
        };
        let command = Self::new("could not make the image").caused_by(error);
        match hint {
            Some(hint) => command.with_hint(hint),
            None => command,
        }
    }
}

/// Makes the image of a service: one layer for each file mapping and one for the
/// binary. Layers are kept in `cache/layers`.
///
/// The largest layer is the lowest: whatever lies above a changed layer is sent
/// again, and that had better be small. Where layers overlap, the later one of
/// the project file counts, and they stay in its order with the binary on top.
///
/// The creation time is `SOURCE_DATE_EPOCH`, else 1970.
///
/// # Errors
/// [`ImageError`]; [`ImageError::is_transient`] ones go away.
pub fn assemble(cache: &Path, spec: &ImageSpec, root: &Path, binary: &Path) -> Result<Image, ImageError> {
    let program = elf::inspect(binary)?;
    if let Some(interpreter) = &program.interpreter
        && !spec.files.iter().any(|mapping| interpreter.starts_with(&mapping.to))
    {
        let reason = format!("it is linked dynamically and wants {interpreter}, which an image from scratch doesn't have");
        return Err(ImageError::Binary { path: binary.to_owned(), reason });
    }
    let store = layer::Store::open(cache)?;
    let mut plans = Vec::with_capacity(spec.files.len() + 1);
    for mapping in &spec.files {
        plans.push(layer::of_mapping(root, mapping)?);
    }
    plans.push(layer::of_file(binary, &spec.binary, true)?);
    let mut layers = plans.iter().map(|plan| store.add(plan)).collect::<Result<Vec<_>, _>>()?;
    if !layer::overlap(&plans) {
        // By order of magnitude, so that layers of a similar size don't change
        // places with every edit.
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.size.max(1).ilog2()));
    }
    store.prune(&layers);
    let entrypoint = if spec.entrypoint.is_empty() { vec![spec.binary.clone()] } else { spec.entrypoint.clone() };
    let settings = config::Settings {
        user: spec.user.clone(),
        entrypoint,
        cmd: spec.cmd.clone(),
        env: spec.env.clone(),
        workdir: spec.workdir.clone(),
        ports: spec.ports.clone(),
        created: config::source_date(std::env::var("SOURCE_DATE_EPOCH").ok().as_deref()),
    };
    let (config, manifest, manifest_digest) = config::documents(&program.architecture, &settings, &layers);
    let reference = format!("{REGISTRY}/{}:{}", spec.name, tag(&manifest_digest));
    Ok(Image { reference, manifest_digest, architecture: program.architecture, layers, config, manifest })
}

/// Makes an image of nothing but one static binary, run as it is, under a fixed
/// reference.
///
/// # Errors
/// [`ImageError`].
pub fn single_binary(cache: &Path, reference: &str, binary: &Path, entrypoint: &str) -> Result<Image, ImageError> {
    static_binaries(cache, reference, &[(binary, entrypoint)])
}

/// Makes an image of nothing but static binaries, each with its path in it, under
/// a fixed reference. The first one is run.
///
/// # Errors
/// [`ImageError`].
pub fn static_binaries(cache: &Path, reference: &str, binaries: &[(&Path, &str)]) -> Result<Image, ImageError> {
    let store = layer::Store::open(cache)?;
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
        layers.push(store.add(&layer::of_file(binary, path, true)?)?);
    }
    // See `assemble`: what changes less often is mostly the larger.
    layers.sort_by_key(|layer| std::cmp::Reverse(layer.size));
    let entrypoint = binaries.iter().take(1).map(|(_, path)| (*path).to_owned()).collect();
    let settings = config::Settings { entrypoint, ..config::Settings::default() };
    let (config, manifest, manifest_digest) = config::documents(&architecture, &settings, &layers);
    Ok(Image { reference: reference.to_owned(), manifest_digest, architecture, layers, config, manifest })
}

impl Image {
    /// `sha256:...` of the configuration.
    pub fn config_digest(&self) -> String {
        digest(&self.config)
    }

    /// For each layer the id of the stack up to it, under which a node knows the
    /// unpacked files (OCI image specification, "Layer ChainID").
    pub fn chain_ids(&self) -> Vec<String> {
        chain_ids(self.layers.iter().map(|layer| layer.digest.as_str()))
    }

    /// Writes a tar in OCI image layout, with the layers whose place in
    /// `include` is true; all when `include` is shorter than the layers. The
    /// manifest names all of them in any case.
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
