//! The watching thread: events in, generations out.

use super::inbox::{Inbox, Notice};
use super::settle::Settled;
use super::view::View;
use super::{Change, Generation, WatchError, WatchWarning};
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
    inbox: Inbox,
    view: View,
    outputs: Outputs,
    /// What the receiver had no room for. Meanwhile changes settle further:
    /// what a slow receiver costs is bounded by the files that there are.
    unsent: Option<Generation>,
    number: u64,
}

impl Driver {
    /// What `view` watches is told to `inbox`.
    pub(super) fn new(inbox: Inbox, view: View, outputs: Outputs) -> Self {
        let mut driver = Self { inbox, view, outputs, unsent: None, number: 0 };
        driver.warn();
        driver
    }

    /// Runs until the inbox says to stop or the receiver is gone.
    pub(super) fn run(mut self) -> Result<(), WatchError> {
        loop {
            let timeout = self.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
            self.inbox.wait(timeout);
            if !self.take_events()? {
                return Ok(());
            }
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
        next.into_iter().chain(self.view.polling_deadline(now)).min()
    }

    /// Takes in what was told; `false` when it was told to stop.
    fn take_events(&mut self) -> Result<bool, WatchError> {
        for _ in 0..TAKEN_AT_ONCE {
            match self.inbox.next() {
                Some(Notice::Event { at, path, kind }) => self.view.take(at, path, kind)?,
                Some(Notice::Lost(at)) => self.view.recover(at)?,
                Some(Notice::Failed(error)) => return Err(WatchError::System(error)),
                Some(Notice::Stop) => return Ok(false),
                None => break,
            }
        }
        Ok(true)
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
