//! Nodes that can be reached without the Kubernetes API, and programs on them.
//!
//! The embedded node is a set of namespaces whose first process is the
//! environment's supervisor; a kind node is a container of a Docker engine. A
//! program started on either sees the node's files, processes and network.

pub mod kind;
mod process;

pub use process::{Ended, NodeOutput, NodeProcess};

use crate::docker::Engine;
use crate::environment::{CONTEXT_PREFIX, Directories, Phase};
use crate::error::{CommandError, ErrorHint, Result};
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A node of a cluster.
#[derive(Clone, Debug)]
pub struct Node {
    name: String,
    owner: Owner,
    access: Access,
}

/// What runs the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The embedded provider, for the environment of this name.
    Embedded {
        /// The environment's name.
        environment: String,
    },
    /// kind, for the cluster of this name.
    Kind {
        /// The cluster's name, without `kind-`.
        cluster: String,
    },
}

/// How programs get onto the node.
#[derive(Clone, Debug)]
enum Access {
    /// Its processes are this machine's: their namespaces are joined.
    Namespaces { init_pid: i32 },
    /// Its container's engine is asked (`docker exec`).
    Exec { engine: Engine },
}

impl Node {
    /// The embedded node of an environment, whose first process has this id.
    pub fn embedded(environment: &str, init_pid: i32) -> Self {
        Self {
            name: format!("{CONTEXT_PREFIX}{environment}"),
            owner: Owner::Embedded { environment: environment.to_owned() },
            access: Access::Namespaces { init_pid },
        }
    }

    /// The nodes of a kind cluster that run, control planes first.
    ///
    /// # Errors
    /// When the engine can't be asked.
    pub async fn of_kind(engine: &Engine, cluster: &str) -> Result<Vec<Self>> {
        Ok(kind::nodes(engine, cluster).await?)
    }

    /// The nodes behind a kubeconfig context, as far as they can be reached
    /// without its API; none for a cluster that is elsewhere. `server` is the
    /// URL of the API server.
    ///
    /// # Errors
    /// When the context is an environment of ours that is damaged or not running.
    pub async fn of_context(directories: &Directories, context: &str, server: &str) -> Result<Vec<Self>> {
        if let Some(name) = context.strip_prefix(CONTEXT_PREFIX)
            && let Some(node) = Self::of_environment(directories, name)?
        {
            return Ok(vec![node]);
        }
        Ok(kind::nodes_behind(context, server).await)
    }

    /// The node of an embedded environment; `None` when there is no such.
    ///
    /// # Errors
    /// When the environment's files are damaged, or it is not running.
    pub fn of_environment(directories: &Directories, name: &str) -> Result<Option<Self>> {
        let environment = directories.environment(name);
        if environment.record()?.is_none_or(|record| record.provider != "embedded") {
            return Ok(None);
        }
        let status = environment.status()?.unwrap_or_default();
        let running = process_start_time(status.supervisor_pid) == Some(status.supervisor_start);
        if !running || !matches!(status.phase, Phase::Ready | Phase::Starting) {
            return Err(CommandError::new(format!("environment {name:?} is not running")))
                .hint(format!("start it with `kubectl devenv up --name {name}`"));
        }
        Ok(Some(Self::embedded(name, status.supervisor_pid)))
    }

    /// Its name, as Kubernetes knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What runs it.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// For messages: what this node is.
    pub fn describe(&self) -> String {
        match &self.owner {
            Owner::Embedded { environment } => format!("embedded node of {environment:?}"),
            Owner::Kind { .. } => format!("kind node {:?}", self.name),
        }
    }

    /// Whether it still runs, as far as can be told without asking it.
    pub fn is_running(&self) -> bool {
        match &self.access {
            Access::Namespaces { init_pid } => process_start_time(*init_pid).is_some(),
            Access::Exec { .. } => true,
        }
    }

