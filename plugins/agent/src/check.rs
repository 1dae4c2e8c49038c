//! Files compared with what they should be.

use std::fs::File;
use std::io;

use rustix::fs::FileType;

use crate::failure::Failure;
use crate::protocol::{ErrorKind, Expected};
use crate::root::{ContainerPath, ContainerRoot};
use crate::undo::open_regular;

/// Half of a small node's processors at most; a container is at work on it.
const THREADS: usize = 2;
const PERMISSIONS: u32 = 0o777;

/// The indices of the entries that are missing or otherwise, in order.
pub(crate) fn differing(root: &ContainerRoot, entries: &[Expected]) -> Result<Vec<u32>, Failure> {
    // Every second one: the large ones of a folder tend to be neighbours.
    let part = |first: usize| -> Vec<u32> {
        let indices = (first..entries.len()).step_by(THREADS);
        indices.filter(|index| !is_as_expected(root, &entries[*index])).filter_map(|index| u32::try_from(index).ok()).collect()
    };
    let mut found: Vec<u32> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..THREADS).map(|first| scope.spawn(move || part(first))).collect();
        let mut found = part(0);
        for other in others {
            let other = other.join().map_err(|_| Failure::new(ErrorKind::Io, "a thread that compares files panicked"))?;
            found.extend(other);
        }
        Ok(found)
    })?;
    found.sort_unstable();
    Ok(found)
}

/// What can't be read is not as expected: writing it will tell why.
fn is_as_expected(root: &ContainerRoot, expected: &Expected) -> bool {
    let Ok(path) = ContainerPath::parse(&expected.path) else { return false };
    match &expected.link {
        Some(target) => {
            let place = root.place_itself(&path).ok().flatten();
            let now = place.and_then(|place| rustix::fs::readlinkat(&place.parent, &place.name, Vec::new()).ok());
            now.is_some_and(|now| now.as_bytes() == target.0)
        }
        None => open_regular(root, path.as_path()).is_ok_and(|file| is_content(file, expected)),
    }
}

fn is_content(mut file: File, expected: &Expected) -> bool {
    let Ok(stat) = rustix::fs::fstat(&file) else { return false };
    let same = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_size.cast_unsigned() == expected.size
        && expected.mode.is_none_or(|mode| stat.st_mode & PERMISSIONS == mode & PERMISSIONS);
    let Some(hash) = expected.blake3.filter(|_| same) else { return same };
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut file, &mut hasher).is_ok() && *hasher.finalize().as_bytes() == hash
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn expected(path: &str, content: &str) -> Expected {
        let blake3 = Some(*blake3::hash(content.as_bytes()).as_bytes());
        Expected { path: path.into(), size: content.len() as u64, blake3, mode: Some(0o640), link: None }
    }

    #[test]
    fn each_way_to_differ_is_found() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("f"), "text").unwrap();
        fs::set_permissions(folder.path().join("f"), PermissionsExt::from_mode(0o640)).unwrap();
        symlink("f", folder.path().join("l")).unwrap();
        fs::create_dir(folder.path().join("d")).unwrap();
        let root = ContainerRoot::at(folder.path()).unwrap();
        let link = |target: &str| Expected { link: Some(target.into()), ..expected("/l", "") };
        let entries = [
            expected("/f", "text"),
            expected("/f", "test"),
            expected("/f", "longer text"),
            Expected { mode: Some(0o600), ..expected("/f", "text") },
            Expected { blake3: None, mode: None, ..expected("/f", "test") },
            expected("/missing", "text"),
            expected("/d", ""),
            expected("relative", "text"),
            expected("/../f", "text"),
            link("f"),
            link("g"),
            Expected { link: Some("f".into()), ..expected("/f", "text") },
            // Written through a link, and so compared through it.
            expected("/l", "text"),
        ];
        assert_eq!(differing(&root, &entries).unwrap(), [1, 2, 3, 5, 6, 7, 8, 10, 11]);
        assert!(differing(&root, &[]).unwrap().is_empty());
    }
}
