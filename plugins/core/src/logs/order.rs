//! The task that puts the events of all lanes in order and hands them on.

use super::merge::Merge;
use super::queue::{Batch, Item, LaneId, is_crowded};
use super::{LogEvent, Source};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Hands events on until there are no lanes any more or nobody listens.
///
/// With a window they are ordered by time; without, they go as they come.
pub(super) async fn run(mut items_rx: mpsc::UnboundedReceiver<Item>, events_tx: mpsc::Sender<Vec<LogEvent>>, window: Option<Duration>) {
    let Some(window) = window else {
        while let Some(item) = items_rx.recv().await {
            if let Item::Events { events, room, .. } = item {
                if events_tx.send(events).await.is_err() {
                    return;
                }
                drop(room);
            }
        }
        return;
    };
    let mut order = Order { merge: Merge::new(window) };
    loop {
        // What has come meanwhile may be older.
        while let Ok(item) = items_rx.try_recv() {
            order.take(item);
        }
        let (events, rooms) = order.ready();
        if !events.is_empty() {
            if events_tx.send(events).await.is_err() {
                return;
            }
            drop(rooms);
            continue;
        }
        let due = order.merge.next_due();
        tokio::select! {
            item = items_rx.recv() => match item {
                Some(item) => order.take(item),
                None => break,
            },
            () = sleep_until(due) => {}
            () = events_tx.closed() => return,
        }
    }
    order.merge.release_all();
    loop {
        let (events, _rooms) = order.ready();
        if events.is_empty() || events_tx.send(events).await.is_err() {
            return;
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

struct Order {
    /// The last event of each hand-over has its room.
    merge: Merge<(LogEvent, Option<OwnedSemaphorePermit>)>,
}

impl Order {
    fn take(&mut self, item: Item) {
        match item {
            Item::Opened { lane, has_history: true } => self.merge.expect(lane),
            Item::Opened { .. } => {}
            Item::CaughtUp(lane) | Item::Closed(lane) => self.merge.caught_up(lane, Instant::now()),
            Item::Events { lane, events, room } => self.events(lane, events, room),
        }
    }

    fn events(&mut self, lane: LaneId, events: Vec<LogEvent>, room: OwnedSemaphorePermit) {
        let is_crowded = is_crowded(&room);
        let last = events.len().saturating_sub(1);
        let mut room = Some(room);
        let mut latest = i64::MIN;
        for (index, event) in events.into_iter().enumerate() {
            let time = match &event {
                LogEvent::Line(line) => nanoseconds(line.timestamp),
                LogEvent::Happened(happening) => nanoseconds(happening.time),
                // Between the lines before and behind it.
                _ => i64::MIN,
            };
            // A container's lines stay as they were written.
            let queue = (lane, event.source().map_or(0, address));
            let room = if index == last { room.take() } else { None };
            latest = latest.max(self.merge.push(queue, time, (event, room)));
        }
        self.merge.came(lane, latest, Instant::now());
        if is_crowded {
            // Better a little out of order than slower than it is written.
            self.merge.release(latest);
        }
    }

    /// What may leave by now, as much as goes at once.
    fn ready(&mut self) -> (Vec<LogEvent>, Vec<OwnedSemaphorePermit>) {
        let (mut batch, mut rooms) = (Batch::default(), Vec::new());
        let now = Instant::now();
        while !batch.is_full()
            && let Some((event, room)) = self.merge.pop(now)
        {
            batch.push(event);
            rooms.extend(room);
        }
        (batch.take(), rooms)
    }
}

/// One reader's sources are one allocation.
fn address(source: &Arc<Source>) -> usize {
    Arc::as_ptr(source) as usize
}

/// A time as it is compared; the ends of the range are all the same.
pub(super) fn nanoseconds(timestamp: jiff::Timestamp) -> i64 {
    i64::try_from(timestamp.as_nanosecond()).unwrap_or(if timestamp.as_second() < 0 { i64::MIN } else { i64::MAX })
}
