//! A component's log: appended to, rotated by size, a bounded number kept.

use devloop_core::logs::{LocalLog, rotated};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes after which a log is rotated.
const MAX_SIZE: u64 = 10 * 1024 * 1024;
/// Rotated logs kept beside the current one.
const KEPT: u32 = 3;

/// An open log.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    max_size: u64,
}

impl LogFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::with_max_size(path, MAX_SIZE)
    }

    fn with_max_size(path: &Path, max_size: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, max_size })
    }

    /// Appends; rotates at the end of a line once the limit is passed.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        if self.size >= self.max_size && bytes.ends_with(b"\n") {
            self.rotate()?;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..KEPT).rev() {
            rename_if_there(&rotated(&self.path, number), &rotated(&self.path, number + 1))?;
        }
        rename_if_there(&self.path, &rotated(&self.path, 1))?;
        *self = Self::with_max_size(&self.path, self.max_size)?;
        Ok(())
    }
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The last `count` lines of a log; none of one that can't be read.
pub(crate) fn last_lines(path: &Path, count: usize) -> Vec<String> {
    LocalLog::open(path).and_then(|mut log| log.last_lines(count)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_rotates_and_keeps_a_bounded_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etcd.log");
        let mut log = LogFile::with_max_size(&path, 20).unwrap();
        for number in 0..20 {
            log.append(format!("line {number:03}\n").as_bytes()).unwrap();
        }
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["etcd.log", "etcd.log.1", "etcd.log.2", "etcd.log.3"]);
        assert_eq!(last_lines(&path, 3), ["line 017", "line 018", "line 019"]);
        assert_eq!(last_lines(&folder.path().join("none.log"), 3), [""; 0]);
    }
}
