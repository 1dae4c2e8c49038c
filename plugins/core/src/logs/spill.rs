//! Between a reader of the API and its lane: what the lane has no room for waits
//! on disk, up to a limit, so that the reader goes on.

use super::backlog::Backlog;
use super::queue::Lane;
use super::{LogEvent, Source};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Below that nothing is said of what waits.
const WORTH_SAYING: u64 = 1 << 20;

/// What a reader says.
#[derive(Debug)]
pub(super) enum Said {
    Event(LogEvent),
    CaughtUp,
}

/// How much may wait on disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// In bytes.
    pub(super) limit: u64,
    /// Whether history comes first. That is merged: there it is the other lanes that
    /// are slow, and nothing is lost by waiting for them.
    pub(super) has_history: bool,
}

/// Passes on what comes until nothing more does, or nobody listens.
pub(super) async fn run(source: Arc<Source>, mut said_rx: mpsc::Receiver<Said>, lane: Lane, room: Room) {
    let limit = room.limit;
    let mut backlog = Backlog::new(Arc::clone(&source));
    let mut front = None;
    let mut may_spill = limit > 0 && !room.has_history;
    let mut said = WORTH_SAYING;
    let mut is_over = false;
    loop {
        if front.is_none() {
            front = match backlog.pop() {
                Ok(front) => front,
                Err(error) => {
                    Some(LogEvent::Gap(Arc::clone(&source), format!("lines are lost: the disk doesn't give them back ({error})")))
                }
            };
            if front.is_none() && is_over {
                return;
            }
            if backlog.is_empty() && said > WORTH_SAYING {
                said = WORTH_SAYING;
                lane.send(held(&source, 0)).await;
            }
        }
        let may_read = !is_over && (front.is_none() || (may_spill && backlog.bytes() < limit));
        let waits = front.clone();
        tokio::select! {
            next = said_rx.recv(), if may_read => match next {
                Some(Said::Event(event)) if front.is_none() => front = lane.try_send(event).err(),
                Some(Said::Event(event)) => {
                    if let Err(error) = backlog.push(event) {
                        tracing::warn!(%error, "lines wait in memory: the disk takes no more");
                        // Slower, and nothing is lost as long as the log isn't rotated.
                        may_spill = false;
                    }
                    if backlog.bytes() >= said * 2 {
                        said = backlog.bytes();
                        // In front of what waits, as it is about that.
                        let _ = lane.try_send(held(&source, said));
                    }
                }
                Some(Said::CaughtUp) => {
                    may_spill = limit > 0;
                    lane.caught_up();
                }
                None => is_over = true,
            },
            is_heard = send(&lane, waits), if front.is_some() => {
                front = None;
                if !is_heard {
                    return;
                }
            }
            () = lane.closed() => return,
        }
    }
}

async fn send(lane: &Lane, event: Option<LogEvent>) -> bool {
    match event {
        Some(event) => lane.send(event).await,
        None => std::future::pending().await,
    }
}

fn held(source: &Source, bytes: u64) -> LogEvent {
    LogEvent::Held { whose: format!("{}/{}", source.pod, source.container), bytes }
}
