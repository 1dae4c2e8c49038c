//! Programs go to a cluster without their symbols; these stay on this machine,
//! found by the program's build id: what a linker writes into a program and strip
//! leaves there.
//!
//! The folder is laid out as debuggers look for it: gdb by `set
//! debug-file-directory`, Delve by `debug-info-directories`, as
//! `.build-id/ab/cdef....debug`
//! (<https://sourceware.org/gdb/current/onlinedocs/gdb.html/Separate-Debug-Files.html>).
//! Go has another kind of id, beside or instead of that one.

mod strip;

pub use strip::{Stripped, strip};

use crate::environment::Directories;
use crate::error::Result;
use crate::files::{Aged, remove_oldest};
use crate::image::{digest, read_size};
use object::read::ReadCache;
use object::{Object, ObjectSection};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How much the folder may hold, in bytes or with a unit: `8GiB`.
pub const SIZE_VARIABLE: &str = "DEVLOOP_SYMBOLS_SIZE";
const DEFAULT_SIZE: u64 = 4 << 30;

/// The symbols that this machine has.
#[derive(Clone, Debug)]
pub struct Symbols {
    folder: PathBuf,
    limit: u64,
}

impl Symbols {
    /// Those of a cache folder, as many as `DEVLOOP_SYMBOLS_SIZE` allows.
    pub fn at(cache: &Path) -> Self {
        let limit = std::env::var(SIZE_VARIABLE).ok().as_deref().and_then(read_size);
        Self { folder: cache.join("symbols"), limit: limit.unwrap_or(DEFAULT_SIZE) }
    }

    /// Those of this user.
    ///
    /// # Errors
    /// When it can't be told where the cache is.
    pub fn from_env() -> Result<Self> {
        Ok(Self::at(&Directories::from_env()?.cache))
    }

    /// The folder, for a debugger that looks through it by itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps a copy of a program that has its symbols; answers where. Nothing is
    /// done, and `None` answered, for one without a build id: it could never be
    /// found again. Those used longest ago make room.
    ///
    /// # Errors
    /// When the program can't be read or the copy can't be written.
    pub fn keep(&self, program: &Path) -> io::Result<Option<PathBuf>> {
        let Some(id) = build_id(program)? else { return Ok(None) };
        let path = self.path(&id);
        let same_size = path.metadata().is_ok_and(|kept| program.metadata().is_ok_and(|program| program.len() == kept.len()));
        if same_size {
            touch(&path)?;
            return Ok(Some(path));
        }
        let folder = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder)?;
        let temporary = tempfile::Builder::new().prefix(".incoming-").tempfile_in(folder)?;
        std::fs::copy(program, temporary.path())?;
        if build_id(temporary.path())? != Some(id) {
            return Err(io::Error::other(format!("{} changed while it was read", program.display())));
        }
        temporary.persist(&path).map_err(|error| error.error)?;
        // The copy has the time of the program, which may be long ago.
        touch(&path)?;
        self.make_room(&path);
        Ok(Some(path))
    }

    /// The program with this build id, as [`build_id`] says it.
    pub fn find(&self, build_id: &str) -> Option<PathBuf> {
        let path = self.path(build_id);
        path.is_file().then(|| {
            // That it is used keeps it; that this can't be noted is no harm.
            let _ = touch(&path);
            path
        })
    }

    /// The symbols of a program, which has none itself.
    ///
    /// # Errors
    /// When the program can't be read.
    pub fn of_program(&self, program: &Path) -> io::Result<Option<PathBuf>> {
        Ok(build_id(program)?.and_then(|id| self.find(&id)))
    }

    fn path(&self, id: &str) -> PathBuf {
        let is_hex = id.len() > 2 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        match id.split_at_checked(2) {
            Some((front, rest)) if is_hex => self.folder.join(".build-id").join(front).join(format!("{rest}.debug")),
            // Go's ids have slashes.
            _ => self.folder.join("go").join(format!("{}.debug", digest(id.as_bytes()).trim_start_matches("sha256:"))),
        }
    }

    /// Removes what was used longest ago, but not what was kept just now.
    fn make_room(&self, kept: &Path) {
        let mut files = Vec::new();
        list(&self.folder, &mut files);
        remove_oldest(files, self.limit, |path| path == kept);
    }
}

