//! The cache of layers and of the documents of bases: files named after their
//! digest, shared by all runs on this machine and bounded in size.
//!
//! A run holds what it uses by a list that is locked as long as the run lives
//! (`flock(2)`): whoever makes room leaves alone what is on such a list. One that
//! nobody locks is of a run that is over, however it ended.

use super::blob::{Described, Layer, Supplier};
use super::layer::{self, Hashing, Plan};
use super::{ImageError, digest};
use crate::files::{FileLock, read_optional, remove_oldest};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tempfile::NamedTempFile;

/// How much the cache may hold, in bytes or with a unit: `20GiB`.
const SIZE_VARIABLE: &str = "DEVLOOP_CACHE_SIZE";
const DEFAULT_SIZE: u64 = 10 << 30;
/// What is half written is removed when nobody has written to it for so long.
const ABANDONED: Duration = Duration::from_secs(60 * 60);

const TEMPORARY: &str = ".layer-";
const LEASE: &str = ".lease-";
const LOCK: &str = ".lock";

/// The folder that keeps layers, each under its digest.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    lease: Hold,
}

/// Keeps what it lists from being removed. Clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Hold(Option<Arc<Lease>>);

/// Holding has no part in what a layer is.
impl PartialEq for Hold {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Hold {}

#[derive(Debug)]
struct Lease {
    /// Removed with this value; locked until then.
    file: NamedTempFile,
    listed: Mutex<HashSet<String>>,
}

impl Store {
    /// The store of a cache folder, for one image or run.
    ///
    /// # Errors
    /// When its folder can't be made or written.
    pub(crate) fn open(cache: &Path) -> Result<Self, ImageError> {
        let folder = cache.join("layers");
        let failed = |doing| move |source| ImageError::Io { doing, path: cache.join("layers"), source };
        std::fs::create_dir_all(&folder).map_err(failed("create"))?;
        // Nobody looks at leases meanwhile: one that is not locked yet is no use.
        let _guard = FileLock::acquire(&folder.join(LOCK)).map_err(failed("lock"))?;
        let file = tempfile::Builder::new().prefix(LEASE).tempfile_in(&folder).map_err(failed("write"))?;
        file.as_file().try_lock().map_err(|error| failed("lock")(error.into()))?;
        Ok(Self { folder, lease: Hold(Some(Arc::new(Lease { file, listed: Mutex::default() }))) })
    }

    /// Writes a layer's tar, and learns its digest on the way. The file always
    /// holds what was just read: an older one of the same digest is replaced, so
    /// that a damaged one does no harm.
    pub(super) fn add(&self, plan: &Plan) -> Result<Layer, ImageError> {
        let failed = |source| ImageError::Io { doing: "write a layer in", path: self.folder.clone(), source };
        let mut receiving = Receiving::begin(&self.folder).map_err(failed)?;
        layer::write_tar(plan, &mut receiving)?;
        let (digest, size) = receiving.finish().map_err(failed)?;
        let path = self.path(&digest);
        self.hold(&digest).map_err(failed)?;
        receiving.temporary.persist(&path).map_err(|error| failed(error.error))?;
        Ok(Layer::uncompressed(digest, size, path).held(self.lease.clone()))
    }

    /// A layer that is got where the cache lacks it.
    pub(crate) fn layer(&self, described: Described, supplier: Arc<dyn Supplier>) -> Result<Layer, ImageError> {
        self.hold(&described.digest).map_err(|source| ImageError::Io { doing: "write", path: self.folder.clone(), source })?;
        let path = self.path(&described.digest);
        Ok(Layer::described(described, path).held(self.lease.clone()).supplied_by(supplier))
    }

    /// A document that was kept, if it is whole.
    pub(crate) fn document(&self, of: &str) -> Option<Vec<u8>> {
        self.hold(of).ok()?;
        read_optional(&self.path(of)).ok()?.filter(|content| digest(content) == of)
    }

    /// Keeps a document; the next run may do without, so that this never fails.
    pub(crate) fn keep_document(&self, content: &[u8]) {
        let of = digest(content);
        let kept = self.hold(&of).and_then(|()| crate::files::write_atomic(&self.path(&of), content, 0o644));
        if let Err(error) = kept {
            tracing::info!(%error, "a document is not kept in the cache");
        }
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{}.tar", digest.trim_start_matches("sha256:")))
    }

    /// Puts a blob on the list of those in use, and makes it the youngest.
    fn hold(&self, digest: &str) -> io::Result<()> {
        let Some(lease) = &self.lease.0 else { return Ok(()) };
        let mut listed = lease.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if listed.contains(digest) {
            return Ok(());
        }
        // Whoever makes room has seen the list with it, or has not begun.
        let _guard = FileLock::acquire(&self.folder.join(LOCK))?;
        lease.file.as_file().write_all(format!("{}\n", file_name(&self.path(digest))).as_bytes())?;
        listed.insert(digest.to_owned());
        match File::open(self.path(digest)) {
            Ok(file) => file.set_modified(SystemTime::now()),
            Err(_) => Ok(()),
        }
    }

    /// Removes what was used longest ago when there is too much, but nothing that
    /// a run uses. The cache is not worth an error.
    pub(super) fn prune(&self) {
        if let Err(error) = self.prune_to(limit(std::env::var(SIZE_VARIABLE).ok().as_deref())) {
            tracing::info!(%error, "no room was made in the cache");
        }
    }

