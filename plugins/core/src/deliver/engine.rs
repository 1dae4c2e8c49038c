//! Images of a Docker engine.
//!
//! What an image consists of is known before a byte of it is read. Its layers
//! come from the engine's own folder where this process may read it, one by one;
//! otherwise out of an export, which always has all of them: only those that are
//! needed are kept.

use super::DeliverError;
use super::archive::{Archive, Naming};
use super::package::{Content, Hashing, Identity, Package, PackedLayer};
use super::tar_split::SplitLayer;
use crate::docker::{DockerError, Endpoint, Engine};
use crate::image::{self, LAYER_TYPE, reference};
use bollard::errors::Error as Refusal;
use futures::StreamExt;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// An image that an engine has.
#[derive(Clone, Debug)]
pub(crate) struct EngineImage {
    engine: Engine,
    /// As the user says it.
    name: String,
    /// The engine's id of it: the digest of its configuration, or of its manifest
    /// when the engine keeps its images in a containerd.
    id: String,
    pub(super) architecture: String,
    diff_ids: Vec<String>,
    spelled_out: String,
}

impl EngineImage {
    pub(crate) async fn inspect(engine: &Engine, name: &str) -> Result<Self, DeliverError> {
        let spelled_out = reference::normalize(name).map_err(|reason| DeliverError::BadName { name: name.to_owned(), reason })?;
        let inspected = engine.client().inspect_image(name).await.map_err(|error| match error {
            Refusal::DockerResponseServerError { status_code: 404, .. } => DeliverError::NoSuchImage { name: name.to_owned() },
            error => DockerError::request(format!("inspect image {name}"))(error).into(),
        })?;
        Ok(Self {
            engine: engine.clone(),
            name: name.to_owned(),
            id: inspected.id.unwrap_or_default(),
            architecture: inspected.architecture.unwrap_or_default(),
            diff_ids: inspected.root_fs.and_then(|root| root.layers).unwrap_or_default(),
            spelled_out,
        })
    }

    pub(super) fn identity(&self) -> Identity {
        Identity {
            names: vec![self.spelled_out.clone()],
            id: self.id.clone(),
            manifest: Some(self.id.clone()),
            chain_ids: image::chain_ids(self.diff_ids.iter().map(String::as_str)),
        }
    }

    /// The engine's id of it.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// How many layers it has.
    pub(crate) fn layers(&self) -> usize {
        self.diff_ids.len()
    }

    /// Which of its layers is this one.
    pub(crate) fn places(&self, diff_id: &str) -> Vec<bool> {
        self.diff_ids.iter().map(|own| own == diff_id).collect()
    }

    /// The image without any layer's content.
    ///
    /// # Errors
    /// Where the engine's folder can't be read: only an export tells then.
    pub(crate) async fn documents(&self) -> io::Result<Package> {
        self.read_from_folder(&vec![false; self.diff_ids.len()]).await
    }

    /// The image with the content of these layers.
    pub(crate) async fn fetch(&self, include: &[bool]) -> Result<Package, DeliverError> {
        match self.read_from_folder(include).await {
            Ok(package) => return Ok(package),
            Err(reason) => tracing::info!(%reason, image = self.name, "layers come out of an export, not out of the engine's folder"),
        }
        match self.take_from_export(include).await? {
            Some(package) => Ok(package),
            // What is exported there is an archive in OCI layout, perhaps with
            // compressed layers, whose digests nobody has told us.
            None => self.take_whole_export().await,
        }
    }

    async fn read_from_folder(&self, include: &[bool]) -> io::Result<Package> {
        if !matches!(self.engine.endpoint(), Endpoint::Unix(_)) {
            return Err(io::Error::other("the engine is not on this machine"));
        }
        let info = self.engine.client().info().await.map_err(io::Error::other)?;
        let (Some(root), Some("overlay2")) = (info.docker_root_dir, info.driver.as_deref()) else {
            return Err(io::Error::other("the engine does not keep layers in overlay2"));
        };
        let (image, include) = (self.clone(), include.to_owned());
        tokio::task::spawn_blocking(move || image.read_folder(Path::new(&root), &include)).await.map_err(io::Error::other)?
    }

