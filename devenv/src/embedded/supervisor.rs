//! The first process of a node: starts the components in order, restarts what
//! dies, reaps orphans, writes logs and the status file, ends everything.
//!
//! It is process 1 of its pid namespace: when it ends, for whatever reason, the
//! kernel ends every process of the environment with it.

use super::components::{Component, Milestone};
use super::log_file::LogFile;
use super::registry;
use devloop_core::environment::{ComponentStatus, EnvironmentStatus, Failure, Phase};
use devloop_core::files;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// A component that ends this often before the node is ready won't get there.
const MAX_EARLY_EXITS: u32 = 6;
/// A component that ran this long had started well.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// Everything that happens to a supervisor.
enum Event {
    /// A child ended: one of ours or an orphan.
    Ended(Pid, String, bool),
    Reached(Milestone),
    /// The back-off of a component is over.
    Restart(usize),
    Stop,
}

/// What the supervisor knows of one component.
#[derive(Debug, Default)]
struct State {
    pid: Option<Pid>,
    started: Option<Instant>,
    done: bool,
    early_exits: u32,
    status: ComponentStatus,
}

/// Runs a node until it is told to stop. The caller is process 1.
pub(crate) struct Supervisor {
    components: Vec<Component>,
    states: Vec<State>,
    reached: BTreeSet<Milestone>,
    status: EnvironmentStatus,
    folder: PathBuf,
    began: Instant,
    events_tx: mpsc::UnboundedSender<Event>,
    events_rx: mpsc::UnboundedReceiver<Event>,
}

impl Supervisor {
    /// `folder` is the environment's; `host_pid` is this process's number on
    /// the host.
    pub(crate) fn new(components: Vec<Component>, folder: &Path, host_pid: i32) -> Self {
        let (events_tx, events_rx) = mpsc::unbounded_channel();
        let start = devloop_core::node::process_start_time(1).unwrap_or_default();
        let status =
            EnvironmentStatus { phase: Phase::Starting, supervisor_pid: host_pid, supervisor_start: start, ..EnvironmentStatus::default() };
        let states = components.iter().map(|_| State::default()).collect();
        Self {
            components,
            states,
            reached: BTreeSet::new(),
            status,
            folder: folder.to_owned(),
            began: Instant::now(),
            events_tx,
            events_rx,
        }
    }

    /// Where milestones are to be reported.
    pub(crate) fn milestones(&self) -> mpsc::UnboundedSender<Milestone> {
        let (reached_tx, mut reached_rx) = mpsc::unbounded_channel();
        let events_tx = self.events_tx.clone();
        tokio::spawn(async move {
            while let Some(milestone) = reached_rx.recv().await {
                if events_tx.send(Event::Reached(milestone)).is_err() {
                    return;
                }
            }
        });
        reached_tx
    }

    /// Runs until stopped or failed.
    ///
    /// # Errors
    /// When the signals or the status file can't be set up.
    pub(crate) async fn run(mut self) -> std::io::Result<()> {
        self.forward_signals()?;
        self.reap();
        self.start_due();
        self.publish()?;
        while let Some(event) = self.events_rx.recv().await {
            match event {
                Event::Ended(pid, how, well) => self.ended(pid, &how, well),
                Event::Reached(milestone) => self.reach(milestone),
                Event::Restart(index) => self.start(index),
                Event::Stop => {
                    self.status.phase = Phase::Stopping;
                    self.publish()?;
                    break;
                }
            }
            self.start_due();
            self.publish()?;
            if self.status.phase == Phase::Failed {
                break;
            }
        }
        self.stop_state_keepers().await;
        if self.status.phase != Phase::Failed {
            self.status.phase = Phase::Stopped;
        }
        for (component, state) in self.components.iter().zip(&self.states) {
            tracing::info!(component = component.name, restarts = state.status.restarts, "stopped");
        }
        self.publish()
    }

