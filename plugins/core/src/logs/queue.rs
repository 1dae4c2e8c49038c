//! The way from readers to whoever listens: each has a lane with room of its own,
//! so that one that is ahead waits while the others are read.

use super::spill::Said;
use super::{Held, LogEvent};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// What a lane's events may take, counted in [`UNIT`]s.
const ROOM: usize = 8192;
/// A line takes at least so many bytes.
const UNIT: usize = 128;
/// So much goes at once.
const EVENTS_AT_ONCE: usize = 512;
const BYTES_AT_ONCE: usize = 64 * 1024;

/// A reader's lane.
pub(super) type LaneId = u32;

/// What comes out of the lanes.
#[derive(Debug)]
pub(super) enum Item {
    Opened { lane: LaneId, has_history: bool },
    Events { lane: LaneId, events: Vec<LogEvent>, room: OwnedSemaphorePermit },
    CaughtUp(LaneId),
    Closed(LaneId),
}

/// The lanes' common end.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    items_tx: mpsc::UnboundedSender<Item>,
    held_tx: mpsc::UnboundedSender<Held>,
    next: Arc<std::sync::atomic::AtomicU32>,
}

impl Lanes {
    pub(super) fn new(held_tx: mpsc::UnboundedSender<Held>) -> (Self, mpsc::UnboundedReceiver<Item>) {
        let (items_tx, items_rx) = mpsc::unbounded_channel();
        (Self { items_tx, held_tx, next: Arc::default() }, items_rx)
    }

    /// A lane for another reader. One with history holds the others back until it
    /// has caught up with them.
    pub(super) fn open(&self, has_history: bool) -> Lane {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // That nobody listens is noticed when something is to be said.
        let _ = self.items_tx.send(Item::Opened { lane: id, has_history });
        let (items_tx, held_tx) = (self.items_tx.clone(), self.held_tx.clone());
        Lane { inner: Arc::new(Inner { id, items_tx, held_tx, room: Arc::new(Semaphore::new(ROOM)) }) }
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
    held_tx: mpsc::UnboundedSender<Held>,
    room: Arc<Semaphore>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.items_tx.send(Item::Closed(self.id));
    }
}

impl Lane {
    /// Waits for room; false when nobody listens.
    pub(super) async fn send(&self, events: Vec<LogEvent>) -> bool {
        match self.room(weight(&events)).await {
            Some(room) => self.put(events, room),
            None => false,
        }
    }

    /// Gives the events back when there is no room.
    pub(super) fn try_send(&self, events: Vec<LogEvent>) -> Result<(), Vec<LogEvent>> {
        let Ok(room) = Arc::clone(&self.inner.room).try_acquire_many_owned(weight(&events)) else { return Err(events) };
        // That nobody listens is noticed elsewhere.
        self.put(events, room);
        Ok(())
    }

    /// Waits for room for events of this weight; none when nobody listens.
    pub(super) async fn room(&self, weight: u32) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            // It is never closed.
            room = Arc::clone(&self.inner.room).acquire_many_owned(weight) => room.ok(),
            () = self.inner.items_tx.closed() => None,
        }
    }

    /// Sends what there is room for; false when nobody listens.
    pub(super) fn put(&self, events: Vec<LogEvent>, room: OwnedSemaphorePermit) -> bool {
        self.inner.items_tx.send(Item::Events { lane: self.inner.id, events, room }).is_ok()
    }

    /// Says how much waits for room, past all that does.
    pub(super) fn say_held(&self, whose: String, bytes: u64) {
        // Whoever doesn't want to know misses nothing.
        let _ = self.inner.held_tx.send(Held { whose, bytes });
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

/// The room that events take.
pub(super) fn weight(events: &[LogEvent]) -> u32 {
    let units: usize = events.iter().map(|event| size(event) / UNIT + 1).sum();
    // At most ROOM, so that the longest line can pass.
    u32::try_from(units.min(ROOM)).unwrap_or(1)
}

/// The bytes of an event's line.
fn size(event: &LogEvent) -> usize {
    match event {
        LogEvent::Line(line) => line.message.len(),
        _ => 0,
    }
}

/// Events that go together, as few hand-overs cost less; never too many.
#[derive(Debug, Default)]
pub(super) struct Batch {
    events: Vec<LogEvent>,
    bytes: usize,
}

impl From<Vec<LogEvent>> for Batch {
    fn from(events: Vec<LogEvent>) -> Self {
        let bytes = events.iter().map(size).sum();
        Self { events, bytes }
    }
}

impl Batch {
    pub(super) fn push(&mut self, event: LogEvent) {
        self.bytes += size(&event);
        self.events.push(event);
    }

    /// Whether it should go now.
    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= EVENTS_AT_ONCE || self.bytes >= BYTES_AT_ONCE
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// What is in it; it is empty afterwards.
    pub(super) fn take(&mut self) -> Vec<LogEvent> {
        self.bytes = 0;
        std::mem::take(&mut self.events)
    }
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
    /// Sends events; waits for a slow listener. False when nobody listens.
    pub(super) async fn send(&self, events: Vec<LogEvent>) -> bool {
        match self {
            Self::Lane(lane) => lane.send(events).await,
            Self::Spill(said_tx) => said_tx.send(Said::Events(events)).await.is_ok(),
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
