//! What is changed in the cluster, on disk before it is.

use super::Session;
use crate::place::Place;
use crate::pods::RunningContainer;
use devloop_core::Result;
use devloop_core::changes::{ContainerEntry, Entry};

impl Session {
    /// Takes down a container that is about to be changed.
    pub(super) fn note_container(&mut self, pod: &str, container: &str, running: &RunningContainer, place: &Place) -> Result<()> {
        let (node, via) = match place {
            Place::Node(node) => (Some(node.clone()), "node"),
            Place::Pod { .. } => (None, "api"),
        };
        let Some(journal) = &mut self.journal else { return Ok(()) };
        journal.note(&Entry::Container(ContainerEntry {
            context: self.cluster.context.clone(),
            namespace: self.cluster.namespace.clone(),
            pod: pod.to_owned(),
            uid: running.pod_uid.clone(),
            container: container.to_owned(),
            container_id: running.id.clone(),
            node,
            via: via.to_owned(),
        }))
    }

    /// A pod is gone, and all that was changed in it.
    pub(super) fn forget_pod(&mut self, uid: &str) -> Result<()> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        for entry in journal.entries() {
            if matches!(&entry, Entry::Container(container) if container.uid == uid) {
                journal.forget(&entry)?;
            }
        }
        Ok(())
    }
}
