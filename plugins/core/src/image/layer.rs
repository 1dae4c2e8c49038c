//! Layers: from files to tars with a known digest.

use super::ImageError;
use crate::project::FileMapping;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// What a layer will hold: path in the image, without the first slash, to entry.
/// The map's order is the tar's.
pub(super) type Plan = BTreeMap<Vec<u8>, Entry>;

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Directory,
    File { source: PathBuf, executable: bool },
    Link { target: Vec<u8> },
}

/// A layer with files, each with its path in the image.
pub(super) fn of_files(files: &[(&Path, &str)], executable: bool) -> Result<Plan, ImageError> {
    let mut plan = Plan::new();
    for (source, to) in files {
        insert(&mut plan, to.trim_start_matches('/').as_bytes(), Entry::File { source: (*source).to_owned(), executable });
    }
    Ok(plan)
}

/// A layer with a file or a folder's content of the project.
pub(super) fn of_mapping(root: &Path, mapping: &FileMapping) -> Result<Plan, ImageError> {
    let given = root.join(&mapping.from);
    let source = given.canonicalize().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ImageError::NotFound { path: given.clone() },
        _ => ImageError::Io { doing: "read", path: given.clone(), source },
    })?;
    let inside = root.canonicalize().is_ok_and(|root| source.starts_with(root));
    if !inside {
        let reason = format!("it leads to {}, outside of the project", source.display());
        return Err(ImageError::Refused { path: given, reason });
    }
    let metadata = stat(&source)?;
    let to = mapping.to.trim_matches('/').as_bytes();
    let mut plan = Plan::new();
    if metadata.is_dir() {
        insert(&mut plan, to, Entry::Directory);
        add_folder(&mut plan, &source, Path::new(""), to)?;
    } else {
        let entry = entry_of(&source, Path::new(""), &metadata)?;
        insert(&mut plan, to, entry);
    }
    Ok(plan)
}

fn add_folder(plan: &mut Plan, source: &Path, relative: &Path, to: &[u8]) -> Result<(), ImageError> {
    let folder = source.join(relative);
    for entry in std::fs::read_dir(&folder).map_err(|error| changed_or(error, &folder))? {
        let name = entry.map_err(|error| changed_or(error, &folder))?.file_name();
        let relative = relative.join(&name);
        let path = source.join(&relative);
        let metadata = stat(&path)?;
        let entry = entry_of(&path, &relative, &metadata)?;
        let is_folder = entry == Entry::Directory;
        insert(plan, &[to, b"/", relative.as_os_str().as_bytes()].concat(), entry);
        if is_folder {
            add_folder(plan, source, &relative, to)?;
        }
    }
    Ok(())
}

fn entry_of(path: &Path, relative: &Path, metadata: &Metadata) -> Result<Entry, ImageError> {
    let refused = |reason: String| ImageError::Refused { path: path.to_owned(), reason };
    let kind = metadata.file_type();
    if kind.is_dir() {
        Ok(Entry::Directory)
    } else if kind.is_file() {
        Ok(Entry::File { source: path.to_owned(), executable: metadata.permissions().mode() & 0o111 != 0 })
    } else if kind.is_symlink() {
        let target = std::fs::read_link(path).map_err(|error| changed_or(error, path))?;
        if !stays_inside(relative.parent().unwrap_or(Path::new("")), &target) {
            return Err(refused(format!("the symbolic link leads out of the mapped folder, to {}", target.display())));
        }
        Ok(Entry::Link { target: target.into_os_string().into_encoded_bytes() })
    } else {
        Err(refused("it is neither a file, a folder nor a symbolic link".into()))
    }
}

/// Whether a link in `folder` (relative to the mapped folder) stays in the mapped
/// folder at every step of its way.
fn stays_inside(folder: &Path, target: &Path) -> bool {
    let mut depth = folder.components().count();
    target.components().all(|component| match component {
        Component::Normal(_) => {
            depth += 1;
            true
        }
        Component::CurDir => true,
        Component::ParentDir => {
            let inside = depth > 0;
            depth = depth.saturating_sub(1);
            inside
        }
        Component::RootDir | Component::Prefix(_) => false,
    })
}

/// Adds an entry and the folders that lead to it.
fn insert(plan: &mut Plan, path: &[u8], entry: Entry) {
    for (index, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        plan.entry(path[..index].to_vec()).or_insert(Entry::Directory);
    }
    plan.insert(path.to_vec(), entry);
}

/// Whether it matters which of the layers lies above the other.
pub(super) fn overlap(plans: &[Plan]) -> bool {
    let mut seen: BTreeMap<&[u8], &Entry> = BTreeMap::new();
    plans.iter().flatten().any(|(path, entry)| match seen.insert(path, entry) {
        Some(before) => *before != Entry::Directory || *entry != Entry::Directory,
        None => false,
    })
}