fn touch(path: &Path) -> io::Result<()> {
    File::open(path)?.set_modified(SystemTime::now())
}

fn list(folder: &Path, files: &mut Vec<Aged>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            list(&entry.path(), files);
        } else if let Ok(modified) = metadata.modified() {
            files.push((modified, metadata.len(), entry.path()));
        }
    }
}

/// What tells a program from all others, whether or not it has symbols: the
/// hexadecimal id of the note `.note.gnu.build-id`, else the text of Go's
/// `.note.go.buildid`. None for what has neither, or is no ELF program.
///
/// # Errors
/// When the file can't be read.
pub fn build_id(program: &Path) -> io::Result<Option<String>> {
    let data = ReadCache::new(File::open(program)?);
    let Ok(file) = object::File::parse(&data) else { return Ok(None) };
    if let Some(id) = gnu_build_id(&file) {
        return Ok(Some(id));
    }
    let note = file.section_by_name(".note.go.buildid").and_then(|section| section.data().ok());
    Ok(note.and_then(go_id))
}

/// The id of the note `.note.gnu.build-id` (ld(1), `--build-id`), in hexadecimal
/// digits.
pub fn gnu_build_id<'data>(program: &impl Object<'data>) -> Option<String> {
    let id = program.build_id().ok().flatten()?;
    Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Reads Go's note: the sizes of name and content, a type, the name `Go`, the
/// content; numbers are little endian on all that Go builds for here.
fn go_id(note: &[u8]) -> Option<String> {
    let length = usize::try_from(u32::from_le_bytes(note.get(4..8)?.try_into().ok()?)).ok()?;
    (note.get(12..16)? == b"Go\0\0").then_some(())?;
    String::from_utf8(note.get(16..16 + length)?.to_vec()).ok().filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test itself: a program with symbols and a build id.
    fn own() -> PathBuf {
        std::env::current_exe().unwrap()
    }

    #[test]
    fn a_stripped_program_leads_to_its_symbols() {
        let folder = tempfile::tempdir().unwrap();
        let (symbols, stripped) = (Symbols::at(folder.path()), folder.path().join("stripped"));
        strip(&File::open(own()).unwrap(), &mut File::create_new(&stripped).unwrap()).unwrap();
        assert!(stripped.metadata().unwrap().len() < own().metadata().unwrap().len());
        assert_eq!(build_id(&stripped).unwrap(), build_id(&own()).unwrap());
        assert_eq!(symbols.of_program(&stripped).unwrap(), None);
        let kept = symbols.keep(&own()).unwrap().unwrap();
        assert_eq!(symbols.of_program(&stripped).unwrap(), Some(kept.clone()));
        assert_eq!(kept.metadata().unwrap().len(), own().metadata().unwrap().len());
        assert!(kept.strip_prefix(symbols.folder()).unwrap().starts_with(".build-id"));
    }

    #[test]
    fn the_oldest_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let size = own().metadata().unwrap().len();
        let symbols = Symbols { limit: size + 10, ..Symbols::at(folder.path()) };
        let old = symbols.path("Go/id/of/a/program");
        std::fs::create_dir_all(old.parent().unwrap()).unwrap();
        std::fs::write(&old, vec![0; 100]).unwrap();
        assert_eq!(symbols.find("Go/id/of/a/program"), Some(old.clone()));
        File::open(&old).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let kept = symbols.keep(&own()).unwrap().unwrap();
        assert!(kept.exists() && !old.exists());
        let none = Symbols { limit: 0, ..symbols };
        assert_eq!(none.keep(&own()).unwrap(), Some(kept.clone()));
        assert!(kept.exists());
    }

    #[test]
    fn gos_own_note_is_an_id() {
        let mut note = Vec::new();
        for number in [4_u32, 5, 4] {
            note.extend(number.to_le_bytes());
        }
        note.extend(b"Go\0\0ab/cd\0\0\0");
        assert_eq!(go_id(&note).as_deref(), Some("ab/cd"));
        assert_eq!(go_id(&note[..18]), None);
        assert_eq!(go_id(b""), None);
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        std::fs::write(&script, "#!/bin/sh").unwrap();
        assert_eq!(build_id(&script).unwrap(), None);
        assert_eq!(Symbols::at(folder.path()).keep(&script).unwrap(), None);
    }
}