    fn read_folder(&self, root: &Path, include: &[bool]) -> io::Result<Package> {
        let hex = self.id.strip_prefix("sha256:").filter(|_| reference::is_digest(&self.id)).ok_or(io::ErrorKind::InvalidData)?;
        let config = std::fs::read(root.join("image/overlay2/imagedb/content/sha256").join(hex))?;
        if image::digest(&config) != self.id {
            return Err(io::Error::other("the image's configuration is not what its digest says"));
        }
        let mut layers = Vec::with_capacity(self.diff_ids.len());
        for ((chain_id, diff_id), include) in self.identity().chain_ids.iter().zip(&self.diff_ids).zip(include) {
            let split = SplitLayer::open(root, chain_id)?;
            let (digest, size) = (diff_id.clone(), split.size());
            let content = include.then(|| Content::Split(Arc::new(split)));
            layers.push(PackedLayer { digest, size, diff_id: diff_id.clone(), content });
        }
        let package = self.package(config, layers);
        package.verify(include).map_err(|broken| io::Error::other(format!("layer {} does not come out right", broken.digest)))?;
        Ok(package)
    }

    fn package(&self, config: Vec<u8>, layers: Vec<PackedLayer>) -> Package {
        let manifest = image::manifest_of(&config, layers.iter().map(|layer| (LAYER_TYPE, layer.digest.as_str(), layer.size)));
        Package { names: vec![self.spelled_out.clone()], architecture: self.architecture.clone(), config, manifest, layers }
    }

    /// `None` when the export's layers aren't those that the image's description
    /// names.
    async fn take_from_export(&self, include: &[bool]) -> Result<Option<Package>, DeliverError> {
        let wanted = self.diff_ids.iter().zip(include).map(|(diff_id, include)| (diff_id.clone(), *include));
        let mut sieve = Sieve { id: self.id.clone(), wanted: HashMap::new(), ..Sieve::default() };
        for (diff_id, include) in wanted {
            *sieve.wanted.entry(diff_id).or_default() |= include;
        }
        let sieved = self.export(move |stream| sieve.run(stream)).await?;
        let Some(config) = sieved.config.filter(|_| self.diff_ids.iter().all(|diff_id| sieved.layers.contains_key(diff_id))) else {
            return Ok(None);
        };
        let layers = self.diff_ids.iter().filter_map(|diff_id| {
            let (size, content) = sieved.layers.get(diff_id)?.clone();
            Some(PackedLayer { digest: diff_id.clone(), size, diff_id: diff_id.clone(), content })
        });
        Ok(Some(self.package(config, layers.collect())))
    }

    async fn take_whole_export(&self) -> Result<Package, DeliverError> {
        let file =
            tempfile::NamedTempFile::new().map_err(|source| DeliverError::Local { doing: "make a temporary file".into(), source })?;
        let path = file.into_temp_path();
        let to = path.to_owned();
        self.export(move |mut stream| io::copy(&mut stream, &mut File::create(to)?)).await?;
        let archive = Archive::open(&path, Naming::Optional)?;
        let mut packages = archive.for_architecture(&self.architecture)?;
        let mut package = packages.pop().ok_or_else(|| DeliverError::NoSuchImage { name: self.name.clone() })?;
        package.names = vec![self.spelled_out.clone()];
        // The file is held open, its name goes.
        let file = Arc::new(File::open(&path).map_err(|source| DeliverError::Local { doing: "read a temporary file".into(), source })?);
        for layer in &mut package.layers {
            if let Some(Content::Part { offset, .. }) = layer.content {
                layer.content = Some(Content::Spool { file: Arc::clone(&file), offset });
            }
        }
        Ok(package)
    }

    /// Has the engine export the image, and `read` read it.
    async fn export<T: Send + 'static>(&self, read: impl FnOnce(Export) -> io::Result<T> + Send + 'static) -> Result<T, DeliverError> {
        let (chunk_tx, chunk_rx) = mpsc::channel(16);
        let reader = tokio::task::spawn_blocking(move || read(Export { chunk_rx, chunk: Vec::new(), taken: 0 }));
        let mut stream = std::pin::pin!(self.engine.client().export_image(&self.name));
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(DockerError::request(format!("export image {}", self.name)))?;
            // A reader that gave up tells why itself.
            if chunk_tx.send(chunk.to_vec()).await.is_err() {
                break;
            }
        }
        drop(chunk_tx);
        let outcome = reader.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        outcome.map_err(|source| DeliverError::Local { doing: format!("take in the export of {}", self.name), source })
    }
}