fn stat(path: &Path) -> Result<Metadata, ImageError> {
    std::fs::symlink_metadata(path).map_err(|error| changed_or(error, path))
}

/// What was there a moment ago and is not now was changed; the rest is an error.
fn changed_or(source: io::Error, path: &Path) -> ImageError {
    match (source.kind(), source.raw_os_error()) {
        // ELOOP: a link has taken the place of the file.
        (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, _) | (_, Some(nix::libc::ELOOP)) => {
            ImageError::Changed { path: path.to_owned() }
        }
        _ => ImageError::Io { doing: "read", path: path.to_owned(), source },
    }
}

/// Writes the tar of a layer.
pub(super) fn write_tar(plan: &Plan, out: &mut impl Write) -> Result<(), ImageError> {
    let mut builder = tar::Builder::new(out);
    let written = |source: io::Error, path: &Path| match source.downcast::<Source>() {
        Ok(Source(error)) => error,
        Err(source) => ImageError::Io { doing: "write the layer entry of", path: path.to_owned(), source },
    };
    for (path, entry) in plan {
        let path = Path::new(OsStr::from_bytes(path));
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        let outcome = match entry {
            Entry::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                let slashed: PathBuf = [path.as_os_str().as_bytes(), b"/"].concat().to_path();
                builder.append_data(&mut header, slashed, io::empty())
            }
            Entry::File { source, executable } => {
                let file = Steady::open(source)?;
                header.set_entry_type(tar::EntryType::Regular);
                header.set_mode(if *executable { 0o755 } else { 0o644 });
                header.set_size(file.size);
                builder.append_data(&mut header, path, file)
            }
            Entry::Link { target } => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                builder.append_link(&mut header, path, OsStr::from_bytes(target))
            }
        };
        outcome.map_err(|error| written(error, path))?;
    }
    builder.into_inner().map(|_| ()).map_err(|error| written(error, Path::new("/")))
}

trait ToPath {
    fn to_path(self) -> PathBuf;
}

impl ToPath for Vec<u8> {
    fn to_path(self) -> PathBuf {
        use std::os::unix::ffi::OsStringExt;
        PathBuf::from(std::ffi::OsString::from_vec(self))
    }
}

/// A file that is read as it was when it was opened, or not at all.
struct Steady {
    file: File,
    path: PathBuf,
    size: u64,
    modified: (i64, i64),
    left: u64,
}

impl Steady {
    fn open(path: &Path) -> Result<Self, ImageError> {
        // Never through a link that has taken the file's place, never blocked by
        // a pipe that has.
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| changed_or(error, path))?;
        let metadata = file.metadata().map_err(|error| changed_or(error, path))?;
        if !metadata.is_file() {
            return Err(ImageError::Changed { path: path.to_owned() });
        }
        let (size, modified) = (metadata.len(), (metadata.mtime(), metadata.mtime_nsec()));
        Ok(Self { file, path: path.to_owned(), size, modified, left: size })
    }

    fn changed(&self) -> io::Error {
        io::Error::other(Source(ImageError::Changed { path: self.path.clone() }))
    }
}

impl Read for Steady {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let metadata = self.file.metadata()?;
            let same = metadata.len() == self.size && (metadata.mtime(), metadata.mtime_nsec()) == self.modified;
            return if same { Ok(0) } else { Err(self.changed()) };
        }
        let limit = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        match self.file.read(&mut buffer[..limit])? {
            0 if limit > 0 => Err(self.changed()),
            count => {
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}

/// Carries our own error through [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Source(ImageError);

/// Passes bytes on, and learns their digest on the way.
#[derive(Debug)]
pub(super) struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W> Hashing<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }

    /// The digest and the number of the bytes so far; counts anew then.
    pub(super) fn conclude(&mut self) -> (String, u64) {
        (render(&self.hash.finalize_reset()), std::mem::take(&mut self.size))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// `sha256:` and the hexadecimal digest of `bytes`.
pub(crate) fn digest(bytes: &[u8]) -> String {
    render(&Sha256::digest(bytes))
}

/// The same of a file's content.
pub(crate) fn digest_of_file(path: &Path) -> io::Result<String> {
    let mut file = BufReader::with_capacity(1 << 18, File::open(path)?);
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash)?;
    Ok(render(&hash.finalize()))
}

pub(crate) fn render(hash: &[u8]) -> String {
    use std::fmt::Write as _;
    hash.iter().fold(String::from("sha256:"), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
