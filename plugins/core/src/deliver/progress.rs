//! How far a delivery is, to be looked at while it goes on.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes sent and bytes to send, to all nodes together.
#[derive(Debug, Default)]
pub struct Progress {
    sent: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes to send, as far as is known; 0 until the nodes have been asked.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }
}
