//! Which binary the pods of a service are to run, and how far it is trusted.

use super::{Binary, Lane, Stage, SwapOrder, Trust, receiver};
use blake3::Hash;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// How often a binary is tried whose containers went away meanwhile.
const RETRY_LIMIT: u32 = 2;

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

/// What waits until a process runs on in its debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    Binary(Hash),
    /// This state of the files.
    Files(u64),
}

impl Lane {
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
        if self.swapping || self.reloading || self.halted || *trust == Trust::Probation {
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
        self.ran_on();
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

    /// Its containers were killed, or no process could be swapped yet: it is tried again.
    pub(crate) fn try_again(&mut self, hash: Hash) {
        if self.desired.as_ref().is_some_and(|(_, trust)| *trust == Trust::Probation) {
            self.set_trust(hash, Trust::Fresh);
        }
    }

    /// A process stands still for its debugger: nothing is replaced until
    /// [`Self::may_run`]. Answers whether that is news.
    pub(crate) fn halt(&mut self, waiting: Waiting) -> bool {
        self.halted = true;
        self.told_halted.replace(waiting) != Some(waiting)
    }

    /// What waited for that is done.
    pub(crate) fn ran_on(&mut self) {
        self.told_halted = None;
    }

    /// It may run on by now.
    pub(crate) fn may_run(&mut self) {
        self.halted = false;
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

    /// The copies of binaries that may still be needed.
    pub(crate) fn kept(&self) -> BTreeSet<&PathBuf> {
        let desired = self.desired.as_ref().map(|(binary, _)| &binary.path);
        let kept = [&self.swapped, &self.fallback].into_iter().flatten().map(|binary| &binary.path);
        desired.into_iter().chain(kept).collect()
    }
}
