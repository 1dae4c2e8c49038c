//! Pods and their containers: they come, go and come back.

use super::Session;
use crate::lane::{Attached, Stage};
use crate::place::Place;
use crate::pods::{self, RunningContainer};
use crate::report::{Happening, Report};
use crate::services;
use crate::work::{self, Attachment, Checked, Depth};
use devloop_core::agent::{AgentError, Located, ProcessId};
use devloop_core::detect::RemoteProcess;
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
            Ok(watcher::Event::Delete(pod)) => {
                self.forget_pod(pod.metadata.uid.as_deref().unwrap_or_default())?;
                self.pod_gone(lane, pod.metadata.name.as_deref().unwrap_or_default())?;
            }
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
        let is_supervised = self.lanes[lane].facts.is_supervised();
        let Some(entry) = self.lanes[lane].entry(pod, container_id) else { return Ok(()) };
        match outcome {
            Ok(Attachment { located, running }) => {
                let container = entry.container.clone();
                let volumes: Vec<String> = located.volumes.iter().map(|path| String::from_utf8_lossy(&path.0).into_owned()).collect();
                let attached = fresh(&located, running, is_supervised);
                let process = attached.process;
                entry.stage = Stage::Attached(attached);
                let way_is_unknown = entry.way.is_none();
                self.warn_of_volumes(lane, pod, &container, &volumes);
                if way_is_unknown
                    && let Some(probe) = self.lanes[lane].facts.probe.clone()
                    && let Some(asked) = self.asked(lane, pod)
                {
                    self.tasks.spawn(work::find_way(self.cluster.clone(), lane, probe, asked));
                }
                self.check(lane, pod, container_id, process, Depth::Quick);
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

    /// An agent that came by the API ends with its container, and with it what it
    /// knew about volumes, which don't.
    fn warn_of_volumes(&mut self, lane: usize, pod: &str, container: &RunningContainer, volumes: &[String]) {
        let before = self.containers_before.insert(container.pod_uid.clone(), container.id.clone());
        let is_by_api =
            self.routes.place(pod, &self.lanes[lane].facts.container, container).is_ok_and(|(place, _)| matches!(place, Place::Pod { .. }));
        if !is_by_api || before.is_none_or(|before| before == container.id) {
            return;
        }
        let is_below = |path: &str, volume: &String| path.strip_prefix(volume.as_str()).is_some_and(|rest| rest.starts_with('/'));
        let changed: Vec<&str> =
            volumes.iter().filter(|volume| self.lanes[lane].files().any(|(path, _)| is_below(path, volume))).map(String::as_str).collect();
        if !changed.is_empty() {
            let folders = changed.join(", ");
            self.reporter.warn(&format!(
                "the container of pod {pod} restarted, and what is on its volumes ({folders}) can't be put back at the end; a new pod has them as they were"
            ));
        }
    }

    fn check(&mut self, lane: usize, pod: &str, container_id: &str, process: ProcessId, depth: Depth) {
        let Some((_, agent)) = self.agents_of(lane).remove(pod) else { return };
        let layout = self.lanes[lane].layout.clone();
        self.tasks.spawn(work::check(agent, lane, pod.to_owned(), container_id.to_owned(), process, layout, depth));
    }

    /// Brings what a container was found to lack on its way.
    pub(super) fn checked(&mut self, lane: usize, pod: &str, container_id: &str, outcome: Result<Checked, AgentError>) -> Result<()> {
        let service = self.lanes[lane].facts.name.clone();
        let Some(attached) = self.lanes[lane].attached_entry(pod, container_id) else { return Ok(()) };
        attached.checked = true;
        let process = attached.process;
        let Checked { differing, is_full, files } = match outcome {
            Ok(checked) => checked,
            // Its pod or agent tells.
            Err(error) if work::is_passing(&error) => return Ok(()),
            Err(error) => {
                let error = CommandError::new(format!("{service}: the files of pod {pod} could not be compared"))
                    .caused_by(CommandError::from(error));
                return self.reporter.fail(Happening::Error, Some(&service), vec![pod.to_owned()], &error);
            }
        };
        let count = differing.len();
        self.lanes[lane].note_lacking(pod, differing);
        if !is_full {
            // Now that the session is under way there is time to read all.
            self.check(lane, pod, container_id, process, Depth::Full);
            return Ok(());
        }
        let message = if count == 0 { "has all files".to_owned() } else { format!("lacked {}", crate::report::count(count, "file")) };
        let report = Report { files: Some(files), ..Report::of(Happening::Verified, &service).pods(vec![pod.to_owned()]) };
        self.reporter.tell(&report.message(message))
    }
}

fn fresh(located: &Located, running: Option<blake3::Hash>, is_supervised: bool) -> Attached {
    let app = services::process(located);
    tracing::debug!(executable = app.executable, argv = ?app.argv, "the container's app");
    // A script that starts the app, perhaps.
    let first =
        RemoteProcess { executable: app.main_argv.first().cloned().unwrap_or_default(), argv: app.main_argv.clone(), ..app.clone() };
    // A supervised app comes and goes; its supervisor stays.
    let process = if is_supervised { located.main } else { located.process };
    let processes = vec![app, first];
    Attached { process, processes, checked: false, synced: 0, reloaded: 0, running, refused: None }
}
