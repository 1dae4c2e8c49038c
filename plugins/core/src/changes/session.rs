//! Sessions: one's own, those that go on, and those that were cut off.

use super::entry::{Entry, Meta};
use super::store::{Document, SessionFiles, Store};
use crate::environment::Directories;
use crate::error::{CommandError, ErrorContext, Result};
use crate::files::{self, FileLock};
use serde::Serialize;
use serde_json::Value;
use std::hash::{BuildHasher, Hasher};

/// Names are random enough that the first is free; more would be a fault.
const ATTEMPTS: usize = 16;

/// The record of a session that goes on. When it is dropped without
/// [`Session::end`], the record stays, for the next run to undo what is in it.
#[derive(Debug)]
pub struct Session {
    id: String,
    store: Store,
    files: SessionFiles,
    document: Document,
    _lock: FileLock,
}

/// A session that was cut off, with what it left changed. As long as this is
/// there, no one else finds it.
#[derive(Debug)]
pub struct StaleSession {
    session: Session,
}

/// A session that goes on, perhaps in another process.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveSession {
    /// Its name among the sessions.
    pub id: String,
    /// Which one it is.
    pub meta: Meta,
    /// What it changed.
    pub entries: Vec<Entry>,
    /// What it published last.
    pub status: Option<Value>,
}

impl Session {
    /// Begins a record with nothing changed yet.
    ///
    /// # Errors
    /// When the state folder can't be written to.
    pub fn begin(directories: &Directories, meta: &Meta) -> Result<Self> {
        let store = Store::new(directories);
        let _guard = store.guard()?;
        for _ in 0..ATTEMPTS {
            let id = format!("{}-{:08x}", meta.pid, random());
            let files = store.files(&id);
            if files.record.exists() {
                continue;
            }
            let Some(lock) = files.try_lock().context("could not lock the record of the session")? else { continue };
            let document = Document::new(meta);
            files.write(&document)?;
            return Ok(Self { id, store, files, document, _lock: lock });
        }
        Err(CommandError::new("could not find a free name for the record of the session"))
    }

    /// Its name among the sessions.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is written down.
    pub fn entries(&self) -> Vec<Entry> {
        self.document.entries()
    }

    /// Writes down a change that is about to be made, in place of an earlier one
    /// of the same thing. When this answers, it is on the disk.
    ///
    /// # Errors
    /// When it can't be written: then the change must not be made.
    pub fn note(&mut self, entry: &Entry) -> Result<()> {
        self.replace(self.document.with(entry)?)
    }

    /// Takes out what was undone, or never came to be.
    ///
    /// # Errors
    /// When it can't be written; undoing it again is no harm.
    pub fn forget(&mut self, entry: &Entry) -> Result<()> {
        self.replace(self.document.without(entry))
    }

    fn replace(&mut self, document: Document) -> Result<()> {
        self.files.write(&document)?;
        self.document = document;
        Ok(())
    }

    /// Says what the session is doing, for [`live`].
    ///
    /// # Errors
    /// When it can't be written; the last one is kept then.
    pub fn publish(&self, status: &impl Serialize) -> Result<()> {
        let path = &self.files.status;
        let text = serde_json::to_vec(status).context("could not write the status of the session")?;
        files::write_atomic(path, &text, 0o600).with_context(|| format!("could not write {}", path.display()))
    }

    /// Ends the session, and its record, since nothing is left to undo. What this
    /// version can't read is not its to drop: then the record stays.
    ///
    /// # Errors
    /// When the files can't be removed.
    pub fn end(self) -> Result<()> {
        let _guard = self.store.guard()?;
        match self.document.unreadable() {
            0 => self.files.remove(),
            _ => Ok(()),
        }
    }
}

impl StaleSession {
    /// Its name among the sessions.
    pub fn id(&self) -> &str {
        &self.session.id
    }

    /// Which session it was.
    pub fn meta(&self) -> Meta {
        self.session.document.meta()
    }

    /// What it may have left changed, in the order in which it was.
    pub fn entries(&self) -> Vec<Entry> {
        self.session.entries()
    }

    /// Takes out what was undone.
    ///
    /// # Errors
    /// When it can't be written; undoing it again is no harm.
    pub fn forget(&mut self, entry: &Entry) -> Result<()> {
        self.session.forget(entry)
    }

    /// Removes the record, see [`Session::end`].
    ///
    /// # Errors
    /// When the files can't be removed.
    pub fn end(self) -> Result<()> {
        self.session.end()
    }
}

/// The sessions whose process is gone. What can't be read is warned of and left
/// as it is.
pub fn stale(directories: &Directories) -> Vec<StaleSession> {
    let found = scan(directories, |store, id| {
        let files = store.files(&id);
        let Some(lock) = files.try_lock().with_context(|| format!("could not lock the record of session {id}"))? else { return Ok(None) };
        let document = Document::read(&files.record)?;
        let unreadable = document.unreadable();
        if unreadable > 0 {
            tracing::warn!(record = %files.record.display(), unreadable, "a session that was cut off made changes that only a newer version can undo");
        }
        Ok(Some(StaleSession { session: Session { id, store: store.clone(), files, document, _lock: lock } }))
    });
    found.unwrap_or_else(warned)
}

/// The sessions that go on.
pub fn live(directories: &Directories) -> Vec<LiveSession> {
    let found = scan(directories, |store, id| {
        let files = store.files(&id);
        if files.try_lock().with_context(|| format!("could not lock the record of session {id}"))?.is_some() {
            return Ok(None);
        }
        let document = Document::read(&files.record)?;
        // It may not have said anything yet.
        let status = files::read_optional(&files.status).ok().flatten().and_then(|text| serde_json::from_slice(&text).ok());
        Ok(Some(LiveSession { meta: document.meta(), entries: document.entries(), status, id }))
    });
    found.unwrap_or_else(warned)
}

/// Looks at each session, while none begins or ends.
fn scan<T>(directories: &Directories, look: impl Fn(&Store, String) -> Result<Option<T>>) -> Result<Vec<T>> {
    let store = Store::new(directories);
    if !store.exists() {
        return Ok(Vec::new());
    }
    let _guard = store.guard()?;
    let mut found = Vec::new();
    for id in store.ids().context("could not list the records of sessions")? {
        match look(&store, id) {
            Ok(session) => found.extend(session),
            Err(error) => drop(warned::<T>(error)),
        }
    }
    Ok(found)
}

fn warned<T>(error: CommandError) -> Vec<T> {
    tracing::warn!("{}", error.chain().join(": "));
    Vec::new()
}

fn random() -> u32 {
    // The standard library's own source of randomness: its hash maps' keys.
    let number = std::collections::hash_map::RandomState::new().build_hasher().finish();
    u32::try_from(number >> 32).unwrap_or_default()
}
