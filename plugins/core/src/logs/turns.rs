//! So many connections at once, in turns when more are wanted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long a connection is kept while others wait for one.
const TURN: Duration = Duration::from_secs(3);

/// The connections that may be open.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    free: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    turn: Duration,
}

/// One of them; given back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
    waiting: Arc<AtomicUsize>,
    began: Instant,
    length: Duration,
}

impl Turns {
    pub(super) fn new(connections: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS))), waiting: Arc::default(), turn: TURN }
    }

    /// A connection, if one is free.
    pub(super) fn try_begin(&self) -> Option<Turn> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(self.turn(Some(permit)))
    }

    /// Waits for a connection, behind those who wait already.
    pub(super) async fn begin(&self) -> Turn {
        let _waiting = Waiting::new(&self.waiting);
        // It is never closed.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        self.turn(permit)
    }

    fn turn(&self, permit: Option<OwnedSemaphorePermit>) -> Turn {
        Turn { _permit: permit, waiting: Arc::clone(&self.waiting), began: Instant::now(), length: self.turn }
    }
}

impl Turn {
    /// Whether the connection was held long enough and others wait.
    pub(super) fn is_due(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 && self.began.elapsed() > self.length
    }

    /// Resolves when the connection was held long enough and others wait.
    pub(super) async fn is_over(&self) {
        tokio::time::sleep_until(self.began + self.length).await;
        while self.waiting.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(self.length / 10).await;
        }
    }
}

/// Counted for as long as it waits, even when the wait is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_kept_until_others_want_it() {
        let turns = Turns { turn: Duration::from_millis(20), ..Turns::new(1) };
        let turn = turns.try_begin().unwrap();
        assert!(turns.try_begin().is_none());
        assert!(tokio::time::timeout(Duration::from_millis(200), turn.is_over()).await.is_err());
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { drop(turns.begin().await) }
        });
        tokio::time::timeout(Duration::from_secs(20), turn.is_over()).await.unwrap();
        drop(turn);
        waiting.await.unwrap();
        assert!(turns.try_begin().is_some());
    }
}
