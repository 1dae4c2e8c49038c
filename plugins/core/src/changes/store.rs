//! The files of sessions.

use super::entry::{Entry, Meta};
use crate::environment::Directories;
use crate::error::{CommandError, ErrorContext, ErrorHint, Result};
use crate::files::{self, FileLock};
use serde_json::{Map, Value, json};
use std::io;
use std::path::{Path, PathBuf};

const RECORD: &str = ".json";
const STATUS: &str = ".status.json";
const LOCK: &str = ".lock";

/// The folder of all sessions.
#[derive(Clone, Debug)]
pub(super) struct Store {
    folder: PathBuf,
}

impl Store {
    pub(super) fn new(directories: &Directories) -> Self {
        Self { folder: directories.state.join("hot-reload") }
    }

    /// Held for as long as it takes to look at all sessions, to begin or to end
    /// one: so that nobody sees one that is half there.
    pub(super) fn guard(&self) -> Result<FileLock> {
        let path = self.folder.join(LOCK);
        FileLock::acquire(&path).with_context(|| format!("could not lock {}", path.display()))
    }

    /// Whether there may be sessions at all.
    pub(super) fn exists(&self) -> bool {
        self.folder.is_dir()
    }

    /// The ids of all that have a record, sorted.
    pub(super) fn ids(&self) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            // Temporary files begin with a dot.
            if let Some(id) = name.strip_suffix(RECORD).filter(|_| !name.ends_with(STATUS) && !name.starts_with('.')) {
                ids.push(id.to_owned());
            }
        }
        ids.sort();
        Ok(ids)
    }

    pub(super) fn files(&self, id: &str) -> SessionFiles {
        let path = |suffix: &str| self.folder.join(format!("{id}{suffix}"));
        SessionFiles { record: path(RECORD), status: path(STATUS), lock: path(LOCK) }
    }
}

/// The files of one session.
#[derive(Clone, Debug)]
pub(super) struct SessionFiles {
    pub(super) record: PathBuf,
    pub(super) status: PathBuf,
    lock: PathBuf,
}

impl SessionFiles {
    /// The session's lock; nothing when somebody has it.
    pub(super) fn try_lock(&self) -> io::Result<Option<FileLock>> {
        FileLock::try_acquire(&self.lock)
    }

    /// Removes all of them; the record first, which is what makes a session.
    pub(super) fn remove(&self) -> Result<()> {
        for path in [&self.record, &self.status, &self.lock] {
            files::remove_all(path).with_context(|| format!("could not remove {}", path.display()))?;
        }
        Ok(())
    }

    pub(super) fn write(&self, document: &Document) -> Result<()> {
        let text = serde_json::to_vec_pretty(&document.fields).context("could not write down what is changed")?;
        // On the disk before the change is in the cluster: power may fail.
        let written = files::write_durable(&self.record, &text, 0o600);
        written
            .with_context(|| format!("could not write {}", self.record.display()))
            .hint("nothing is changed in the cluster that could not be undone after a crash; make the folder writable")
    }
}

/// A session's record. What this version doesn't know of stays in it.
#[derive(Clone, Debug)]
pub(super) struct Document {
    fields: Map<String, Value>,
}

impl Document {
    pub(super) fn new(meta: &Meta) -> Self {
        let fields = [("meta".to_owned(), json!(meta)), ("entries".to_owned(), json!([]))];
        Self { fields: fields.into_iter().collect() }
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
        let damaged = || format!("{} is not the record of a session", path.display());
        let value: Value = serde_json::from_slice(&text).with_context(damaged)?;
        match value {
            Value::Object(fields)
                if fields.get("meta").is_some_and(Value::is_object) && fields.get("entries").is_some_and(Value::is_array) =>
            {
                Ok(Self { fields })
            }
            _ => Err(CommandError::new(damaged())),
        }
    }

    /// Which session it is, as far as it can be read.
    pub(super) fn meta(&self) -> Meta {
        self.fields.get("meta").and_then(|meta| serde_json::from_value(meta.clone()).ok()).unwrap_or_default()
    }

    fn raw(&self) -> &[Value] {
        self.fields.get("entries").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// The entries that this version can read.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.raw().iter().filter_map(parse).collect()
    }

    /// How many it can't.
    pub(super) fn unreadable(&self) -> usize {
        self.raw().iter().filter(|value| parse(value).is_none()).count()
    }

    /// The same record with an entry instead of those about the same.
    pub(super) fn with(&self, entry: &Entry) -> Result<Self> {
        let mut document = self.without(entry);
        let entry = serde_json::to_value(entry).context("could not write down what is changed")?;
        if let Some(entries) = document.fields.get_mut("entries").and_then(Value::as_array_mut) {
            entries.push(entry);
        }
        Ok(document)
    }

    /// The same record without the entries about the same.
    pub(super) fn without(&self, entry: &Entry) -> Self {
        let mut document = self.clone();
        if let Some(entries) = document.fields.get_mut("entries").and_then(Value::as_array_mut) {
            entries.retain(|value| parse(value).is_none_or(|other| !other.same_subject(entry)));
        }
        document
    }
}

fn parse(value: &Value) -> Option<Entry> {
    serde_json::from_value(value.clone()).ok()
}
