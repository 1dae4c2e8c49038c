//! The task that puts the events of all lanes in order and hands them on.

use super::merge::Merge;
use super::queue::{Item, LaneId, is_crowded};
use super::{LogEvent, Source};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Hands events on until there are no lanes any more or nobody listens.
///
/// With a window they are ordered by time; without, they go as they come.
pub(super) async fn run(mut items_rx: mpsc::UnboundedReceiver<Item>, events_tx: mpsc::Sender<LogEvent>, window: Option<Duration>) {
    let Some(window) = window else {
        while let Some(item) = items_rx.recv().await {
            if let Item::Event { event, room, .. } = item {
                if events_tx.send(event).await.is_err() {
                    return;
                }
                drop(room);
            }
        }
        return;
    };
    let mut order = Order { merge: Merge::new(window), latest: HashMap::new() };
    loop {
        while let Some((event, room)) = order.merge.pop(Instant::now()) {
            if events_tx.send(event).await.is_err() {
                return;
            }
            drop(room);
            // What has come meanwhile may be older.
            while let Ok(item) = items_rx.try_recv() {
                order.take(item);
            }
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
        while let Ok(item) = items_rx.try_recv() {
            order.take(item);
        }
    }
    for (event, _) in order.merge.drain() {
        if events_tx.send(event).await.is_err() {
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
    merge: Merge<(LogEvent, OwnedSemaphorePermit)>,
    /// The latest time of each container: its lines stay as they were written.
    latest: HashMap<usize, i64>,
}

impl Order {
    fn take(&mut self, item: Item) {
        match item {
            Item::Opened { lane, has_history: true } => self.merge.expect(lane),
            Item::Opened { .. } => {}
            Item::CaughtUp(lane) | Item::Closed(lane) => self.merge.caught_up(lane, Instant::now()),
            Item::Event { lane, event, room } => self.event(lane, event, room),
        }
    }

    fn event(&mut self, lane: LaneId, event: LogEvent, room: OwnedSemaphorePermit) {
        let source = event.source().map(address);
        let latest = source.and_then(|source| self.latest.get(&source)).copied().unwrap_or(i64::MIN);
        let time = match &event {
            LogEvent::Line(line) => nanoseconds(line.timestamp).max(latest),
            LogEvent::Happened(happening) => nanoseconds(happening.time),
            // Between the lines before and behind it.
            _ => latest,
        };
        if let Some(source) = source {
            match event {
                LogEvent::Closed(_) => self.latest.remove(&source),
                _ => self.latest.insert(source, time),
            };
        }
        let is_crowded = is_crowded(&room);
        self.merge.push(lane, time, (event, room), Instant::now());
        if is_crowded {
            // Better a little out of order than slower than it is written.
            self.merge.release(time);
        }
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