    pub(super) fn prune_to(&self, limit: u64) -> io::Result<()> {
        let Some(_guard) = FileLock::try_acquire(&self.folder.join(LOCK))? else { return Ok(()) };
        let (mut blobs, mut held) = (Vec::new(), HashSet::new());
        for entry in std::fs::read_dir(&self.folder)?.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let Ok(metadata) = entry.metadata() else { continue };
            let modified = metadata.modified()?;
            if name.starts_with(LEASE) {
                held.extend(listed(&path)?);
            } else if name.starts_with(TEMPORARY) {
                if modified.elapsed().is_ok_and(|age| age > ABANDONED) {
                    let _ = std::fs::remove_file(&path);
                }
            } else if name != LOCK {
                blobs.push((modified, metadata.len(), path));
            }
        }
        remove_oldest(blobs, limit, |path| held.contains(&file_name(path)));
        Ok(())
    }
}

/// The names on a list; none, and no list any more, where its run is over.
fn listed(path: &Path) -> io::Result<Vec<String>> {
    let Ok(file) = File::open(path) else { return Ok(Vec::new()) };
    if file.try_lock().is_ok() {
        let _ = std::fs::remove_file(path);
        return Ok(Vec::new());
    }
    Ok(std::fs::read_to_string(path)?.lines().map(str::to_owned).collect())
}

fn file_name(path: &Path) -> String {
    path.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
}

/// Reads a size such as `20GiB`; what can't be read is as if it weren't there.
pub(crate) fn limit(text: Option<&str>) -> u64 {
    text.and_then(read_size).unwrap_or(DEFAULT_SIZE)
}

/// Bytes, or a number and a unit: `512MiB`, `20G`. Units are powers of 1024.
pub(crate) fn read_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let power = match unit.trim().to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << power)
}

/// A blob on its way into the cache.
#[derive(Debug)]
pub(crate) struct Receiving {
    temporary: NamedTempFile,
    out: Hashing<BufWriter<File>>,
}

impl Receiving {
    pub(super) fn begin(folder: &Path) -> io::Result<Self> {
        let temporary = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder)?;
        let out = Hashing::new(BufWriter::with_capacity(1 << 18, temporary.as_file().try_clone()?));
        Ok(Self { temporary, out })
    }

    fn finish(&mut self) -> io::Result<(String, u64)> {
        self.out.flush()?;
        Ok(self.out.conclude())
    }

    /// Gives it its name if it is what it should be.
    pub(super) fn keep(mut self, digest: &str, size: u64, path: &Path) -> io::Result<()> {
        let (found, length) = self.finish()?;
        if found != digest || length != size {
            let message = format!("what came is not what its digest says: {found} with {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.temporary.persist(path).map_err(|error| error.error).map(|_| ())
    }
}

impl Write for Receiving {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.out.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::layer::of_files;
    use super::*;

    fn add(store: &Store, folder: &Path, content: &str) -> Layer {
        let path = folder.join("file");
        std::fs::write(&path, content).unwrap();
        store.add(&of_files(&[(path.as_path(), "/file")], false).unwrap()).unwrap()
    }

    fn age(layer: &Layer, seconds: u64) {
        File::open(&layer.path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_but_nothing_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let (used, other) = (Store::open(folder.path()).unwrap(), Store::open(folder.path()).unwrap());
        let kept = add(&used, folder.path(), "kept");
        let (old, young) = (add(&other, folder.path(), "old"), add(&other, folder.path(), "young"));
        age(&kept, 5000);
        age(&old, 4000);
        age(&young, 3000);
        used.prune_to(0).unwrap();
        assert!(kept.path.exists() && old.path.exists() && young.path.exists(), "all of them are in use");
        let paths = [old.path.clone(), young.path.clone()];
        drop((other, old, young));
        used.prune_to(kept.size * 2).unwrap();
        assert!(kept.path.exists() && !paths[0].exists() && paths[1].exists());
        used.prune_to(0).unwrap();
        assert!(kept.path.exists() && !paths[1].exists());
        // A layer holds what it is, without the store.
        drop(used);
        Store::open(folder.path()).unwrap().prune_to(0).unwrap();
        assert!(kept.path.exists());
    }

    #[test]
    fn a_run_that_was_killed_holds_nothing_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let layer = add(&store, folder.path(), "x");
        let path = layer.path.clone();
        drop((store, layer));
        let stale = folder.path().join("layers/.lease-gone");
        std::fs::write(&stale, file_name(&path)).unwrap();
        Store::open(folder.path()).unwrap().prune_to(0).unwrap();
        assert!(!path.exists() && !stale.exists());
    }

    #[test]
    fn a_damaged_document_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        store.keep_document(b"{}");
        assert_eq!(store.document(&digest(b"{}")).as_deref(), Some(&b"{}"[..]));
        std::fs::write(store.path(&digest(b"{}")), "{").unwrap();
        assert_eq!(store.document(&digest(b"{}")), None);
    }

    #[test]
    fn sizes_have_units() {
        for (text, size) in
            [("0", Some(0)), ("512MiB", Some(512 << 20)), ("20 G", Some(20 << 30)), ("7k", Some(7168)), ("1TB", Some(1 << 40))]
        {
            assert_eq!(read_size(text), size, "{text}");
        }
        for text in ["", "x", "-1", "1.5G", "1Q", "99999999999G"] {
            assert_eq!(read_size(text), None, "{text}");
        }
        assert_eq!(limit(Some("much")), DEFAULT_SIZE);
    }
}
