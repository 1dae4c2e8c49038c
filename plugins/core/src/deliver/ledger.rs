//! What was brought to registries for a cluster: the images' names don't tell
//! there whose they are.

use crate::error::{ErrorContext, Result};
use crate::files;
use crate::image::digest;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// So many images are on record for a cluster, the youngest.
const LIMIT: usize = 1000;

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The registry, as it is pushed to.
    pub registry: String,
    /// The name that the nodes know it by, with tag and digest.
    pub reference: String,
    /// Of the manifest.
    pub digest: String,
    /// Of the layers.
    pub bytes: u64,
    /// When it was pushed last, in seconds since 1970.
    pub delivered: i64,
}

/// What is on record for the cluster behind a kubeconfig context, oldest first.
///
/// # Errors
/// When the record can't be read.
pub fn read(state: &Path, context: &str) -> Result<Vec<Entry>> {
    let path = path(state, context);
    let content = files::read_optional(&path).with_context(|| format!("could not read {}", path.display()))?;
    match content {
        Some(content) => serde_json::from_slice(&content).with_context(|| format!("{} is damaged", path.display())),
        None => Ok(Vec::new()),
    }
}

/// Puts an image on record.
///
/// # Errors
/// When the record can't be written; it is as before then.
pub fn add(state: &Path, context: &str, entry: Entry) -> Result<()> {
    let path = path(state, context);
    let folder = path.parent().unwrap_or(state);
    std::fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    // Two commands that end at once must not undo each other's entry.
    let lock = std::fs::File::create(path.with_extension("lock")).and_then(|lock| lock.lock().map(|()| lock));
    let _lock = lock.with_context(|| format!("could not lock {}", path.display()))?;
    // A damaged record is begun anew: all it is for is to be shown.
    let mut entries = read(state, context).unwrap_or_default();
    entries.retain(|known| known.reference != entry.reference);
    entries.push(entry);
    entries.drain(..entries.len().saturating_sub(LIMIT));
    let text = serde_json::to_vec(&entries).context("could not write the record of deliveries")?;
    files::write_atomic(&path, &text, 0o600).with_context(|| format!("could not write {}", path.display()))
}

fn path(state: &Path, context: &str) -> PathBuf {
    let name = digest(context.as_bytes());
    state.join("delivered").join(format!("{}.json", name.trim_start_matches("sha256:").get(..16).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_on_record_once_by_its_last_delivery() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |name: &str, delivered| Entry {
            registry: "localhost:5001".into(),
            reference: format!("localhost:5001/{name}:1"),
            digest: "sha256:a".into(),
            bytes: 1,
            delivered,
        };
        assert_eq!(read(folder.path(), "a").unwrap(), []);
        for (name, delivered) in [("x", 1), ("y", 2), ("x", 3)] {
            add(folder.path(), "a", entry(name, delivered)).unwrap();
        }
        assert_eq!(read(folder.path(), "a").unwrap(), [entry("y", 2), entry("x", 3)]);
        assert_eq!(read(folder.path(), "b").unwrap(), []);
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (folder, entry) = (folder.path(), entry(&format!("z{number}"), 4));
                scope.spawn(move || add(folder, "a", entry).unwrap());
            }
        });
        assert_eq!(read(folder.path(), "a").unwrap().len(), 10);
    }
}
