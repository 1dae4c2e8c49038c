//! Between a reader of the API and its lane: what the lane has no room for waits
//! on disk, up to a limit, so that the reader goes on.

use super::backlog::Backlog;
use super::queue::{Batch, Lane, weight};
use super::{LogEvent, Source};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Below that nothing is said of what waits.
pub(super) const WORTH_SAYING: u64 = 1 << 20;

/// What a reader says.
#[derive(Debug)]
pub(super) enum Said {
    Events(Vec<LogEvent>),
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
    let whose = format!("{}/{}", source.pod, source.container);
    let mut front = Vec::new();
    let mut may_spill = limit > 0 && !room.has_history;
    let mut said = WORTH_SAYING;
    let mut is_over = false;
    loop {
        if front.is_empty() {
            front = oldest(&mut backlog, &source);
            if front.is_empty() && is_over {
                return;
            }
            if backlog.is_empty() && said > WORTH_SAYING {
                said = WORTH_SAYING;
                lane.say_held(whose.clone(), 0);
            }
        }
        let may_read = !is_over && (front.is_empty() || (may_spill && backlog.bytes() < limit));
        tokio::select! {
            next = said_rx.recv(), if may_read => match next {
                Some(Said::Events(events)) if front.is_empty() => front = lane.try_send(events).err().unwrap_or_default(),
                Some(Said::Events(events)) => {
                    for event in events {
                        if let Err(error) = backlog.push(event) {
                            tracing::warn!(%error, "lines wait in memory: the disk takes no more");
                            // Slower, and nothing is lost as long as the log isn't rotated.
                            may_spill = false;
                        }
                    }
                    if backlog.bytes() >= said * 2 {
                        said = backlog.bytes();
                        lane.say_held(whose.clone(), said);
                    }
                }
                Some(Said::CaughtUp) => {
                    may_spill = limit > 0;
                    lane.caught_up();
                }
                None => is_over = true,
            },
            room = room_for(&lane, &front), if !front.is_empty() => {
                let Some(room) = room else { return };
                // That nobody listens is noticed above.
                lane.put(std::mem::take(&mut front), room);
            }
            () = lane.closed() => return,
        }
    }
}

/// The first of what waits; nothing when nothing does.
fn oldest(backlog: &mut Backlog, source: &Arc<Source>) -> Vec<LogEvent> {
    let mut batch = Batch::default();
    while !batch.is_full() {
        match backlog.pop() {
            Ok(Some(event)) => batch.push(event),
            Ok(None) => break,
            Err(error) => {
                let lost = format!("lines are lost: the disk doesn't give them back ({error})");
                batch.push(LogEvent::Gap(Arc::clone(source), lost));
                break;
            }
        }
    }
    batch.take()
}

async fn room_for(lane: &Lane, events: &[LogEvent]) -> Option<OwnedSemaphorePermit> {
    lane.room(weight(events)).await
}

#[cfg(test)]
mod tests {
    use super::super::LogLine;
    use super::super::queue::{Item, Lanes};
    use super::*;
    use jiff::Timestamp;

    #[tokio::test]
    async fn what_nobody_takes_waits_on_disk_and_is_told_of() {
        let source = Arc::new(Source { pod: "web".into(), container: "app".into(), ..Source::default() });
        let (held_tx, mut held_rx) = mpsc::unbounded_channel();
        let (lanes, mut items_rx) = Lanes::new(held_tx);
        let (said_tx, said_rx) = mpsc::channel(1);
        let room = Room { limit: 64 << 20, has_history: false };
        let task = tokio::spawn(run(Arc::clone(&source), said_rx, lanes.open(false), room));
        drop(lanes);
        let line = |number: u32| {
            let message = format!("{number} {}", "x".repeat(1000)).into_bytes();
            LogEvent::Line(LogLine { source: Arc::clone(&source), timestamp: Timestamp::UNIX_EPOCH, message, cut: 0 })
        };
        // Twenty times what a lane has room for.
        for begin in (0..20_000).step_by(100) {
            said_tx.send(Said::Events((begin..begin + 100).map(line).collect())).await.unwrap();
        }
        drop(said_tx);
        let most = held_rx.recv().await.unwrap();
        assert!(most.whose == "web/app" && most.bytes > WORTH_SAYING, "{most:?}");
        let mut next = 0;
        while let Some(item) = items_rx.recv().await {
            let Item::Events { events, .. } = item else { continue };
            for event in events {
                let LogEvent::Line(line) = event else { panic!("{event:?}") };
                assert!(line.message.starts_with(format!("{next} ").as_bytes()));
                next += 1;
            }
        }
        assert_eq!(next, 20_000);
        task.await.unwrap();
        let mut told = Vec::new();
        while let Some(held) = held_rx.recv().await {
            told.push(held.bytes);
        }
        assert!(told.pop() == Some(0) && told.is_sorted() && told.last().is_some_and(|most| *most < room.limit), "{told:?}");
    }
}
