//! Files that were replaced, and become the next new ones.
//!
//! Making a file can cost a quarter of a millisecond: where ext4 has no journal it
//! passes over every inode that was freed in the last minutes (`recently_deleted`
//! in the kernel's fs/ext4/ialloc.c), and replacing files frees inodes. So in a burst
//! the file that was replaced is exchanged with the new one instead of removed, and
//! written to anew under its temporary name, if nobody has it open any more.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::libc;
use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags};

use crate::incoming::{Identity, TemporaryName};

/// One for each of the containers that a burst goes to is enough.
const MAX_SPARES: usize = 64;
/// Of the kernel's include/uapi/asm-generic/fcntl.h.
const F_SETSIG: libc::c_int = 10;

/// The replaced files of this agent that are still there.
#[derive(Debug, Default)]
pub(crate) struct Spares(Mutex<Vec<Spare>>);

/// A replaced file, under a temporary name; dropped, it is removed.
#[derive(Debug)]
struct Spare {
    parent: OwnedFd,
    /// None once it has become a new file.
    name: Option<TemporaryName>,
    identity: Identity,
}

impl Spares {
    /// Keeps a file that lies under a temporary name now.
    pub(crate) fn keep(&self, parent: OwnedFd, name: TemporaryName, identity: Identity) {
        let spare = Spare { parent, name: Some(name), identity };
        let mut spares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < MAX_SPARES {
            spares.push(spare);
        }
    }

    /// A file without content in the folder `parent` that only this agent knows, if
    /// there is one; and its length.
    pub(crate) fn take(&self, parent: &OwnedFd) -> Option<(TemporaryName, File, u64)> {
        let folder = Identity::of(&rustix::fs::fstat(parent).ok()?);
        let mut spare = {
            let mut spares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let found = spares.iter().position(|spare| spare.name.as_ref().is_some_and(|name| name.folder() == folder))?;
            spares.swap_remove(found)
        };
        let (file, length) = spare.emptied()?;
        Some((spare.name.take()?, file, length))
    }

    /// Removes what is left.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Spare {
    /// Opens it and drops its content, unless somebody else may still read it.
    fn emptied(&self) -> Option<(File, u64)> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.parent, self.name.as_ref()?.name(), flags, Mode::empty()).ok()?);
        let stat = rustix::fs::fstat(&file).ok()?;
        let is_it = Identity::of(&stat) == self.identity && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_it || stat.st_nlink != 1 || !is_open_here_only(&file) {
            return None;
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600)).ok()?;
        let length = u64::try_from(stat.st_size).ok()?;
        // What is on its way to a socket keeps its pages; new ones are written to.
        // Cut off to nothing, ext4 would write the new content to the disk when the
        // file is closed (`auto_da_alloc`, see ext4(5)).
        if length > 0 {
            rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, length).ok()?;
        }
        Some((file, length))
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // The container may be gone already; there is no one to tell.
            let _ = rustix::fs::unlinkat(&self.parent, name.name(), AtFlags::empty());
        }
    }
}

/// Asks the kernel by way of a write lease, which it grants only to the one who
/// has the file open or mapped, see fcntl(2).
fn is_open_here_only(file: &File) -> bool {
    let descriptor = file.as_raw_fd();
    // SAFETY: the descriptor is open, and these calls take numbers only. SIGURG is
    // ignored by default; SIGIO, which tells of a broken lease otherwise, would end
    // the agent if somebody opened the file just now.
    unsafe {
        libc::fcntl(descriptor, F_SETSIG, libc::SIGURG) == 0
            && libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_WRLCK) == 0
            && libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_UNLCK) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn folder(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    /// A file that was replaced, in a folder; and where it lies.
    fn kept(spares: &Spares, path: &Path) -> std::path::PathBuf {
        let parent = folder(path);
        let name = TemporaryName::take(&parent).unwrap();
        let file = path.join(name.name());
        fs::write(&file, "old").unwrap();
        let identity = Identity::of_file(&File::open(&file).unwrap()).unwrap();
        spares.keep(parent, name, identity);
        file
    }

    #[test]
    fn what_nobody_reads_is_used_again() {
        let (path, spares) = (tempfile::tempdir().unwrap(), Spares::default());
        let file = kept(&spares, path.path());
        let (name, _, length) = spares.take(&folder(path.path())).unwrap();
        assert_eq!(path.path().join(name.name()), file);
        assert_eq!((length, fs::read(&file).unwrap()), (3, vec![0; 3]));
        assert!(spares.take(&folder(path.path())).is_none());
        assert!(file.exists());
    }

    #[test]
    fn what_somebody_reads_or_knows_by_another_name_is_left_alone() {
        let (path, spares) = (tempfile::tempdir().unwrap(), Spares::default());
        let read = kept(&spares, path.path());
        let reader = File::open(&read).unwrap();
        assert!(spares.take(&folder(path.path())).is_none());
        assert_eq!(std::io::read_to_string(reader).unwrap(), "old");
        assert!(!read.exists());

        let linked = kept(&spares, path.path());
        fs::hard_link(&linked, path.path().join("other")).unwrap();
        assert!(spares.take(&folder(path.path())).is_none());
        assert_eq!(fs::read_to_string(path.path().join("other")).unwrap(), "old");
    }

    #[test]
    fn another_file_under_the_name_is_not_it() {
        let (path, spares) = (tempfile::tempdir().unwrap(), Spares::default());
        let file = kept(&spares, path.path());
        fs::write(path.path().join("new"), "somebody else's").unwrap();
        fs::rename(path.path().join("new"), &file).unwrap();
        assert!(spares.take(&folder(path.path())).is_none());
    }

    #[test]
    fn one_of_another_folder_is_not_taken_and_all_are_removed_at_the_end() {
        let (path, other, spares) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), Spares::default());
        let file = kept(&spares, path.path());
        assert!(spares.take(&folder(other.path())).is_none());
        spares.clear();
        assert!(!file.exists());
    }
}