    fn forward_signals(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let events_tx = self.events_tx.clone();
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            drop(events_tx.send(Event::Stop));
        });
        Ok(())
    }

    /// Waits for children on a thread of its own; process 1 also gets all
    /// orphans, containers' shims among them.
    fn reap(&self) {
        let events_tx = self.events_tx.clone();
        std::thread::spawn(move || {
            loop {
                let (pid, how, well) = match waitpid(None, None) {
                    Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exit code {code}"), code == 0),
                    Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, format!("killed by {signal}"), false),
                    Ok(_) => continue,
                    Err(_) => {
                        // No child at the moment.
                        std::thread::sleep(Duration::from_millis(20));
                        continue;
                    }
                };
                if events_tx.send(Event::Ended(pid, how, well)).is_err() {
                    return;
                }
            }
        });
    }

    fn reach(&mut self, milestone: Milestone) {
        if self.reached.insert(milestone) {
            let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.status.milestones_ms.insert(milestone.name().to_owned(), elapsed);
            tracing::info!(milestone = milestone.name(), elapsed_ms = elapsed, "reached");
        }
        if self.status.phase == Phase::Starting
            && Milestone::awaited(self.has_registry()).all(|milestone| self.reached.contains(&milestone))
        {
            self.status.phase = Phase::Ready;
        }
    }

    fn has_registry(&self) -> bool {
        self.components.iter().any(|component| component.name == registry::COMPONENT)
    }

    /// Starts what has never run and whose conditions are met.
    fn start_due(&mut self) {
        for index in 0..self.components.len() {
            let state = &self.states[index];
            let new = state.started.is_none() && !state.done;
            if new && self.components[index].after.iter().all(|milestone| self.reached.contains(milestone)) {
                self.start(index);
            }
        }
    }

    fn start(&mut self, index: usize) {
        let component = &self.components[index];
        self.states[index].started = Some(Instant::now());
        match spawn(component, &self.folder) {
            Ok(pid) => {
                tracing::info!(component = component.name, %pid, "started");
                self.states[index].pid = Some(pid);
                self.states[index].status.pid = pid.as_raw();
            }
            Err(error) => {
                let how = format!("could not be started: {error}");
                self.after_end(index, &how);
            }
        }
    }

    fn ended(&mut self, pid: Pid, how: &str, well: bool) {
        let Some(index) = self.states.iter().position(|state| state.pid == Some(pid)) else { return };
        self.states[index].pid = None;
        self.states[index].status.pid = 0;
        match self.components[index].completes {
            Some(milestone) if well => {
                self.states[index].done = true;
                self.reach(milestone);
            }
            _ => self.after_end(index, how),
        }
    }

    /// Plans the next start of a component that ended, or gives up.
    fn after_end(&mut self, index: usize, how: &str) {
        let component = &self.components[index];
        let state = &mut self.states[index];
        let ran = state.started.map_or(Duration::ZERO, |started| started.elapsed());
        state.early_exits = if ran >= STABLE_AFTER { 1 } else { state.early_exits + 1 };
        state.status.last_exit = Some(how.to_owned());
        tracing::warn!(component = component.name, how, ran_ms = ran.as_millis(), "ended");
        if self.status.phase == Phase::Starting && state.early_exits >= MAX_EARLY_EXITS {
            self.status.phase = Phase::Failed;
            self.status.failure =
                Some(Failure { component: component.name.to_owned(), message: format!("ended {MAX_EARLY_EXITS} times, last with {how}") });
            return;
        }
        state.status.restarts += 1;
        let (delay, events_tx) = (restart_delay(state.early_exits), self.events_tx.clone());
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            drop(events_tx.send(Event::Restart(index)));
        });
    }

    /// Gives the components that write state a moment to end in order; all else
    /// is ended by the kernel when this process ends.
    async fn stop_state_keepers(&mut self) {
        for name in ["kube-apiserver", "etcd", "containerd"] {
            let Some(index) = self.components.iter().position(|component| component.name == name) else { continue };
            let Some(pid) = self.states[index].pid else { continue };
            // An API server takes its time to close watches; nothing of it is
            // lost when it is killed, and etcd must see no more writes.
            let end = if name == "kube-apiserver" { Signal::SIGKILL } else { Signal::SIGTERM };
            let _ = kill(pid, end);
            let deadline = Instant::now() + Duration::from_secs(2);
            while kill(pid, None).is_ok() && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    fn publish(&mut self) -> std::io::Result<()> {
        self.status.updated = jiff::Timestamp::now().to_string();
        let pairs = self.components.iter().zip(&self.states);
        self.status.components =
            pairs.map(|(component, state)| (component.name.to_owned(), state.status.clone())).collect::<BTreeMap<_, _>>();
        let text = serde_json::to_vec_pretty(&self.status)?;
        match files::write_atomic(&self.folder.join("status.json"), &text, 0o600) {
            // A full disk must not take the cluster down.
            Err(error) if self.status.phase == Phase::Ready => {
                tracing::warn!(%error, "could not write the status");
                Ok(())
            }
            other => other,
        }
    }
}

/// 100 ms, doubled each time, 10 s at most.
fn restart_delay(early_exits: u32) -> Duration {
    Duration::from_millis(100).saturating_mul(1 << early_exits.saturating_sub(1).min(7)).min(Duration::from_secs(10))
}

/// Starts a program with its output going to its log.
fn spawn(component: &Component, folder: &Path) -> std::io::Result<Pid> {
    let (reader, writer) = std::io::pipe()?;
    let mut command = Command::new(&component.argv[0]);
    command
        .args(&component.argv[1..])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let child = command.spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
    // The reaper waits for it, by number.
    drop(child);
    drop(command);
    let path = folder.join("logs").join(format!("{}.log", component.name));
    tokio::spawn(copy_to_log(reader.into(), path));
    Ok(pid)
}

async fn copy_to_log(output: OwnedFd, path: PathBuf) {
    let copied = async {
        let mut receiver = tokio::net::unix::pipe::Receiver::from_owned_fd(output)?;
        let mut log = LogFile::open(&path)?;
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = tokio::io::AsyncReadExt::read(&mut receiver, &mut buffer).await?;
            if count == 0 {
                return Ok::<(), std::io::Error>(());
            }
            // A full disk loses log lines, not the component: keep reading.
            if let Err(error) = log.append(&buffer[..count]) {
                tracing::warn!(%error, log = %path.display(), "could not write a log");
            }
        }
    };
    if let Err(error) = copied.await {
        tracing::warn!(%error, log = %path.display(), "could not copy a log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_back_off_to_ten_seconds() {
        assert_eq!(restart_delay(1), Duration::from_millis(100));
        assert_eq!(restart_delay(3), Duration::from_millis(400));
        assert_eq!(restart_delay(40), Duration::from_secs(10));
    }
}
