//! What came from a node's agent and is to be passed on, in order, as far as the lane
//! has room for it.

use super::LogEvent;
use super::on_node::NodeEnd;
use super::queue::{Batch, Lane, weight};
use std::collections::VecDeque;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// In front of a lane.
#[derive(Debug)]
pub(super) struct Outbox {
    lane: Lane,
    waiting: VecDeque<Outgoing>,
    /// So many bytes of lines were passed on, and the agent isn't told yet.
    taken: u64,
}

#[derive(Debug)]
enum Outgoing {
    Events(Batch),
    /// So many bytes of the agent's lines are before.
    Taken(u64),
    /// What was there at first is before.
    CaughtUp,
    End(oneshot::Sender<NodeEnd>, NodeEnd),
}

impl Outbox {
    pub(super) fn new(lane: Lane) -> Self {
        Self { lane, waiting: VecDeque::new(), taken: 0 }
    }

    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Takes an event.
    pub(super) fn say(&mut self, event: LogEvent) {
        if let Some(Outgoing::Events(batch)) = self.waiting.back_mut()
            && !batch.is_full()
        {
            batch.push(event);
            return;
        }
        let mut batch = Batch::default();
        batch.push(event);
        self.waiting.push_back(Outgoing::Events(batch));
    }

    /// So many bytes of the agent's lines were said with what is here.
    pub(super) fn mark_taken(&mut self, bytes: u64) {
        self.waiting.push_back(Outgoing::Taken(bytes));
    }

    /// Nobody is to be told any more of what was taken.
    pub(super) fn forget_taken(&mut self) {
        self.taken = 0;
        self.waiting.retain(|outgoing| !matches!(outgoing, Outgoing::Taken(_)));
    }

    /// How many bytes of the agent's lines were passed on since this was asked last.
    pub(super) fn taken(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.taken)).filter(|bytes| *bytes > 0)
    }

    /// All that was there at first was said.
    pub(super) fn caught_up(&mut self) {
        self.waiting.push_back(Outgoing::CaughtUp);
    }

    /// A log has ended.
    pub(super) fn end(&mut self, ended_tx: oneshot::Sender<NodeEnd>, end: NodeEnd) {
        self.waiting.push_back(Outgoing::End(ended_tx, end));
    }

    /// Passes on what there is room for; answers the weight of what there is none for.
    pub(super) fn pass_on(&mut self) -> Option<u32> {
        while let Some(outgoing) = self.waiting.pop_front() {
            match outgoing {
                Outgoing::Events(mut batch) => {
                    if let Err(events) = self.lane.try_send(batch.take()) {
                        let weight = weight(&events);
                        self.waiting.push_front(Outgoing::Events(Batch::from(events)));
                        return Some(weight);
                    }
                }
                Outgoing::Taken(bytes) => self.taken += bytes,
                Outgoing::CaughtUp => self.lane.caught_up(),
                // Whoever gave up waiting doesn't want it.
                Outgoing::End(ended_tx, end) => drop(ended_tx.send(end)),
            }
        }
        None
    }

    /// Passes on what [`Outbox::pass_on`] had no room for.
    pub(super) fn put(&mut self, room: OwnedSemaphorePermit) {
        if let Some(Outgoing::Events(batch)) = self.waiting.front_mut() {
            let events = batch.take();
            self.waiting.pop_front();
            // That nobody listens is noticed elsewhere.
            self.lane.put(events, room);
        }
    }
}
