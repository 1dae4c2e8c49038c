//! What can be made again.

use super::plan::{Cached, Caches};
use crate::embedded::NODE_INIT;
use devloop_core::error::{ErrorContext, Result};
use devloop_core::files::{self, FileLock};
use devloop_core::image;
use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Looks into the cache; `current` is the folder of this program's node programs.
pub(super) fn gather(cache: &Path, current: &Path) -> Caches {
    let running = running_programs();
    let used = |path: &Path| path == current || running.contains(path) || is_locked(&path.join("build.lock"));
    let programs = entries(&cache.join("node")).into_iter().map(|cached| (used(&cached.path), cached)).map(|(used, cached)| (cached, used));
    let node_images = cache.join("kind-node");
    let is_made = |cached: &Cached| {
        let name = cached.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.ends_with(".tar") || ["base-", "components-", "containerd-"].iter().any(|prefix| name.starts_with(prefix))
    };
    Caches {
        programs: programs.collect(),
        layers: layers(cache),
        // Somebody makes one now: what it uses can't be told.
        node_images: if is_locked(&node_images.join("lock")) {
            Vec::new()
        } else {
            entries(&node_images).into_iter().filter(is_made).collect()
        },
    }
}

/// The layers that no run uses now; none where that can't be told.
fn layers(cache: &Path) -> Vec<Cached> {
    let Ok(used) = image::blobs_in_use(cache) else { return Vec::new() };
    // Names that begin with a dot are of runs that use the others.
    let is_own = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    entries(&cache.join("layers")).into_iter().filter(|layer| !is_own(&layer.path) && !used.contains(&layer.path)).collect()
}

/// Removes layers that no run uses.
pub(super) fn remove_layers(cache: &Path, paths: &[PathBuf]) -> Result<()> {
    image::remove_blobs(cache, paths).with_context(|| format!("could not remove layers from {}", cache.display()))
}

/// Removes files and folders; absent is fine.
pub(super) fn remove(paths: &[PathBuf]) -> Result<()> {
    paths.iter().try_for_each(|path| files::remove_all(path).with_context(|| format!("could not remove {}", path.display())))
}

/// The folders of node programs that environments run, whosever they are: a
/// node's first process has its folder mounted.
fn running_programs() -> BTreeSet<PathBuf> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let nodes = processes.filter(|process| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == NODE_INIT.as_bytes())
    });
    nodes.filter_map(|process| mounted_programs(&std::fs::read_to_string(process.join("mountinfo")).ok()?)).collect()
}

/// Field 4 is the folder within its file system, field 5 where it is mounted
/// (`proc_pid_mountinfo(5)`).
fn mounted_programs(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (folder, target) = (fields.next()?, fields.next()?);
        (target == "/opt/devloop/bin").then(|| PathBuf::from(folder))
    })
}

fn is_locked(lock: &Path) -> bool {
    // Asking makes the file; only where one is there can it be held.
    lock.exists() && FileLock::try_acquire(lock).is_ok_and(|lock| lock.is_none())
}

fn entries(folder: &Path) -> Vec<Cached> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<Cached> = entries
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            let age = metadata.modified().ok()?.elapsed().unwrap_or_default().as_secs();
            Some(Cached { bytes: size(&entry.path(), &metadata), path: entry.path(), age })
        })
        .collect();
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// The space that a file or a folder takes, as `du` counts it.
pub(super) fn size(path: &Path, metadata: &Metadata) -> u64 {
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return own;
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    own + entries.filter_map(|entry| Some(size(&entry.path(), &entry.metadata().ok()?))).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_running_node_is_read_from_its_mounts() {
        let mounts = "655 634 254:0 /usr /usr ro - ext4 /dev/vda rw\n\
                      656 634 254:0 /root/.cache/devloop/node/63bb /opt/devloop/bin ro,relatime shared:120 - ext4 /dev/vda rw\n";
        assert_eq!(mounted_programs(mounts), Some("/root/.cache/devloop/node/63bb".into()));
        assert_eq!(mounted_programs(""), None);
    }

    #[test]
    fn a_cache_is_looked_at_and_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let current = folder.path().join("node/current");
        for name in ["node/current", "node/old", "kind-node/base-1"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("file"), vec![1; 10_000]).unwrap();
        }
        std::fs::write(folder.path().join("kind-node/lock"), "").unwrap();
        let caches = gather(folder.path(), &current);
        let used: Vec<bool> = caches.programs.iter().map(|(_, used)| *used).collect();
        assert_eq!(used, [true, false]);
        assert!(caches.programs[1].0.bytes >= 10_000);
        assert_eq!(caches.node_images.len(), 1);
        let held = FileLock::try_acquire(&folder.path().join("kind-node/lock")).unwrap();
        assert!(gather(folder.path(), &current).node_images.is_empty());
        drop(held);
        remove(&[caches.programs[1].0.path.clone()]).unwrap();
        assert_eq!(gather(folder.path(), &current).programs.len(), 1);
    }
}
