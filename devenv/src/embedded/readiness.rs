//! Waiting, from outside, until a node is ready or clearly won't be.

use super::components::Milestone;
use super::log_file::last_lines;
use super::registry;
use devloop_core::environment::{EnvironmentDirectory, EnvironmentStatus, Phase};
use devloop_core::error::{CommandError, Result};
use devloop_core::node::process_start_time;
use devloop_core::ui::Step;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);
/// Log lines shown of a component that failed.
const SHOWN_LINES: usize = 8;

/// Whether the supervisor that wrote this status still runs.
pub(crate) fn is_running(status: &EnvironmentStatus) -> bool {
    status.supervisor_pid > 0 && process_start_time(status.supervisor_pid) == Some(status.supervisor_start)
}

/// Waits for the supervisor `pid` to say that its node is ready.
///
/// # Errors
/// When it says why it can't be, ends, or `timeout` passes: the component to
/// blame with its last log lines.
pub(crate) async fn wait(environment: &EnvironmentDirectory, pid: i32, timeout: Duration, step: &Step) -> Result<EnvironmentStatus> {
    let started = Instant::now();
    loop {
        let status = environment.status()?.filter(|status| status.supervisor_pid == pid);
        if let Some(status) = &status {
            match status.phase {
                Phase::Ready => return Ok(status.clone()),
                Phase::Failed => return Err(failed(environment, status)),
                _ => step.detail(waiting_for(status).join(", ")),
            }
        }
        if process_start_time(pid).is_none() {
            // It may have written its last words since we looked.
            return match environment.status()?.filter(|status| status.supervisor_pid == pid && status.failure.is_some()) {
                Some(status) => Err(failed(environment, &status)),
                None => Err(with_log(environment, "supervisor", "the node's first process ended")),
            };
        }
        if started.elapsed() > timeout {
            return Err(timed_out(environment, &status.unwrap_or_default(), timeout));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn missing(status: &EnvironmentStatus) -> impl Iterator<Item = Milestone> {
    let with_registry = status.components.contains_key(registry::COMPONENT);
    Milestone::awaited(with_registry).filter(|milestone| !status.milestones_ms.contains_key(milestone.name()))
}

/// The milestones that are still to come.
fn waiting_for(status: &EnvironmentStatus) -> Vec<&'static str> {
    missing(status).map(Milestone::name).collect()
}

fn failed(environment: &EnvironmentDirectory, status: &EnvironmentStatus) -> CommandError {
    match &status.failure {
        Some(failure) => with_log(environment, &failure.component, &format!("{} {}", failure.component, failure.message)),
        None => with_log(environment, "supervisor", "the node failed"),
    }
}

fn timed_out(environment: &EnvironmentDirectory, status: &EnvironmentStatus, timeout: Duration) -> CommandError {
    let blamed = missing(status).next().map_or("supervisor", Milestone::component);
    let message = format!("not ready after {} s; still waiting for {}", timeout.as_secs(), waiting_for(status).join(", "));
    with_log(environment, blamed, &message)
}

fn with_log(environment: &EnvironmentDirectory, component: &str, message: &str) -> CommandError {
    let lines = last_lines(&environment.logs().join(format!("{component}.log")), SHOWN_LINES);
    let shown = if lines.is_empty() { String::new() } else { format!("\nlast lines of {component}:\n  {}", lines.join("\n  ")) };
    CommandError::new(format!("{message}{shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use devloop_core::environment::{Directories, Failure};

    #[test]
    fn a_failure_names_the_component_and_shows_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Directories { state: folder.path().into(), cache: folder.path().into() }.environment("dev");
        std::fs::create_dir_all(environment.logs()).unwrap();
        std::fs::write(environment.logs().join("etcd.log"), "starting\nno space left on device\n").unwrap();
        let failure = Failure { component: "etcd".into(), message: "ended 6 times, last with exit code 1".into() };
        let status = EnvironmentStatus { failure: Some(failure), ..EnvironmentStatus::default() };
        assert_eq!(
            failed(&environment, &status).to_string(),
            "etcd ended 6 times, last with exit code 1\nlast lines of etcd:\n  starting\n  no space left on device"
        );
        let late = timed_out(&environment, &EnvironmentStatus::default(), Duration::from_secs(5)).to_string();
        assert!(late.starts_with("not ready after 5 s; still waiting for containerd, etcd,"), "{late}");
    }
}
