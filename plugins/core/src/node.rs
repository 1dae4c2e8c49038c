//! Fast paths to a node that is on this machine.
//!
//! The embedded node is a set of namespaces whose first process is the
//! environment's supervisor; a program started in those namespaces sees the
//! node's files, processes and network.

use crate::environment::{CONTEXT_PREFIX, Directories, Phase};
use crate::error::{CommandError, ErrorHint, Result};
use std::ffi::OsStr;
use std::path::PathBuf;
use tokio::process::Command;

/// A node of a cluster, reachable without the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A node of the embedded provider.
    Embedded {
        /// The environment's name.
        environment: String,
        /// Process id, on the host, of the node's first process.
        init_pid: i32,
    },
}

impl Node {
    /// The node behind a kubeconfig context, or `None` for a cluster that is not
    /// one of ours on this machine.
    ///
    /// # Errors
    /// When the environment's files are damaged, or it is not running.
    pub fn of_context(directories: &Directories, context: &str) -> Result<Option<Self>> {
        let Some(name) = context.strip_prefix(CONTEXT_PREFIX) else { return Ok(None) };
        let environment = directories.environment(name);
        if environment.record()?.is_none() {
            return Ok(None);
        }
        let status = environment.status()?.unwrap_or_default();
        let running = process_start_time(status.supervisor_pid) == Some(status.supervisor_start);
        if !running || !matches!(status.phase, Phase::Ready | Phase::Starting) {
            return Err(CommandError::new(format!("environment {name:?} is not running")))
                .hint(format!("start it with `kubectl devenv up --name {name}`"));
        }
        Ok(Some(Self::Embedded { environment: name.to_owned(), init_pid: status.supervisor_pid }))
    }

    /// A command that runs `program` on the node, in its mount, network, pid,
    /// UTS and IPC namespaces (`nsenter(1)`), with the node's root as working
    /// directory. `program` is looked up on the node.
    pub fn command<S: AsRef<OsStr>>(&self, program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = S>) -> Command {
        match self {
            Self::Embedded { init_pid, .. } => {
                let mut command = Command::new("nsenter");
                command.args(["--target", &init_pid.to_string(), "--mount", "--net", "--pid", "--uts", "--ipc", "--root", "--wd=/", "--"]);
                command.arg(program).args(arguments);
                command
                    .env_clear()
                    .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
                    .env("HOME", "/root")
                    .kill_on_drop(true);
                command
            }
        }
    }

    /// The path, on this machine, of a path on the node.
    pub fn host_path(&self, path: &str) -> PathBuf {
        match self {
            Self::Embedded { init_pid, .. } => PathBuf::from(format!("/proc/{init_pid}/root/{}", path.trim_start_matches('/'))),
        }
    }

    /// For messages: what this node is.
    pub fn describe(&self) -> String {
        match self {
            Self::Embedded { environment, .. } => format!("embedded node of {environment:?}"),
        }
    }
}

/// Start time of a process in clock ticks since boot (`proc_pid_stat(5)`, field
/// 22); `None` when there is no such process.
pub fn process_start_time(pid: i32) -> Option<u64> {
    if pid <= 0 {
        return None;
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    // A zombie holds nothing any more: for all we care, it is gone.
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_has_a_start_time_and_zero_has_none() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(process_start_time(own).is_some_and(|start| start > 0));
        assert_eq!(process_start_time(0), None);
    }

    #[test]
    fn a_foreign_context_has_no_node() {
        let folder = tempfile::tempdir().unwrap();
        let directories = Directories { state: folder.path().into(), cache: folder.path().into() };
        assert_eq!(Node::of_context(&directories, "kind-kind").unwrap(), None);
        assert_eq!(Node::of_context(&directories, "devloop-gone").unwrap(), None);
    }
}
