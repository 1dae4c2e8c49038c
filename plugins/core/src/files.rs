//! Files that survive a crash at any moment, and locks between processes.

use crate::error::{CommandError, ErrorContext, Result};
use crate::shutdown::Shutdown;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Replaces a file's content in one step: readers see the old or the new bytes,
/// never a part, whatever happens meanwhile. `mode` is the permission bits.
///
/// # Errors
/// Whatever the file system says; the old content is kept then.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    prepare(path, content, mode)?.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Like [`write_atomic`]; the new content is on the disk when this answers, even
/// if the power fails then.
///
/// # Errors
/// Whatever the file system says.
pub fn write_durable(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = prepare(path, content, mode)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    // The name is the folder's content.
    File::open(parent_of(path))?.sync_all()
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The new content beside the old.
fn prepare(path: &Path, content: &[u8], mode: u32) -> io::Result<tempfile::NamedTempFile> {
    let parent = parent_of(path);
    let mut temporary =
        tempfile::Builder::new().prefix(".devloop-").permissions(std::fs::Permissions::from_mode(mode)).tempfile_in(parent)?;
    temporary.write_all(content)?;
    // tempfile applies the umask; what is asked for is what is meant.
    temporary.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    Ok(temporary)
}

/// Reads a file that may not be there.
///
/// # Errors
/// Any error but the file's absence.
pub fn read_optional(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file or a folder with all in it; absent is fine.
///
/// # Errors
/// Any error but absence.
pub fn remove_all(path: &Path) -> io::Result<()> {
    let result = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A file of a cache: when it was used last, its bytes, where it is.
pub type Aged = (SystemTime, u64, PathBuf);

/// Removes files, from the one used longest ago, until they take no more than
/// `limit` bytes together; none that `is_spared`, and none that can't be removed.
pub fn remove_oldest(mut files: Vec<Aged>, limit: u64, is_spared: impl Fn(&Path) -> bool) {
    files.sort();
    let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, bytes, path) in files {
        if total <= limit {
            return;
        }
        if !is_spared(&path) && std::fs::remove_file(&path).is_ok() {
            total -= bytes;
        }
    }
}

/// An exclusive lock between processes, held until dropped; the kernel frees it
/// when its holder dies (`flock(2)`).
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing alone would leave it held for as long as a process that this one
        // is just starting has its copy of the descriptor, until its exec: flock(2).
        let _ = self.file.unlock();
    }
}

impl FileLock {
    /// Takes the lock, or answers `None` when another process holds it.
    ///
    /// # Errors
    /// When the lock file can't be made.
    pub fn try_acquire(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Waits for the lock as long as it takes, or until the user has enough.
    ///
    /// # Errors
    /// When the lock file can't be made, or on Ctrl-C.
    pub async fn wait(path: &Path, shutdown: &Shutdown) -> Result<Self> {
        loop {
            if let Some(lock) = Self::try_acquire(path).with_context(|| format!("could not lock {}", path.display()))? {
                return Ok(lock);
            }
            tokio::select! {
                () = shutdown.requested() => return Err(CommandError::interrupted()),
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    }

    /// Waits for the lock. For short critical sections only: it blocks the thread.
    ///
    /// # Errors
    /// When the lock file can't be made.
    pub fn acquire(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        file.lock()?;
        Ok(Self { file })
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_atomic_write_replaces_and_sets_the_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        write_atomic(&path, b"one", 0o644).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_lock_excludes_others_until_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = FileLock::try_acquire(&path).unwrap();
        assert!(held.is_some());
        assert!(FileLock::try_acquire(&path).unwrap().is_none());
        drop(held);
        assert!(FileLock::try_acquire(&path).unwrap().is_some());
    }

    #[test]
    fn a_lock_that_is_dropped_is_free_though_a_child_has_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = FileLock::acquire(&path).unwrap();
        let copy = held.file.try_clone().unwrap();
        drop(held);
        assert!(FileLock::try_acquire(&path).unwrap().is_some());
        drop(copy);
    }
}
