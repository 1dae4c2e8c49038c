//! The way from readers to whoever listens: each has a lane with room of its own,
//! so that one that is ahead waits while the others are read.

use super::LogEvent;
use super::spill::Said;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// What a lane's events may take, counted in [`UNIT`]s.
const ROOM: usize = 8192;
/// A line takes at least so many bytes.
const UNIT: usize = 128;

/// A reader's lane.
pub(super) type LaneId = u32;

/// What comes out of the lanes.
#[derive(Debug)]
pub(super) enum Item {
    Opened { lane: LaneId, has_history: bool },
    Event { lane: LaneId, event: LogEvent, room: OwnedSemaphorePermit },
    CaughtUp(LaneId),
    Closed(LaneId),
}

/// The lanes' common end.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    items_tx: mpsc::UnboundedSender<Item>,
    next: Arc<std::sync::atomic::AtomicU32>,
}

impl Lanes {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Item>) {
        let (items_tx, items_rx) = mpsc::unbounded_channel();
        (Self { items_tx, next: Arc::default() }, items_rx)
    }

    /// A lane for another reader. One with history holds the others back until it
    /// has caught up with them.
    pub(super) fn open(&self, has_history: bool) -> Lane {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // That nobody listens is noticed when something is to be said.
        let _ = self.items_tx.send(Item::Opened { lane: id, has_history });
        Lane { inner: Arc::new(Inner { id, items_tx: self.items_tx.clone(), room: Arc::new(Semaphore::new(ROOM)) }) }
    }
}

/// The entrance of a lane; it is closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: LaneId,
    items_tx: mpsc::UnboundedSender<Item>,
    room: Arc<Semaphore>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.items_tx.send(Item::Closed(self.id));
    }
}

impl Lane {
    /// Waits for room; false when nobody listens.
    pub(super) async fn send(&self, event: LogEvent) -> bool {
        tokio::select! {
            room = Arc::clone(&self.inner.room).acquire_many_owned(weight(&event)) => match room {
                Ok(room) => self.inner.items_tx.send(Item::Event { lane: self.inner.id, event, room }).is_ok(),
                // It is never closed.
                Err(_) => false,
            },
            () = self.inner.items_tx.closed() => false,
        }
    }

    /// Gives the event back when there is no room.
    pub(super) fn try_send(&self, event: LogEvent) -> Result<(), LogEvent> {
        let Ok(room) = Arc::clone(&self.inner.room).try_acquire_many_owned(weight(&event)) else { return Err(event) };
        // That nobody listens is noticed elsewhere.
        let _ = self.inner.items_tx.send(Item::Event { lane: self.inner.id, event, room });
        Ok(())
    }

    /// Resolves when nobody listens any more.
    pub(super) async fn closed(&self) {
        self.inner.items_tx.closed().await;
    }

    /// All that was there at the beginning was sent.
    pub(super) fn caught_up(&self) {
        let _ = self.inner.items_tx.send(Item::CaughtUp(self.inner.id));
    }
}

fn weight(event: &LogEvent) -> u32 {
    let bytes = match event {
        LogEvent::Line(line) => line.message.len(),
        _ => 0,
    };
    // At most ROOM, so that the longest line can pass.
    u32::try_from((bytes / UNIT + 1).min(ROOM)).unwrap_or(1)
}

/// Whether nearly all of a lane's room is taken, as far as one event's permit tells.
pub(super) fn is_crowded(room: &OwnedSemaphorePermit) -> bool {
    room.semaphore().available_permits() < ROOM / 8
}

/// Where a reader's events go.
#[derive(Clone, Debug)]
pub(super) enum Output {
    Lane(Lane),
    /// To a lane, by way of the disk if it has no room.
    Spill(mpsc::Sender<Said>),
}

impl Output {
    /// Sends an event; waits for a slow listener. False when nobody listens.
    pub(super) async fn send(&self, event: LogEvent) -> bool {
        match self {
            Self::Lane(lane) => lane.send(event).await,
            Self::Spill(said_tx) => said_tx.send(Said::Event(event)).await.is_ok(),
        }
    }

    /// Resolves when nobody listens any more.
    pub(super) async fn closed(&self) {
        match self {
            Self::Lane(lane) => lane.closed().await,
            Self::Spill(said_tx) => said_tx.closed().await,
        }
    }

    /// All that was there at the beginning was sent.
    pub(super) async fn caught_up(&self) {
        match self {
            Self::Lane(lane) => lane.caught_up(),
            // That nobody listens is noticed with the next event.
            Self::Spill(said_tx) => drop(said_tx.send(Said::CaughtUp).await),
        }
    }
}
