//! An image on its way: its two documents, and where the bytes of its layers are.

use super::tar_split::SplitLayer;
use crate::image::{self, Image};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// An image for one platform that can be sent, as far as its layers are at hand.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    /// What nodes are to know it by, spelled out.
    pub(crate) names: Vec<String>,
    /// As Go names it.
    pub(crate) architecture: String,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    /// From the lowest to the uppermost.
    pub(crate) layers: Vec<PackedLayer>,
}

/// One layer, as the manifest names it.
#[derive(Clone, Debug)]
pub(crate) struct PackedLayer {
    /// Of the blob, compressed or not.
    pub(crate) digest: String,
    pub(super) size: u64,
    /// Of the uncompressed tar.
    pub(crate) diff_id: String,
    /// Absent where nobody asked for it.
    pub(crate) content: Option<Content>,
}

/// Where the bytes of a layer are.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// A part of a file that has a name.
    Part { path: PathBuf, offset: u64 },
    /// A part of a file that has none.
    Spool { file: Arc<File>, offset: u64 },
    /// Files and headers apart, as the Docker engine keeps them.
    Split(Arc<SplitLayer>),
}

/// How an image is recognised on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its names, spelled out.
    pub(super) names: Vec<String>,
    /// The configuration's digest: the image id.
    pub(super) id: String,
    /// The manifest's digest, where it is known.
    pub(super) manifest: Option<String>,
    /// The ids of its stacks of layers, from the lowest to the uppermost.
    pub(super) chain_ids: Vec<String>,
}

impl Package {
    pub(super) fn of_image(image: &Image) -> Self {
        let layer = |layer: &image::Layer| PackedLayer {
            digest: layer.digest.clone(),
            size: layer.size,
            diff_id: layer.diff_id.clone(),
            content: Some(Content::Part { path: layer.path.clone(), offset: 0 }),
        };
        Self {
            names: vec![image.reference.clone()],
            architecture: image.architecture.clone(),
            config: image.config.clone(),
            manifest: image.manifest.clone(),
            layers: image.layers.iter().map(layer).collect(),
        }
    }

    pub(super) fn identity(&self) -> Identity {
        Identity {
            names: self.names.clone(),
            id: image::digest(&self.config),
            manifest: Some(image::digest(&self.manifest)),
            chain_ids: image::chain_ids(self.layers.iter().map(|layer| layer.diff_id.as_str())),
        }
    }

    /// The bytes that an archive with these layers has at least.
    pub(super) fn size_of(&self, include: &[bool]) -> u64 {
        self.layers.iter().zip(include).filter(|(_, include)| **include).map(|(layer, _)| layer.size).sum()
    }

    /// Checks that these layers are what the image's documents say.
    ///
    /// # Errors
    /// With the first layer that isn't.
    pub(super) fn verify(&self, include: &[bool]) -> Result<(), Broken> {
        for (layer, _) in self.layers.iter().zip(include).filter(|(_, include)| **include) {
            let mut hash = Hashing::default();
            let read = layer.copy_to(&mut hash).map(|()| hash.digest());
            match read {
                Ok(digest) if digest == layer.digest => {}
                Ok(_) => return Err(Broken { digest: layer.digest.clone(), source: None }),
                Err(source) => return Err(Broken { digest: layer.digest.clone(), source: Some(source) }),
            }
        }
        Ok(())
    }

    /// Writes a tar in OCI image layout with these layers; the image is named by
    /// its id only. The manifest names all layers in any case. The index comes
    /// last: an archive that was cut short is never taken for a whole one.
    ///
    /// # Errors
    /// When a layer can't be read or `out` can't be written.
    pub(super) fn write(&self, include: &[bool], out: impl Write) -> io::Result<()> {
        let mut builder = tar::Builder::new(out);
        let mut written: Vec<&str> = Vec::new();
        for (layer, _) in self.layers.iter().zip(include).filter(|(_, include)| **include) {
            if !written.contains(&layer.digest.as_str()) {
                layer.append_to(&mut builder)?;
                written.push(&layer.digest);
            }
        }
        let id = image::digest(&self.config);
        image::append_file(&mut builder, &blob_path(&id), &self.config)?;
        image::append_file(&mut builder, &blob_path(&image::digest(&self.manifest)), &self.manifest)?;
        image::append_file(&mut builder, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        image::append_file(&mut builder, "index.json", &image::index(&self.manifest, &self.architecture, &[id]))?;
        builder.into_inner()?.flush()
    }
}

/// A layer that is not what it should be.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) digest: String,
    /// Why it can't be read; it is damaged when there is no such reason.
    pub(super) source: Option<io::Error>,
}

impl PackedLayer {
    fn append_to(&self, builder: &mut tar::Builder<impl Write>) -> io::Result<()> {
        let mut header = image::tar_header(self.size);
        header.set_path(blob_path(&self.digest))?;
        header.set_cksum();
        builder.get_mut().write_all(header.as_bytes())?;
        self.copy_to(builder.get_mut())?;
        let padding = (512 - self.size % 512) % 512;
        builder.get_mut().write_all(&[0; 512][..usize::try_from(padding).unwrap_or(0)])
    }

    /// Writes exactly as many bytes as the layer has.
    pub(crate) fn copy_to(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.content {
            Some(Content::Part { path, offset }) => {
                let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
                copy_part(&File::open(path).map_err(named)?, *offset, self.size, out)
            }
            Some(Content::Spool { file, offset }) => copy_part(file, *offset, self.size, out),
            Some(Content::Split(layer)) => layer.copy_to(out),
            None => Err(io::Error::other(format!("layer {} is not at hand", self.digest))),
        }
    }
}

fn copy_part(file: &File, mut offset: u64, size: u64, out: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let end = offset + size;
    while offset < end {
        let wanted = buffer.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
        let count = file.read_at(&mut buffer[..wanted], offset)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than it was"));
        }
        out.write_all(&buffer[..count])?;
        offset += count as u64;
    }
    Ok(())
}

pub(super) fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

/// Takes bytes in for their digest.
#[derive(Default)]
pub(super) struct Hashing(sha2::Sha256);

impl Hashing {
    pub(super) fn digest(self) -> String {
        use sha2::Digest;
        image::render_digest(&self.0.finalize())
    }
}

impl Write for Hashing {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        sha2::Digest::update(&mut self.0, buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