    /// Starts `program`, which is looked up on the node, with the node's root as
    /// working directory and its streams piped.
    ///
    /// # Errors
    /// When it can't be started.
    pub async fn start(&self, program: &str, arguments: &[&str]) -> io::Result<NodeProcess> {
        match &self.access {
            Access::Namespaces { init_pid } => NodeProcess::spawn(&mut enter(*init_pid, program, arguments)),
            Access::Exec { engine } => {
                let argv = std::iter::once(program).chain(arguments.iter().copied()).map(str::to_owned).collect();
                engine.exec(&self.name, argv).await.map_err(io::Error::other)
            }
        }
    }

    /// Runs a program to its end, without input.
    ///
    /// # Errors
    /// When it can't be run; its exit code is part of the answer.
    pub async fn output(&self, program: &str, arguments: &[&str]) -> io::Result<NodeOutput> {
        self.start(program, arguments).await?.output().await
    }

    /// A file's size in bytes; `None` when there is no such file.
    ///
    /// # Errors
    /// When the node can't be asked.
    pub async fn file_size(&self, path: &str) -> io::Result<Option<u64>> {
        let output = self.output("stat", &["--dereference", "--format=%s", path]).await?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse().ok().filter(|_| output.code == 0))
    }

    /// Puts a file on the node, as a whole or not at all. Its folder is made.
    ///
    /// # Errors
    /// When it can't be written.
    pub async fn write_file(&self, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
        // The node's shell writes it: the same for a node that is a container
        // elsewhere, and links are the node's own.
        const SCRIPT: &str = r#"set -e; mkdir -p "$(dirname "$1")"; temporary="$1.part$$"; cat >"$temporary"; test "$(wc -c <"$temporary")" -eq "$3" || { rm -f "$temporary"; exit 3; }; chmod "$2" "$temporary"; mv -f "$temporary" "$1""#;
        let (mode, length) = (format!("{mode:o}"), content.len().to_string());
        let mut process = self.start("sh", &["-c", SCRIPT, "sh", path, &mode, &length]).await?;
        // A shell that failed closes its end; its words tell more than the pipe.
        let written = process.stdin.write_all(content).await;
        let output = process.output().await?;
        if output.code != 0 {
            return Err(io::Error::other(format!("could not write {path} on the {}: {}", self.describe(), output.stderr.trim())));
        }
        written
    }

    /// The path, on this machine, of a path on the node; `None` where the node's
    /// files aren't this machine's.
    pub fn host_path(&self, path: &str) -> Option<PathBuf> {
        match &self.access {
            Access::Namespaces { init_pid } => Some(PathBuf::from(format!("/proc/{init_pid}/root/{}", path.trim_start_matches('/')))),
            Access::Exec { .. } => None,
        }
    }
}

/// `nsenter(1)` into the namespaces of a node's first process.
fn enter(init_pid: i32, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &init_pid.to_string(), "--mount", "--net", "--pid", "--uts", "--ipc", "--root", "--wd=/", "--"]);
    command
        .arg(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/root")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
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

    #[tokio::test]
    async fn a_foreign_context_has_no_nodes() {
        let folder = tempfile::tempdir().unwrap();
        let directories = Directories { state: folder.path().into(), cache: folder.path().into() };
        for context in ["production", "devloop-gone"] {
            assert!(Node::of_context(&directories, context, "https://192.0.2.1:6443").await.unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn a_file_is_written_whole_through_the_nodes_shell() {
        use std::os::unix::fs::PermissionsExt;
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: joining namespaces needs root");
            return;
        }
        // This process stands for the node: its namespaces are ours.
        let node = Node::embedded("test", i32::try_from(std::process::id()).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b/file");
        let content = vec![7; 300_000];
        node.write_file(&path.display().to_string(), &content, 0o755).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), content);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        let error = node.write_file("/proc/nothing/file", b"x", 0o644).await.unwrap_err();
        assert!(error.to_string().contains("could not write /proc/nothing/file"), "{error}");
        assert_eq!(
            node.output("sh", &["-c", "echo out; echo err >&2; exit 3"]).await.unwrap(),
            NodeOutput { code: 3, stdout: b"out\n".to_vec(), stderr: "err\n".into() }
        );
    }
}