/// An export, as it comes.
struct Export {
    chunk_rx: mpsc::Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    taken: usize,
}

impl Read for Export {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.chunk.len() {
            let Some(chunk) = self.chunk_rx.blocking_recv() else { return Ok(0) };
            (self.chunk, self.taken) = (chunk, 0);
        }
        let count = buffer.len().min(self.chunk.len() - self.taken);
        buffer[..count].copy_from_slice(&self.chunk[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

/// Keeps of an export what is wanted.
#[derive(Default)]
struct Sieve {
    /// Digest of the configuration.
    id: String,
    /// Digests of layers, and whether their content is wanted.
    wanted: HashMap<String, bool>,
    config: Option<Vec<u8>>,
    layers: HashMap<String, (u64, Option<Content>)>,
}

impl Sieve {
    fn run(mut self, stream: impl Read) -> io::Result<Self> {
        let mut spool = tempfile::tempfile()?;
        let shared = Arc::new(spool.try_clone()?);
        let mut archive = tar::Archive::new(stream);
        for entry in archive.entries()? {
            let mut entry = entry?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let size = entry.size();
            // Newer engines name files by their digest, which saves the work.
            let named = entry.path()?.file_name().map(|name| format!("sha256:{}", name.to_string_lossy())).unwrap_or_default();
            if self.wanted.get(&named) == Some(&false) {
                self.layers.insert(named, (size, None));
                continue;
            }
            let offset = spool.stream_position()?;
            let mut out = Both { file: io::BufWriter::with_capacity(1 << 18, spool.try_clone()?), hash: Hashing::default() };
            if io::copy(&mut entry, &mut out)? != size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            out.file.flush()?;
            let digest = out.hash.digest();
            if digest == self.id {
                let mut config = vec![0; usize::try_from(size).map_err(io::Error::other)?];
                std::os::unix::fs::FileExt::read_exact_at(&spool, &mut config, offset)?;
                self.config = Some(config);
            }
            let wanted = self.wanted.get(&digest).copied();
            if wanted == Some(true) {
                self.layers.insert(digest, (size, Some(Content::Spool { file: Arc::clone(&shared), offset })));
                continue;
            }
            if wanted == Some(false) {
                self.layers.insert(digest, (size, None));
            }
            spool.set_len(offset)?;
            spool.seek(io::SeekFrom::Start(offset))?;
        }
        Ok(self)
    }
}

struct Both<W> {
    file: W,
    hash: Hashing,
}

impl<W: Write> Write for Both<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file.write_all(buffer)?;
        self.hash.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            image::append_file(&mut builder, name, content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn of_an_export_only_what_is_wanted_is_kept() {
        let (low, high, config) = ([1; 5000], [2; 3000], br#"{"architecture":"amd64"}"#);
        let digests = [&low[..], &high[..]].map(image::digest);
        let id = image::digest(config);
        let named = format!("blobs/sha256/{}", &digests[0][7..]);
        for low_name in ["0a/layer.tar", &named] {
            let export = tar_of(&[(low_name, &low), ("junk", b"x"), ("0b/layer.tar", &high), ("c.json", config)]);
            let wanted = HashMap::from([(digests[0].clone(), false), (digests[1].clone(), true)]);
            let sieve = Sieve { id: id.clone(), wanted, ..Sieve::default() };
            let sieved = sieve.run(export.as_slice()).unwrap();
            assert_eq!(sieved.config.as_deref(), Some(&config[..]));
            assert!(matches!(sieved.layers[&digests[0]], (5000, None)));
            let (size, content) = sieved.layers[&digests[1]].clone();
            let layer = PackedLayer { digest: digests[1].clone(), size, diff_id: digests[1].clone(), content };
            let mut out = Vec::new();
            layer.copy_to(&mut out).unwrap();
            assert_eq!(out, high);
        }
    }

    #[test]
    fn an_export_that_ends_early_is_an_error() {
        let export = tar_of(&[("0a/layer.tar", &[1; 5000])]);
        let sieve = Sieve { wanted: HashMap::new(), ..Sieve::default() };
        assert!(sieve.run(&export[..3000]).is_err());
    }
}
