//! The state of one service: what its pods should run and what they do.
//!
//! Pure but for the clock that callers pass in: events change it, and it tells
//! what is to be done next; the session does it.

mod binaries;
mod orders;

pub(crate) use binaries::{Verdict, Waiting};
pub(crate) use orders::{Binary, Delivery, Group, Origin, PodReload, Receiver, ReloadOrder, SwapOrder, Trust};

use crate::gather::Facts;
use crate::plan::{Item, Layout, Plan};
use crate::pods::RunningContainer;
use crate::probe::Way;
use crate::reload::Reload;
use blake3::Hash;
use devloop_core::agent::ProcessId;
use devloop_core::detect::RemoteProcess;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A container that is worked on.
#[derive(Clone, Debug)]
pub(crate) struct PodEntry {
    pub(crate) container: RunningContainer,
    pub(crate) stage: Stage,
    /// Whether the user was told that it is in sync.
    pub(crate) announced: bool,
    /// How it answers the probe, once that was found out.
    pub(crate) way: Option<Way>,
}

impl PodEntry {
    /// What is known of it once its process was found.
    pub(crate) fn attached(&self) -> Option<&Attached> {
        match &self.stage {
            Stage::Attached(attached) => Some(attached),
            Stage::Attaching | Stage::Failed => None,
        }
    }
}

/// How far work on a container is.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// Its process is being looked for.
    Attaching,
    /// It can be worked on.
    Attached(Attached),
    /// It can't be worked on until it restarts.
    Failed,
}

/// A container whose process is known.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) process: ProcessId,
    /// The app's process, and the container's first one.
    pub(crate) processes: Vec<RemoteProcess>,
    /// Whether its files were compared with the local ones.
    pub(crate) checked: bool,
    /// The last state of the files that it has.
    pub(crate) synced: u64,
    /// The last state of the files that its app took note of.
    pub(crate) reloaded: u64,
    /// What it runs, where that is known.
    pub(crate) running: Option<Hash>,
    /// What it could not be swapped to.
    pub(crate) refused: Option<Hash>,
}

/// The state of one service.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) facts: Arc<Facts>,
    pub(crate) layout: Layout,
    pub(crate) pods: BTreeMap<String, PodEntry>,
    /// Whether the pods have been listed once.
    pub(crate) listed: bool,
    /// Counts changes of files.
    epoch: u64,
    /// All files changed in this session and since which epoch.
    ledger: BTreeMap<String, (Item, u64)>,
    pub(crate) file_origin: Option<Origin>,
    pub(crate) delivering: bool,
    /// The save that apps have yet to take note of, and how long its files took.
    pub(crate) reload_origin: Option<(Origin, Duration)>,
    pub(crate) reloading: bool,
    /// The pods whose app the user wants to be started again.
    restart_asked: BTreeSet<String>,
    /// The state of the files that an app ended with soon after it was started
    /// again: containers that restart stay as their image is until the next save.
    held: Option<u64>,
    desired: Option<(Binary, Trust)>,
    /// What pods were swapped to last.
    swapped: Option<Binary>,
    /// The last one that is proven or was replaced while it ran, to fall back to.
    fallback: Option<Binary>,
    /// Counts replacements of processes, and the last one of each pod.
    trial: u64,
    trials: BTreeMap<String, u64>,
    bad: BTreeSet<[u8; 32]>,
    /// Of the desired one.
    retries: u32,
    pub(crate) swapping: bool,
    /// Whether a process stood still for a debugger a moment ago.
    halted: bool,
    /// What was said to wait for that.
    told_halted: Option<Waiting>,
    /// The compiler's last message, while the sources don't compile.
    pub(crate) failed_build: Option<String>,
}

impl Lane {
    pub(crate) fn new(facts: Facts, layout: Layout) -> Self {
        Self {
            facts: Arc::new(facts),
            layout,
            pods: BTreeMap::new(),
            listed: false,
            epoch: 0,
            ledger: BTreeMap::new(),
            file_origin: None,
            delivering: false,
            reload_origin: None,
            reloading: false,
            restart_asked: BTreeSet::new(),
            held: None,
            desired: None,
            swapped: None,
            fallback: None,
            trial: 0,
            trials: BTreeMap::new(),
            bad: BTreeSet::new(),
            retries: 0,
            swapping: false,
            halted: false,
            told_halted: None,
            failed_build: None,
        }
    }

