//! What layers were made of the last time: files that are as they were are not read
//! again. A layer that is needed after all is made sure of, see [`Layer::obtain`].

use super::ImageError;
use super::blob::{Described, LAYER_TYPE, Layer, Supplier, Unobtainable};
use super::layer::{self, Entry, Plan};
use super::store::{Receiving, Store};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Files are stamped by a clock that may lag behind by a tick.
const TICK: Duration = Duration::from_millis(50);

/// The record of one layer of one image.
pub(super) struct Known {
    path: PathBuf,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Of all files.
    stamp: String,
    digest: String,
    size: u64,
}

impl Known {
    /// The record of a layer of a project, by what it is for.
    pub(super) fn of(cache: &Path, root: &Path, purpose: &[&str]) -> Self {
        let name = blake3::hash(format!("{}\0{}", root.display(), purpose.join("\0")).as_bytes()).to_hex();
        Self { path: cache.join("known").join(&name[..32]) }
    }

    /// The layer of a plan, and whether it was read and written just now.
    pub(super) fn layer(&self, store: &Store, plan: &Plan) -> Result<(Layer, bool), ImageError> {
        let Some(stamp) = stamp(plan, SystemTime::now()) else { return Ok((store.add(plan)?, true)) };
        if let Some(Record { digest, size, .. }) = self.read().filter(|record| record.stamp == stamp) {
            let described = Described { diff_id: digest.clone(), digest, media_type: LAYER_TYPE.to_owned(), size };
            let layer = store.layer(described, Arc::new(Files { plan: plan.clone() }))?;
            if layer.path.metadata().is_ok_and(|metadata| metadata.len() == size) {
                return Ok((layer, false));
            }
        }
        let layer = store.add(plan)?;
        // Not if one of them changed meanwhile.
        if self::stamp(plan, SystemTime::now()).as_ref() == Some(&stamp) {
            self.write(&Record { stamp, digest: layer.digest.clone(), size: layer.size });
        }
        Ok((layer, true))
    }

    fn read(&self) -> Option<Record> {
        serde_json::from_slice(&std::fs::read(&self.path).ok()?).ok()
    }

    /// The next run may do without: this never fails.
    fn write(&self, record: &Record) {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let written = std::fs::create_dir_all(folder).and_then(|()| {
            let text = serde_json::to_vec(record)?;
            crate::files::write_atomic(&self.path, &text, 0o644)
        });
        if let Err(error) = written {
            tracing::info!(%error, "what a layer is made of is not remembered");
        }
    }
}

/// How all files of a plan are: another text when any of them was written to, which
/// the time of the inode's last change tells, too, that no program sets. `None` where
/// it can't be told, or one is so young that a change may go unseen.
fn stamp(plan: &Plan, now: SystemTime) -> Option<String> {
    let settled = now.checked_sub(TICK)?.duration_since(UNIX_EPOCH).ok()?;
    let settled = (i64::try_from(settled.as_secs()).ok()?, i64::from(settled.subsec_nanos()));
    let mut hasher = blake3::Hasher::new();
    for (path, entry) in plan {
        hasher.update(&(path.len() as u64).to_le_bytes()).update(path);
        match entry {
            Entry::Directory => hasher.update(b"d"),
            Entry::Link { target } => hasher.update(b"l").update(&(target.len() as u64).to_le_bytes()).update(target),
            Entry::File { source, executable } => {
                let metadata = std::fs::symlink_metadata(source).ok().filter(std::fs::Metadata::is_file)?;
                let (modified, changed) = ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
                if modified >= settled || changed >= settled {
                    return None;
                }
                let own = (executable, metadata.dev(), metadata.ino(), metadata.len(), modified, changed);
                hasher.update(b"f").update(format!("{own:?}").as_bytes())
            }
        };
    }
    Some(hasher.finalize().to_hex()[..32].to_owned())
}

/// The files that a layer was made of, should the cache have lost it since.
#[derive(Debug)]
struct Files {
    plan: Plan,
}

impl Supplier for Files {
    fn supply<'a>(&'a self, _: &'a Layer, to: &'a mut Receiving) -> BoxFuture<'a, Result<(), Unobtainable>> {
        Box::pin(async move { Ok(layer::write_tar(&self.plan, to)?) })
    }

    fn describe(&self) -> String {
        "the project's files".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::layer::of_files;

    /// As if it had been written long ago: the clock of changes can't be set, so it
    /// is waited for.
    fn write(path: &Path, content: &str) {
        std::fs::write(path, content).unwrap();
        std::thread::sleep(TICK + Duration::from_millis(20));
    }

    #[tokio::test]
    async fn what_did_not_change_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let store = Store::open(folder.path()).unwrap();
        let known = Known::of(folder.path(), folder.path(), &["web", "/file"]);
        let plan = of_files(&[(&path, "/file")], false).unwrap();
        write(&path, "one");
        let (first, made) = known.layer(&store, &plan).unwrap();
        assert!(made);
        let (again, made) = known.layer(&store, &plan).unwrap();
        assert!(!made && again == first);
        again.obtain().await.unwrap();
        // The same length, and the time of a change set back.
        let modified = path.metadata().unwrap().modified().unwrap();
        write(&path, "two");
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        std::thread::sleep(TICK + Duration::from_millis(20));
        let (second, made) = known.layer(&store, &plan).unwrap();
        assert!(made && second.digest != first.digest);
        // Damaged in the cache, it is made again as soon as somebody needs it.
        std::fs::write(&second.path, vec![0; usize::try_from(second.size).unwrap()]).unwrap();
        let (recalled, made) = known.layer(&store, &plan).unwrap();
        assert!(!made);
        recalled.obtain().await.unwrap();
        assert_eq!(crate::image::digest_of_file(&recalled.path).unwrap(), second.digest);
        // Gone from it, at once.
        std::fs::remove_file(&second.path).unwrap();
        assert!(known.layer(&store, &plan).unwrap().1);
    }

    #[test]
    fn what_was_written_just_now_may_change_unseen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let plan = of_files(&[(&path, "/file")], false).unwrap();
        assert_eq!(stamp(&plan, SystemTime::now()), None);
        std::fs::write(&path, "x").unwrap();
        let changed = path.metadata().unwrap().modified().unwrap();
        assert_eq!(stamp(&plan, changed), None);
        assert!(stamp(&plan, changed + TICK + TICK).is_some());
    }
}
