//! What goes to a cluster of a program: all but its symbols, which stay here.

use crate::files;
use crate::symbols::{Stripped, Symbols, strip};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A copy that another program's version has taken the place of is removed when
/// nobody can be reading it any more.
const OUTDATED: Duration = Duration::from_secs(60 * 60);

/// A program without its symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Where it is.
    pub path: PathBuf,
    /// Whether they may still be in it: it is in no format that is known here.
    pub whole: bool,
}

/// Takes the symbols out of a copy of a program, in the folder `keep`, and puts
/// them where they are found by its build id. What was done before for the very
/// same file isn't done again.
///
/// # Errors
/// When the program can't be read or the copy can't be written. That symbols can't
/// be kept is no reason not to ship the program.
pub fn ship(keep: &Path, program: &Path, symbols: &Symbols) -> io::Result<Shipped> {
    let stamp = stamp(program)?;
    let series = format!("shipped-{}-", name(program.as_os_str().as_bytes()));
    let path = keep.join(format!("{series}{}", name(stamp.as_bytes())));
    let whole = keep.join(format!("{}.whole", path.file_name().unwrap_or_default().to_string_lossy()));
    for (path, is_whole) in [(&path, false), (&whole, true)] {
        if path.is_file() {
            return Ok(Shipped { path: path.clone(), whole: is_whole });
        }
    }
    remove_outdated(keep, &series);
    let mut temporary = tempfile::Builder::new().prefix(".shipped-").permissions(program.metadata()?.permissions()).tempfile_in(keep)?;
    let stripped = strip(&File::open(program)?, temporary.as_file_mut())?;
    let is_whole = stripped == Stripped::Unknown;
    let to = if is_whole { whole } else { path };
    if stripped == Stripped::TakenOut
        && let Err(error) = symbols.keep(program)
    {
        tracing::warn!(%error, program = %program.display(), "the program's symbols are not kept, a debugger will lack them");
    }
    if self::stamp(program)? != stamp {
        return Err(io::Error::other(format!("{} changed while it was read", program.display())));
    }
    temporary.persist(&to).map_err(|error| error.error)?;
    Ok(Shipped { path: to, whole: is_whole })
}

/// How a file is now; another one when anything was written to it.
fn stamp(path: &Path) -> io::Result<String> {
    let metadata = path.metadata()?;
    let (modified, changed) = ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
    Ok(format!("{} {} {} {modified:?} {changed:?}", metadata.dev(), metadata.ino(), metadata.len()))
}

fn name(text: &[u8]) -> String {
    blake3::hash(text).to_hex()[..16].to_owned()
}

fn remove_outdated(keep: &Path, series: &str) {
    let entries = std::fs::read_dir(keep).into_iter().flatten().flatten();
    let is_old = |entry: &std::fs::DirEntry| {
        let age = entry.metadata().ok().and_then(|metadata| metadata.modified().ok()?.elapsed().ok());
        age.is_some_and(|age| age > OUTDATED)
    };
    for entry in entries.filter(|entry| OsStr::as_bytes(&entry.file_name()).starts_with(series.as_bytes()) && is_old(entry)) {
        // It would only take space.
        let _ = files::remove_all(&entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_stripped_once_and_anew_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (program, symbols) = (folder.path().join("program"), Symbols::at(folder.path()));
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let first = ship(folder.path(), &program, &symbols).unwrap();
        assert!(!first.whole && symbols.of_program(&first.path).unwrap().is_some());
        assert_eq!(first.path.metadata().unwrap().mode() & 0o777, program.metadata().unwrap().mode() & 0o777);
        assert_eq!(ship(folder.path(), &program, &symbols).unwrap(), first);
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        let script = ship(folder.path(), &program, &symbols).unwrap();
        assert!(script.whole && script.path != first.path, "{script:?}");
        assert_eq!(std::fs::read(&script.path).unwrap(), b"#!/bin/sh\n");
        assert!(first.path.exists(), "somebody may still be reading it");
    }
}
