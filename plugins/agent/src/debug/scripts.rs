//! The sources of a program that is interpreted: the scripts around the one that it
//! was started with, in its container.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, OFlags};

use crate::failure::Failure;
use crate::process::Proc;
use crate::protocol::ProcessId;
use crate::root::ContainerRoot;

const ENDINGS: [&str; 6] = ["py", "js", "mjs", "cjs", "ts", "mts"];
/// Folders of what others wrote.
const NOT: [&str; 4] = ["node_modules", "site-packages", "dist-packages", "__pycache__"];
/// So many are enough to tell where they come from.
const MOST: usize = 5000;
const DEPTH: usize = 10;

/// Their paths in the container.
pub(crate) fn scripts(proc: &Proc, process: ProcessId) -> Result<Vec<String>, Failure> {
    let root = ContainerRoot::of(proc, process)?;
    let directory = proc.working_directory(process.pid)?;
    let arguments = proc.arguments(process.pid)?;
    let mut files = Vec::new();
    for folder in folders(&arguments, &directory) {
        list(&root, &folder, DEPTH, &mut files);
    }
    files.sort_unstable();
    files.dedup();
    Ok(files)
}

/// That of the script that was named, and the working directory; of one in the other,
/// the outer. All of a file system is nobody's sources.
fn folders(arguments: &[Vec<u8>], directory: &Path) -> Vec<PathBuf> {
    let named = arguments.iter().skip(1).map(|argument| Path::new(OsStr::from_bytes(argument))).find(|path| is_script(path));
    let named = named.and_then(|path| directory.join(path).parent().map(Path::to_owned));
    let mut folders: Vec<PathBuf> = named.into_iter().chain([directory.to_owned()]).filter(|path| path.parent().is_some()).collect();
    folders.sort_unstable();
    let all = folders.clone();
    folders.retain(|folder| !all.iter().any(|other| other != folder && folder.starts_with(other)));
    folders.dedup();
    folders
}

fn is_script(path: &Path) -> bool {
    path.extension().and_then(OsStr::to_str).is_some_and(|ending| ENDINGS.contains(&ending))
}

fn list(root: &ContainerRoot, folder: &Path, depth: usize, files: &mut Vec<String>) {
    // What can't be read has no sources that matter.
    let Ok(opened) = root.open(folder, OFlags::RDONLY | OFlags::DIRECTORY) else { return };
    let Ok(entries) = Dir::read_from(opened) else { return };
    for entry in entries.flatten() {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        let Some(text) = name.to_str().filter(|text| !text.starts_with('.')) else { continue };
        let path = folder.join(name);
        match entry.file_type() {
            FileType::Directory if depth > 0 && !NOT.contains(&text) => list(root, &path, depth - 1, files),
            FileType::RegularFile | FileType::Symlink if files.len() < MOST && is_script(&path) => {
                files.push(path.to_string_lossy().into_owned());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_are_those_of_the_script_and_the_work() {
        let of = |arguments: &str, directory: &str| {
            let arguments: Vec<Vec<u8>> = arguments.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            folders(&arguments, Path::new(directory)).iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of("python3 /app/src/app.py", "/"), ["/app/src"]);
        assert_eq!(of("node src/server.js", "/srv/shop"), ["/srv/shop"]);
        assert_eq!(of("python3 -m shop", "/srv/shop"), ["/srv/shop"]);
        assert_eq!(of("node /opt/a.mjs", "/home/app"), ["/home/app", "/opt"]);
        assert!(of("python3 -m shop", "/").is_empty());
    }

    #[test]
    fn what_others_wrote_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a.py", "lib/b.js", "lib/c.txt", "node_modules/d.js", ".git/e.py"] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let mut files = Vec::new();
        list(&ContainerRoot::at(folder.path()).unwrap(), Path::new("/"), DEPTH, &mut files);
        files.sort();
        assert_eq!(files, ["/a.py", "/lib/b.js"]);
    }
}
