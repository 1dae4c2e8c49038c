//! The state of one service: what its pods should run and what they do.
//!
//! Pure but for the clock that callers pass in: events change it, and it tells
//! what is to be done next; the session does it.

use crate::gather::Facts;
use crate::plan::{Item, Layout, Plan};
use crate::pods::RunningContainer;
use crate::probe::Way;
use crate::reload::Reload;
use blake3::Hash;
use devloop_core::agent::ProcessId;
use devloop_core::detect::RemoteProcess;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a binary is tried whose containers went away meanwhile.
const RETRY_LIMIT: u32 = 2;

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
    /// Whether the user wants all apps to be started again.
    restart_asked: bool,
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
    /// The compiler's last message, while the sources don't compile.
    pub(crate) failed_build: Option<String>,
}

/// What a new binary means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is brought into the pods.
    New,
    /// Every pod runs it already.
    Unchanged,
    /// It ended soon after its start before.
    KnownBad,
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
            restart_asked: false,
            held: None,
            desired: None,
            swapped: None,
            fallback: None,
            trial: 0,
            trials: BTreeMap::new(),
            bad: BTreeSet::new(),
            retries: 0,
            swapping: false,
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
        if self.reloading || self.swapping {
            return None;
        }
        let mut pods = Vec::new();
        let mut idle = Vec::new();
        let is_due = |attached: &Attached| self.restart_asked || attached.reloaded < attached.synced;
        for (name, entry, attached) in self.attached().filter(|(_, _, attached)| is_due(attached)) {
            let mut reload = self.pending(attached);
            if self.restart_asked {
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
        let asked = std::mem::take(&mut self.restart_asked);
        if pods.is_empty() {
            return None;
        }
        self.reloading = true;
        Some(ReloadOrder { pods, asked, origin: self.reload_origin.take() })
    }

    /// All apps are to be started again.
    pub(crate) fn ask_for_restart(&mut self) {
        self.restart_asked = true;
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

    /// Takes in a binary that was built.
    pub(crate) fn note_binary(&mut self, binary: Binary) -> Verdict {
        if self.bad.contains(binary.hash.as_bytes()) {
            return Verdict::KnownBad;
        }
        self.retries = 0;
        let hash = binary.hash;
        let runs_everywhere = self.attached().next().is_some() && self.attached().all(|(_, _, attached)| attached.running == Some(hash));
        if runs_everywhere && !self.swapping {
            self.desired = Some((binary, Trust::Proven));
            return Verdict::Unchanged;
        }
        // A container that refused it may have had a passing reason.
        for entry in self.pods.values_mut() {
            if let Stage::Attached(attached) = &mut entry.stage {
                attached.refused = None;
            }
        }
        self.desired = Some((binary, Trust::Fresh));
        Verdict::New
    }

    /// The next binary to swap to, if pods run another.
    pub(crate) fn next_swap(&mut self) -> Option<SwapOrder> {
        let (binary, trust) = self.desired.as_ref()?;
        if self.swapping || self.reloading || *trust == Trust::Probation {
            return None;
        }
        let (binary, trust) = (binary.clone(), *trust);
        let behind =
            self.attached().filter(|(_, _, attached)| attached.running != Some(binary.hash) && attached.refused != Some(binary.hash));
        let pods: Vec<_> = behind.map(|(name, entry, attached)| receiver(name, entry, attached)).collect();
        if pods.is_empty() {
            return None;
        }
        self.swapping = true;
        if trust == Trust::Fresh {
            self.set_trust(binary.hash, Trust::Probation);
        }
        let is_news = self.swapped.as_ref().is_none_or(|before| before.hash != binary.hash);
        Some(SwapOrder { binary, pods, catching_up: trust == Trust::Proven, is_news })
    }

    fn set_trust(&mut self, hash: Hash, to: Trust) {
        if let Some((binary, trust)) = &mut self.desired
            && binary.hash == hash
        {
            *trust = to;
        }
    }

    /// Pods run this binary now; what they ran before was alive until then.
    pub(crate) fn note_swapped(&mut self, binary: &Binary) {
        let before = self.swapped.replace(binary.clone());
        if let Some(before) = before.filter(|before| before.hash != binary.hash) {
            self.fallback = Some(before);
        }
    }

    /// Processes of pods were replaced: what becomes of them is this trial's.
    pub(crate) fn begin_trial(&mut self, pods: impl IntoIterator<Item = String>) -> u64 {
        self.trial += 1;
        self.trials.extend(pods.into_iter().map(|pod| (pod, self.trial)));
        self.trial
    }

    /// Whether what becomes of a pod's process is this trial's, and not that of
    /// a later replacement.
    pub(crate) fn is_on_trial(&self, pod: &str, number: u64) -> bool {
        self.trials.get(pod) == Some(&number)
    }

    /// A binary ran for long enough.
    pub(crate) fn prove(&mut self, binary: &Binary) {
        self.set_trust(binary.hash, Trust::Proven);
        self.fallback = Some(binary.clone());
    }

    /// Its containers were killed: those that replace them are swapped again.
    pub(crate) fn try_again(&mut self, hash: Hash) {
        if self.desired.as_ref().is_some_and(|(_, trust)| *trust == Trust::Probation) {
            self.set_trust(hash, Trust::Fresh);
        }
    }

    /// Nobody knows why it could not be swapped to: it is tried again, a few
    /// times.
    pub(crate) fn retry(&mut self, hash: Hash) {
        self.retries += 1;
        if self.retries > RETRY_LIMIT {
            self.condemn(hash);
        } else {
            self.set_trust(hash, Trust::Fresh);
        }
    }

    /// Whether a pod runs this binary now.
    pub(crate) fn runs(&self, pod: &str, hash: Hash) -> bool {
        self.attached().any(|(name, _, attached)| name == pod && attached.running == Some(hash))
    }

    /// No pod took it: what runs is what ran before.
    pub(crate) fn give_up(&mut self, hash: Hash) {
        if self.desired.as_ref().is_some_and(|(binary, _)| binary.hash == hash) {
            let running = self.swapped.as_ref().filter(|swapped| swapped.hash != hash);
            self.desired = running.or(self.fallback.as_ref()).cloned().map(|binary| (binary, Trust::Proven));
        }
    }

    /// A binary ended soon after its start: it is never swapped to again.
    pub(crate) fn condemn(&mut self, hash: Hash) {
        self.bad.insert(*hash.as_bytes());
        for kept in [&mut self.swapped, &mut self.fallback] {
            if kept.as_ref().is_some_and(|binary| binary.hash == hash) {
                *kept = None;
            }
        }
        self.give_up(hash);
    }

    /// Whether restarted containers get a binary of this session.
    pub(crate) fn has_good_binary(&self) -> bool {
        self.desired.is_some()
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

    /// The copies of binaries that may still be needed.
    pub(crate) fn kept(&self) -> BTreeSet<&PathBuf> {
        let desired = self.desired.as_ref().map(|(binary, _)| &binary.path);
        let kept = [&self.swapped, &self.fallback].into_iter().flatten().map(|binary| &binary.path);
        desired.into_iter().chain(kept).collect()
    }
}

fn receiver(pod: &str, entry: &PodEntry, attached: &Attached) -> Receiver {
    Receiver { pod: pod.to_owned(), container: entry.container.clone(), process: attached.process }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
