//! What is to be done next, as the session is told.

use crate::plan::Item;
use crate::pods::RunningContainer;
use crate::reload::Reload;
use blake3::Hash;
use devloop_core::agent::ProcessId;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Which save something goes back to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) generation: u64,
    /// From the file's modification time to the first event, where it tells.
    pub(crate) watch: Option<Duration>,
    pub(crate) first_event: Instant,
    pub(crate) settled: Instant,
}

/// A binary that was built, in the session's own copy.
#[derive(Clone, Debug)]
pub(crate) struct Binary {
    pub(crate) hash: Hash,
    pub(crate) path: PathBuf,
    pub(crate) compile: Duration,
    /// When it was ready to be delivered.
    pub(crate) ready: Instant,
    pub(crate) origin: Option<Origin>,
}

/// How far a binary is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It runs nowhere yet.
    Fresh,
    /// It runs, but not for long enough.
    Probation,
    /// It ran for a while.
    Proven,
}

/// Files to bring into pods.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// What the pods have when it is done.
    pub(crate) epoch: u64,
    pub(crate) groups: Vec<Group>,
    /// The save that it is for; absent when pods catch up.
    pub(crate) origin: Option<Origin>,
}

/// Pods that get the same files.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) pods: Vec<Receiver>,
    pub(crate) files: Vec<(String, Item)>,
}

/// A container that gets something.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) pod: String,
    pub(crate) container: RunningContainer,
    pub(crate) process: ProcessId,
}

/// Apps that are to take note of changed files.
#[derive(Clone, Debug)]
pub(crate) struct ReloadOrder {
    /// Whether the user asked for it.
    pub(crate) asked: bool,
    pub(crate) pods: Vec<PodReload>,
    /// The save that it is for, and how long its files took; absent when pods
    /// catch up.
    pub(crate) origin: Option<(Origin, Duration)>,
}

impl ReloadOrder {
    /// The containers whose app is started again.
    pub(crate) fn restarted(&self) -> impl Iterator<Item = &Receiver> {
        self.pods.iter().filter(|pod| pod.reload.restart.is_some()).map(|pod| &pod.receiver)
    }
}

/// What one app is to do.
#[derive(Clone, Debug)]
pub(crate) struct PodReload {
    pub(crate) receiver: Receiver,
    /// What it has taken note of when it is done.
    pub(crate) epoch: u64,
    pub(crate) reload: Reload,
}

/// A binary to swap to.
#[derive(Clone, Debug)]
pub(crate) struct SwapOrder {
    pub(crate) binary: Binary,
    pub(crate) pods: Vec<Receiver>,
    /// Whether pods catch up with what others run.
    pub(crate) catching_up: bool,
    /// Whether no pod ran it before.
    pub(crate) is_news: bool,
}
