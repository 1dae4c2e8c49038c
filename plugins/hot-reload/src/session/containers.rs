//! Pods and their containers: they come, go and come back.

use super::Session;
use crate::lane::{Attached, Stage};
use crate::pods;
use crate::report::{Happening, Report};
use crate::work::{self, Attachment};
use devloop_core::agent::AgentError;
use devloop_core::{CommandError, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use std::collections::BTreeSet;

impl Session {
    pub(super) fn pod(&mut self, lane: usize, event: Result<watcher::Event<Pod>, watcher::Error>) -> Result<()> {
        match event {
            Ok(watcher::Event::Init) => self.relisted[lane] = Some(BTreeSet::new()),
            Ok(watcher::Event::InitApply(pod)) => {
                if let Some(seen) = &mut self.relisted[lane] {
                    seen.extend(pod.metadata.name.clone());
                }
                self.pod_changed(lane, &pod)?;
            }
            Ok(watcher::Event::InitDone) => {
                self.lanes[lane].listed = true;
                let seen = self.relisted[lane].take().unwrap_or_default();
                let gone: Vec<String> = self.lanes[lane].pods.keys().filter(|name| !seen.contains(*name)).cloned().collect();
                for pod in gone {
                    self.pod_gone(lane, &pod)?;
                }
            }
            Ok(watcher::Event::Apply(pod)) => self.pod_changed(lane, &pod)?,
            Ok(watcher::Event::Delete(pod)) => self.pod_gone(lane, pod.metadata.name.as_deref().unwrap_or_default())?,
            // Retried with growing pauses; what runs goes on meanwhile.
            Err(error) => tracing::warn!(%error, service = self.lanes[lane].facts.name, "the watch of the pods was interrupted"),
        }
        Ok(())
    }

    fn pod_changed(&mut self, lane: usize, pod: &Pod) -> Result<()> {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(container) = pods::running(pod, &self.lanes[lane].facts.container) else {
            return self.pod_gone(lane, &name);
        };
        if self.lanes[lane].note_pod(&name, &container) { self.connect(lane, &name) } else { Ok(()) }
    }

    fn pod_gone(&mut self, lane: usize, pod: &str) -> Result<()> {
        match self.lanes[lane].pods.remove(pod) {
            Some(entry) if entry.announced => {
                self.reporter.tell(&Report::of(Happening::PodGone, &self.lanes[lane].facts.name).pods(vec![pod.to_owned()]))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn attached(
        &mut self,
        lane: usize,
        pod: &str,
        container_id: &str,
        number: u64,
        outcome: Result<Attachment, AgentError>,
    ) -> Result<()> {
        let service = self.lanes[lane].facts.name.clone();
        let Some(entry) = self.lanes[lane].entry(pod, container_id) else { return Ok(()) };
        match outcome {
            Ok(Attachment { process, running }) => {
                entry.stage = Stage::Attached(Attached { process, synced: 0, running, refused: None });
                if entry.way.is_none()
                    && let Some(probe) = self.lanes[lane].facts.probe.clone()
                    && let Some(asked) = self.asked(lane, pod)
                {
                    self.tasks.spawn(work::find_way(self.cluster.clone(), lane, probe, asked));
                }
                Ok(())
            }
            // The next agent attaches.
            Err(error) if error.is_fatal() => self.agent_useless(number, error),
            Err(error) => {
                entry.stage = Stage::Failed;
                let error = CommandError::new(format!("{service}: could not attach to pod {pod}")).caused_by(CommandError::from(error));
                self.reporter.fail(Happening::Error, Some(&service), vec![pod.to_owned()], &error)
            }
        }
    }
}
