//! The folder that all records are in, and those that are open: of containers
//! under the container's id, of volumes under a name made of the device and the
//! folder in it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::log::{Log, Record, Volume};
use super::store::{LOCK_PATIENCE, Store};
use crate::failure::Failure;
use crate::mounts::Mount;
use crate::protocol::{ByteString, ErrorKind};

const VOLUME: &str = "volume-";
/// So much of a hash tells the folders of one device apart.
const HASH_DIGITS: usize = 32;

#[derive(Debug)]
pub(super) struct Shelf {
    base: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    open: HashMap<String, Arc<Store>>,
    /// How long to wait for another agent: when one has not come to its end in
    /// time, the next ones in the same request are not waited for.
    patience: Duration,
}

impl Shelf {
    pub(super) fn at(base: PathBuf) -> Self {
        Self { base, inner: Mutex::new(Inner { open: HashMap::new(), patience: LOCK_PATIENCE }) }
    }

    /// The names of all records, whoever uses them.
    pub(super) fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.base) else { return Vec::new() };
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }

    /// The records that are open.
    pub(super) fn open_ones(&self) -> Vec<(String, Arc<Store>)> {
        self.lock().open.iter().map(|(name, store)| (name.clone(), Arc::clone(store))).collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Store>> {
        self.lock().open.get(name).cloned()
    }

    /// What a record holds, whoever uses it.
    pub(super) fn peek(&self, name: &str) -> Vec<Record> {
        Log::peek(&self.folder(name).join("log"))
    }

    pub(super) fn is_volume(name: &str) -> bool {
        name.starts_with(VOLUME)
    }

    /// Whether an agent left something to be undone, or is at work on it.
    pub(super) fn is_left(&self, name: &str) -> bool {
        fs::metadata(self.folder(name).join("log")).is_ok_and(|log| log.len() > 0)
    }

    /// The record of this name; another agent is waited for.
    pub(super) fn open(&self, name: &str) -> Result<Arc<Store>, Failure> {
        self.open_in(&mut self.lock(), name)
    }

    /// The record that an agent that was killed left; `None` where there is none
    /// or another session is at work, which is no business of ours then.
    pub(super) fn adopt(&self, name: &str) -> Result<Option<Arc<Store>>, Failure> {
        let mut inner = self.lock();
        if !inner.open.contains_key(name) && self.is_left(name) {
            match Store::open(&self.folder(name), Duration::ZERO) {
                Ok(store) => drop(inner.open.insert(name.to_owned(), Arc::new(store))),
                Err(failure) if failure.kind == ErrorKind::InUse => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(inner.open.get(name).cloned())
    }

    /// The record that a path of a volume belongs to, and the path there. A path
    /// stays with the first record that it came to belong to: the same file may
    /// be reached by a folder and by one above.
    pub(super) fn volume(&self, mount: &Mount, file_system: u64, path: &Path) -> Result<(Arc<Store>, PathBuf), Failure> {
        let mut inner = self.lock();
        let is_of = |volume: &Volume| volume.device == mount.device && volume.file_system == file_system;
        let holds = |volume: &Volume| is_of(volume) && path.starts_with(volume.folder.as_path());
        let known =
            inner.open.values().filter(|store| store.volume().is_some_and(|volume| holds(&volume))).max_by_key(|store| depth(store));
        if let Some(store) = known.map(Arc::clone) {
            return placed(store, path);
        }
        let prefix = device_prefix(&mount.device);
        let mut left: Vec<(String, Volume)> = Vec::new();
        for name in self.names().into_iter().filter(|name| name.starts_with(&prefix)) {
            left.extend(volume_of(&self.peek(&name)).filter(&holds).map(|volume| (name, volume)));
        }
        let left = left.into_iter().max_by_key(|(_, volume)| volume.folder.0.len()).map(|(name, _)| name);
        let name = left.unwrap_or_else(|| name_of(&mount.device, &mount.root));
        let mut store = self.open_in(&mut inner, &name)?;
        if store.volume().is_some_and(|volume| !is_of(&volume)) {
            // Of a file system that is no more.
            store.discard()?;
            inner.open.remove(&name);
            drop(store);
            store = self.open_in(&mut inner, &name)?;
        }
        if store.volume().is_none() {
            store.begin_volume(Volume { device: mount.device.clone(), file_system, folder: ByteString::from(mount.root.as_path()) })?;
        }
        placed(store, path)
    }

    /// Removes a record.
    pub(super) fn discard(&self, name: &str) -> Result<(), Failure> {
        let mut inner = self.lock();
        if let Some(store) = inner.open.get(name) {
            store.discard()?;
            inner.open.remove(name);
        }
        Ok(())
    }

    fn open_in(&self, inner: &mut Inner, name: &str) -> Result<Arc<Store>, Failure> {
        if let Some(store) = inner.open.get(name) {
            return Ok(Arc::clone(store));
        }
        let opened = Store::open(&self.folder(name), inner.patience);
        inner.patience = if opened.is_ok() { LOCK_PATIENCE } else { Duration::ZERO };
        let store = Arc::new(opened.map_err(|failure| match failure.kind {
            ErrorKind::InUse | ErrorKind::NoSpace => failure,
            // Of the agent's place, where another kind would be taken for the
            // container's.
            _ => Failure { kind: ErrorKind::Io, ..failure }.and("without it nothing is changed"),
        })?);
        inner.open.insert(name.to_owned(), Arc::clone(&store));
        Ok(store)
    }

    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which volume a record is of, if any.
pub(super) fn volume_of(records: &[Record]) -> Option<Volume> {
    records.iter().find_map(|record| match record {
        Record::Volume(volume) => Some(volume.clone()),
        _ => None,
    })
}

fn depth(store: &Store) -> usize {
    store.volume().map_or(0, |volume| volume.folder.0.len())
}

fn placed(store: Arc<Store>, path: &Path) -> Result<(Arc<Store>, PathBuf), Failure> {
    let folder = store.volume().map(|volume| volume.folder).unwrap_or_default();
    let inner = path
        .strip_prefix(folder.as_path())
        .map_err(|_| Failure::new(ErrorKind::Unsupported, format!("cannot tell where {} lies in its volume", path.display())))?;
    let inner = Path::new("/").join(inner);
    Ok((store, inner))
}

fn device_prefix(device: &str) -> String {
    format!("{VOLUME}{}-", device.replace(':', "-"))
}

fn name_of(device: &str, folder: &Path) -> String {
    let hash = blake3::hash(folder.as_os_str().as_encoded_bytes()).to_hex();
    format!("{}{}", device_prefix(device), hash.get(..HASH_DIGITS).unwrap_or(&hash))
}
