//! The watching thread: events in, generations out.

use super::kernel::{self, Limits};
use super::settle::Settled;
use super::view::View;
use super::{Change, Generation, WatchError, WatchRoot, WatchWarning};
use std::io::PipeReader;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TrySendError;

/// How often a full channel is tried again.
const RETRY: Duration = Duration::from_millis(5);
/// So many events are taken in before a generation may go out.
const TAKEN_AT_ONCE: usize = 10_000;

/// Where the thread reports to.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) generation_tx: tokio::sync::mpsc::Sender<Generation>,
    pub(super) warning_tx: Sender<WatchWarning>,
}

#[derive(Debug)]
pub(super) struct Driver {
    view: View,
    outputs: Outputs,
    /// What the receiver had no room for. Meanwhile changes settle further:
    /// what a slow receiver costs is bounded by the files that there are.
    unsent: Option<Generation>,
    number: u64,
}

impl Driver {
    pub(super) fn start(roots: Vec<WatchRoot>, limits: Limits, outputs: Outputs) -> Result<Self, WatchError> {
        let view = View::new(roots, limits)?;
        let mut driver = Self { view, outputs, unsent: None, number: 0 };
        driver.warn();
        Ok(driver)
    }

    /// Runs until the other end of `stop` is closed or the receiver is gone.
    pub(super) fn run(mut self, stop: &PipeReader) -> Result<(), WatchError> {
        loop {
            let timeout = self.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if kernel::wait(self.view.watches.kernel.as_ref(), stop, timeout).map_err(WatchError::System)? {
                return Ok(());
            }
            self.take_events()?;
            let now = Instant::now();
            if self.view.polling_deadline(now).is_some_and(|deadline| deadline <= now) {
                self.view.poll(now)?;
            }
            self.warn();
            if self.unsent.is_none() && self.view.settling.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                self.view.follow_rules()?;
                let locked = self.view.locks.are_held();
                let now = Instant::now();
                if let Some(settled) = self.view.settling.poll(now, locked) {
                    self.report(now, settled);
                }
            }
            if !self.send() {
                return Ok(());
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let now = Instant::now();
        let next = if self.unsent.is_some() { Some(now + RETRY) } else { self.view.settling.deadline() };
        let waiting = self.view.watches.kernel.as_ref().is_some_and(|kernel| kernel.has_more()).then_some(now);
        next.into_iter().chain(self.view.polling_deadline(now)).chain(waiting).min()
    }

    fn take_events(&mut self) -> Result<(), WatchError> {
        for _ in 0..TAKEN_AT_ONCE {
            let Some(kernel) = &mut self.view.watches.kernel else { return Ok(()) };
            let notice = match kernel.next() {
                Some(notice) => notice,
                None => {
                    kernel.drain().map_err(WatchError::System)?;
                    match kernel.next() {
                        Some(notice) => notice,
                        None => return Ok(()),
                    }
                }
            };
            self.view.take(notice)?;
        }
        Ok(())
    }

    fn warn(&mut self) {
        if let Some(warning) = self.view.watches.warning(&self.view.index) {
            tracing::debug!(%warning, "polling");
            // Whoever is not interested any more has dropped the watcher.
            let _ = self.outputs.warning_tx.send(warning);
        }
    }

    fn report(&mut self, now: Instant, settled: Settled) {
        let changes: Vec<Change> = settled.paths.into_iter().filter_map(|path| self.view.truth(path)).collect();
        if !changes.is_empty() {
            self.number += 1;
            self.unsent = Some(Generation { number: self.number, changes, first_event: settled.first_event, settled: now });
        }
    }

    /// Hands over what is ready; `false` when nobody wants it any more.
    fn send(&mut self) -> bool {
        let Some(generation) = self.unsent.take() else { return true };
        match self.outputs.generation_tx.try_send(generation) {
            Ok(()) => true,
            Err(TrySendError::Full(generation)) => {
                self.unsent = Some(generation);
                true
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }
}