    /// Takes note of changed files.
    pub(crate) fn note_files(&mut self, plan: &Plan, origin: Origin) {
        if plan.files.is_empty() {
            return;
        }
        self.note_items(&plan.files);
        // Saves that are delivered together are told as one, since the first.
        if self.attached().next().is_some() {
            self.file_origin.get_or_insert(origin);
        }
    }

    /// Takes note of files that containers are to get.
    fn note_items(&mut self, items: &BTreeMap<String, Item>) {
        self.epoch += 1;
        let epoch = self.epoch;
        self.ledger.extend(items.iter().map(|(path, item)| (path.clone(), (item.clone(), epoch))));
    }

    /// The same; one of them that is on record already was lost in this pod only.
    pub(crate) fn note_lacking(&mut self, pod: &str, differing: BTreeMap<String, Item>) {
        let (known, new): (BTreeMap<_, _>, BTreeMap<_, _>) =
            differing.into_iter().partition(|(path, item)| self.ledger.get(path).is_some_and(|(noted, _)| noted == item));
        if !known.is_empty()
            && let Some(PodEntry { stage: Stage::Attached(attached), .. }) = self.pods.get_mut(pod)
        {
            (attached.synced, attached.reloaded) = (0, 0);
        }
        if !new.is_empty() {
            self.note_items(&new);
        }
    }

