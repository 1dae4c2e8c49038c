//! Writes replies on a thread of its own: while the client takes none, files are
//! still opened before they are deleted.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};

/// So many replies wait to be written.
const WAITING: usize = 4;

/// The way to the thread.
#[derive(Debug)]
pub(super) struct Writer {
    frames_tx: Option<SyncSender<Vec<u8>>>,
    /// Readable when there is room, or the end.
    room: Arc<OwnedFd>,
    failed: Arc<Mutex<Option<io::Error>>>,
    thread: Option<JoinHandle<()>>,
    /// What there was no room for.
    waiting: Option<Vec<u8>>,
}

impl Writer {
    pub(super) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (frames_tx, frames_rx) = sync_channel(WAITING);
        let room = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let failed = Arc::new(Mutex::new(None));
        let (its_room, its_failed) = (Arc::clone(&room), Arc::clone(&failed));
        let thread = std::thread::Builder::new().name("writer".into()).spawn(move || {
            let written = write_all(&frames_rx, output, &its_room);
            drop(frames_rx);
            if let Err(error) = written {
                *its_failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            wake(&its_room);
        })?;
        Ok(Self { frames_tx: Some(frames_tx), room, failed, thread: Some(thread), waiting: None })
    }

    /// Becomes readable when there may be room again.
    pub(super) fn room(&self) -> &OwnedFd {
        &self.room
    }

    /// Whether the next frame will be taken.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub(super) fn has_room(&mut self) -> io::Result<bool> {
        let mut count = [0; 8];
        // Nothing to read is no failure.
        let _ = rustix::io::read(&self.room, &mut count);
        match self.waiting.take() {
            Some(frame) => self.send(frame).map(|()| self.waiting.is_none()),
            None => Ok(true),
        }
    }

    /// Hands a frame over, or keeps it until there is room.
    ///
    /// # Errors
    /// When nothing can be written any more.
    pub(super) fn send(&mut self, frame: Vec<u8>) -> io::Result<()> {
        let Some(frames_tx) = &self.frames_tx else { return Err(io::ErrorKind::BrokenPipe.into()) };
        match frames_tx.try_send(frame) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(frame)) => {
                self.waiting = Some(frame);
                Ok(())
            }
            Err(TrySendError::Disconnected(_)) => {
                let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
                Err(failed.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()))
            }
        }
    }

    /// Writes what is left, and waits for it.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if let (Some(frames_tx), Some(frame)) = (&self.frames_tx, self.waiting.take()) {
            // Its thread tells why not.
            let _ = frames_tx.send(frame);
        }
        self.frames_tx = None;
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| io::Error::other("the writer panicked"))?;
        }
        match self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn write_all(frames_rx: &Receiver<Vec<u8>>, mut output: impl Write, room: &OwnedFd) -> io::Result<()> {
    while let Ok(frame) = frames_rx.recv() {
        wake(room);
        output.write_all(&frame)?;
        output.flush()?;
        wake(room);
    }
    Ok(())
}

fn wake(room: &OwnedFd) {
    // A full counter is readable, too.
    let _ = rustix::io::write(room, &1_u64.to_ne_bytes());
}
