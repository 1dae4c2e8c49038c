//! One debugger at a time for a process, until the one before has tidied up: that
//! one is not its tracer any more by then, which the kernel would tell.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long one may take to tidy up.
const PATIENCE: Duration = Duration::from_secs(8);

/// A lock file (flock(2)), removed when dropped.
#[derive(Debug)]
pub(crate) struct ProcessLock {
    path: PathBuf,
    _file: File,
}

impl ProcessLock {
    /// Takes it; `None` when another holds it and is the tracer, or does not let go.
    pub(crate) fn take(path: PathBuf, is_traced: impl Fn() -> bool) -> io::Result<Option<Self>> {
        let started = Instant::now();
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
            match file.try_lock() {
                // Its holder may have removed it between the two.
                Ok(()) if fs::metadata(&path).is_ok_and(|now| file.metadata().is_ok_and(|own| own.ino() == now.ino())) => {
                    return Ok(Some(Self { path, _file: file }));
                }
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if is_traced() || started.elapsed() > PATIENCE => return Ok(None),
                Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(10)),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

impl Drop for ProcessLock {
    fn drop(&mut self) {
        // While it is held: nobody takes one that is about to go.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_after_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = ProcessLock::take(path.clone(), || false).unwrap().unwrap();
        assert!(ProcessLock::take(path.clone(), || true).unwrap().is_none());
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || ProcessLock::take(path, || false).unwrap()
        });
        drop(first);
        assert!(waiting.join().unwrap().is_some());
        assert!(!path.exists());
    }
}