    /// All files of this session, and what they are to be.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&String, &Item)> {
        self.ledger.iter().map(|(path, (item, _))| (path, item))
    }

    /// The state of the files that pods are brought to.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Takes note of what runs in a pod; `true` when it must be attached to.
    pub(crate) fn note_pod(&mut self, pod: &str, container: &RunningContainer) -> bool {
        if self.pods.get(pod).is_some_and(|entry| entry.container.id == container.id) {
            return false;
        }
        let before = self.pods.get(pod);
        let (announced, way) = before.map_or((false, None), |entry| (entry.announced, entry.way));
        self.pods.insert(pod.to_owned(), PodEntry { container: container.clone(), stage: Stage::Attaching, announced, way });
        true
    }

    /// The entry of a pod, if it still runs this container.
    pub(crate) fn entry(&mut self, pod: &str, container_id: &str) -> Option<&mut PodEntry> {
        self.pods.get_mut(pod).filter(|entry| entry.container.id == container_id)
    }

    /// The state of a pod, if it still runs this container and is attached.
    pub(crate) fn attached_entry(&mut self, pod: &str, container_id: &str) -> Option<&mut Attached> {
        match &mut self.entry(pod, container_id)?.stage {
            Stage::Attached(attached) => Some(attached),
            Stage::Attaching | Stage::Failed => None,
        }
    }

    /// The containers that are worked on.
    pub(crate) fn receivers(&self) -> impl Iterator<Item = Receiver> {
        self.attached_pods().map(|(receiver, _)| receiver)
    }

    /// The same, with what is known of each.
    pub(crate) fn attached_pods(&self) -> impl Iterator<Item = (Receiver, &Attached)> {
        self.attached().map(|(name, entry, attached)| (receiver(name, entry, attached), attached))
    }

    fn attached(&self) -> impl Iterator<Item = (&String, &PodEntry, &Attached)> {
        self.pods.iter().filter_map(|(name, entry)| Some((name, entry, entry.attached()?)))
    }

    /// The next files to bring into pods, if any are behind.
    pub(crate) fn next_delivery(&mut self) -> Option<Delivery> {
        if self.delivering || self.held == Some(self.epoch) {
            return None;
        }
        let mut behind: BTreeMap<u64, Vec<Receiver>> = BTreeMap::new();
        for (name, entry, attached) in self.attached().filter(|(_, _, attached)| attached.checked && attached.synced < self.epoch) {
            behind.entry(attached.synced).or_default().push(receiver(name, entry, attached));
        }
        if behind.is_empty() {
            return None;
        }
        let files = |since: u64| self.ledger.iter().filter(move |(_, (_, epoch))| *epoch > since);
        let group = |(since, pods)| Group { pods, files: files(since).map(|(path, (item, _))| (path.clone(), item.clone())).collect() };
        let groups = behind.into_iter().map(group).collect();
        self.delivering = true;
        Some(Delivery { epoch: self.epoch, groups, origin: self.file_origin.take() })
    }

    /// The apps that have yet to take note of files that they have.
    pub(crate) fn next_reload(&mut self) -> Option<ReloadOrder> {
        if self.reloading || self.swapping || self.halted {
            return None;
        }
        let mut pods = Vec::new();
        let mut idle = Vec::new();
        let is_asked = |name: &String| self.restart_asked.contains(name);
        let is_due = |name: &String, attached: &Attached| is_asked(name) || attached.reloaded < attached.synced;
        for (name, entry, attached) in self.attached().filter(|(name, _, attached)| is_due(name, attached)) {
            let mut reload = self.pending(attached);
            if is_asked(name) {
                reload.restart.get_or_insert_default();
            }
            if reload.is_empty() {
                idle.push(name.clone());
            } else {
                pods.push(PodReload { receiver: receiver(name, entry, attached), epoch: attached.synced, reload });
            }
        }
        for pod in idle {
            if let Some(PodEntry { stage: Stage::Attached(attached), .. }) = self.pods.get_mut(&pod) {
                attached.reloaded = attached.synced;
            }
        }
        let asked = !std::mem::take(&mut self.restart_asked).is_empty();
        if pods.is_empty() {
            return None;
        }
        self.reloading = true;
        Some(ReloadOrder { pods, asked, origin: self.reload_origin.take() })
    }

    /// All apps are to be started again.
    pub(crate) fn ask_for_restart(&mut self) {
        self.restart_asked = self.attached().map(|(name, ..)| name.clone()).collect();
    }

    /// What was ordered could not be done in these pods yet.
    pub(crate) fn postpone(&mut self, order: &ReloadOrder, pods: &[String]) {
        if order.asked {
            self.restart_asked.extend(pods.iter().cloned());
        }
        if self.reload_origin.is_none() {
            self.reload_origin = order.origin;
        }
    }

    /// What an app is to do about the files that it has not taken note of.
    fn pending(&self, attached: &Attached) -> Reload {
        let news = self.ledger.iter().filter(|(_, (_, epoch))| *epoch > attached.reloaded && *epoch <= attached.synced);
        self.facts.rules.decide(&attached.processes, news.map(|(path, (item, _))| (path, item)))
    }

    /// Whether any app has something to do about files that it has.
    pub(crate) fn has_pending_reload(&self) -> bool {
        self.attached().any(|(_, _, attached)| !self.pending(attached).is_empty())
    }

    /// An app ended soon after it was started again with these files.
    pub(crate) fn hold(&mut self, epoch: u64) {
        self.held = Some(epoch);
    }

    /// Whether a pod has all that the others have.
    pub(crate) fn is_in_sync(&self, entry: &PodEntry) -> bool {
        let Some(attached) = entry.attached() else { return false };
        let binary_fits = self.desired.as_ref().is_none_or(|(binary, _)| [attached.running, attached.refused].contains(&Some(binary.hash)));
        let files_fit = self.held == Some(self.epoch) || attached.synced >= self.epoch && attached.reloaded >= attached.synced;
        attached.checked && files_fit && binary_fits
    }

    /// How many pods have all that they should have.
    pub(crate) fn in_sync_count(&self) -> usize {
        self.pods.values().filter(|entry| self.is_in_sync(entry)).count()
    }

    /// Whether the session can be called ready as far as this service goes.
    pub(crate) fn is_ready(&self) -> bool {
        let settled = |entry: &PodEntry| matches!(entry.stage, Stage::Failed) || self.is_in_sync(entry);
        self.listed && self.attached().next().is_some() && self.pods.values().all(settled)
    }
}

fn receiver(pod: &str, entry: &PodEntry, attached: &Attached) -> Receiver {
    Receiver { pod: pod.to_owned(), container: entry.container.clone(), process: attached.process }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
