//! Which readers to start, tell and end. Pure.

use super::instance::Observed;
use std::collections::{BTreeMap, BTreeSet};

/// A container of a pod, apart from one of the same name in a later pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerKey {
    /// The pod's uid.
    pub uid: String,
    /// The container's name.
    pub container: String,
}

/// What to do about one container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action<K = ContainerKey> {
    /// Start a reader.
    Start(K),
    /// Tell the reader what is known now.
    Update(K),
    /// Tell the reader that the pod is gone.
    End(K),
}

/// Compares the containers that are there with those that are read.
///
/// A container is read from its first start on; one that only waits for its
/// image has no log.
pub fn plan<K: Clone + Ord>(observed: &BTreeMap<K, Observed>, running: &BTreeSet<K>) -> Vec<Action<K>> {
    let gone = running.iter().filter(|key| !observed.contains_key(*key)).map(|key| Action::End(key.clone()));
    let there = observed.iter().filter_map(|(key, container)| {
        if running.contains(key) {
            Some(Action::Update(key.clone()))
        } else {
            container.latest.is_some().then(|| Action::Start(key.clone()))
        }
    });
    gone.chain(there).collect()
}

#[cfg(test)]
mod tests {
    use super::super::instance::{Instance, InstanceState, PodState};
    use super::*;

    #[test]
    fn started_containers_are_read_and_gone_ones_ended() {
        let key = |uid: &str| ContainerKey { uid: uid.into(), container: "app".into() };
        let started =
            Observed { latest: Some(Instance { number: 0, state: InstanceState::Running }), has_previous: false, pod: PodState::Present };
        let waiting = Observed { latest: None, ..started.clone() };
        let observed = [(key("new"), started.clone()), (key("pulling"), waiting), (key("known"), started)].into();
        let running = [key("known"), key("gone")].into();
        assert_eq!(plan(&observed, &running), [Action::End(key("gone")), Action::Update(key("known")), Action::Start(key("new"))]);
    }
}
