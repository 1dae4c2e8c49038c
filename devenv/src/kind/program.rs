//! The `kind` program: found or installed, and run. It makes and deletes
//! clusters and knows their credentials; nothing else goes through it.

use devloop_core::Context;
use devloop_core::docker::{Endpoint, Engine};
use devloop_core::environment::{Directories, find_on_path};
use devloop_core::error::{CommandError, ErrorContext, ErrorHint, Result};
use devloop_core::files::FileLock;
use devloop_core::ui::Step;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

/// The release that is installed where there is none.
const VERSION: &str = "v0.33.0";
/// The node image that this release takes by itself.
const DEFAULT_IMAGE: &str = "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5";

/// Lines shown of a run that failed.
const SHOWN_LINES: usize = 12;

/// A cluster to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewCluster<'a> {
    pub(super) name: &'a str,
    /// What it is made from, as YAML.
    pub(super) config: &'a str,
    /// The file for its credentials.
    pub(super) kubeconfig: &'a Path,
    /// When to give up.
    pub(super) until: Instant,
}

/// The program, and the engine it is to use.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    path: PathBuf,
    docker_host: Option<String>,
}

impl Kind {
    /// The program that is there: on PATH, or installed by an earlier run.
    pub(super) fn present(directories: &Directories, engine: &Engine) -> Option<Self> {
        let path = find_on_path("kind").or_else(|| Some(installed_path(directories)).filter(|path| path.is_file()))?;
        // kind asks the `docker` program, which may look elsewhere than we did.
        // TLS needs more than an address: there, both read the same settings.
        let docker_host = match engine.endpoint() {
            Endpoint::Https { .. } => None,
            endpoint => Some(endpoint.to_string()),
        };
        Some(Self { path, docker_host })
    }

    /// The program that is there, else one that is installed with Go.
    ///
    /// # Errors
    /// When there is none and none can be installed, or `docker` is missing,
    /// which kind itself runs.
    pub(super) async fn ensure(context: &Context, directories: &Directories, engine: &Engine) -> Result<Self> {
        if find_on_path("docker").is_none() {
            return Err(CommandError::new("the `docker` program is missing, which kind runs"))
                .hint("install Docker's command line (Debian: docker.io or docker-cli), and put it on PATH");
        }
        if let Some(kind) = Self::present(directories, engine) {
            return Ok(kind);
        }
        install(context, &installed_path(directories)).await?;
        Self::present(directories, engine).ok_or_else(|| CommandError::new("kind was installed and can't be found"))
    }

    /// Its version, such as `v0.33.0`; empty when it doesn't say.
    pub(super) async fn version(&self) -> String {
        let output = self.command(&["version"]).stdout(Stdio::piped()).stderr(Stdio::null()).output().await;
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.split_whitespace().nth(1).unwrap_or_default().to_owned()
    }

    /// Makes a cluster; its credentials go into a file of their own.
    ///
    /// # Errors
    /// With kind's last words. Abandoned, kind and what it started are killed.
    pub(super) async fn create(&self, new: &NewCluster<'_>, step: &Step) -> Result<()> {
        let kubeconfig = new.kubeconfig.display().to_string();
        let arguments = ["create", "cluster", "--name", new.name, "--config", "-", "--kubeconfig", &kubeconfig];
        let last = Mutex::new(String::new());
        let ran = self.run(&arguments, new.config, |line| {
            step.detail(readable(line));
            if let Ok(mut last) = last.lock() {
                *last = readable(line);
            }
        });
        let ran = tokio::time::timeout_at(new.until.into(), ran).await;
        ran.unwrap_or_else(|_| {
            let last = last.into_inner().unwrap_or_default();
            let at = if last.is_empty() { String::new() } else { format!("; it was at {last:?}") };
            Err(CommandError::new(format!("kind did not finish in time{at}"))).hint("give it longer with --timeout, in seconds")
        })?;
        Ok(())
    }

    /// Deletes a cluster; `kubeconfig` is where its context is taken out.
    ///
    /// # Errors
    /// With kind's last words.
    pub(super) async fn delete(&self, name: &str, kubeconfig: &Path, step: &Step) -> Result<()> {
        let kubeconfig = kubeconfig.display().to_string();
        self.run(&["delete", "cluster", "--name", name, "--kubeconfig", &kubeconfig], "", |line| step.detail(readable(line)))
            .await
            .map(|_| ())
    }

    /// The credentials of a cluster, as a kubeconfig.
    ///
    /// # Errors
    /// With kind's last words.
    pub(super) async fn kubeconfig(&self, name: &str, step: &Step) -> Result<String> {
        self.run(&["get", "kubeconfig", "--name", name], "", |line| step.detail(readable(line))).await
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        if let Some(host) = &self.docker_host {
            command.env("DOCKER_HOST", host).env_remove("DOCKER_CONTEXT");
        }
        command
    }

    async fn run(&self, arguments: &[&str], input: &str, on_line: impl FnMut(&str)) -> Result<String> {
        let what = format!("kind {}", arguments.iter().take(2).copied().collect::<Vec<_>>().join(" "));
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let ran = run_in_group(command, input, on_line).await;
        ran.with_context(|| format!("could not run {}", self.path.display()))?.map_err(|said| {
            let tail = said.join("\n  ");
            CommandError::new(format!("{what} failed; its last lines:\n  {tail}"))
        })
    }
}

/// The node image that this version of kind takes by itself, where that is
/// known.
pub(super) fn default_image(version: &str) -> Option<&'static str> {
    (version == VERSION).then_some(DEFAULT_IMAGE)
}

/// Whether this version looks at the version of a containerd patch.
pub(super) fn has_versioned_patches(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split(['.', '-']).map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (0, 33))
}

fn installed_path(directories: &Directories) -> PathBuf {
    directories.cache.join("bin/kind")
}

async fn install(context: &Context, path: &Path) -> Result<()> {
    let module = format!("sigs.k8s.io/kind@{VERSION}");
    let how = format!("install it: `go install {module}`, or see https://kind.sigs.k8s.io/docs/user/quick-start/#installation");
    let Some(go) = find_on_path("go") else {
        return Err(CommandError::new("kind is missing, and so is Go to install it with")).hint(how);
    };
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    let _lock = FileLock::wait(&folder.join(".kind.lock"), &context.shutdown).await?;
    if path.is_file() {
        return Ok(());
    }
    let step = context.ui.step(format!("Installing kind {VERSION} (once)"));
    // Into a folder of its own, so that a half-written program is never found.
    let temporary = tempfile::Builder::new().prefix(".kind-").tempdir_in(folder).context("could not make a folder to install kind in")?;
    let mut command = Command::new(go);
    command.args(["install", "-trimpath", &module]).env("GOBIN", temporary.path()).env("CGO_ENABLED", "0").env_remove("GOFLAGS");
    command.env("GOWORK", "off").stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let ran = context.shutdown.guard(async { run_in_group(command, "", |line| step.detail(line)).await.context("could not run go") });
    if let Err(said) = ran.await? {
        return Err(CommandError::new(format!("kind could not be installed:\n  {}", said.join("\n  ")))).hint(how);
    }
    std::fs::rename(temporary.path().join("kind"), path).with_context(|| format!("could not put kind into {}", folder.display()))?;
    step.done(format!("Installed kind {VERSION} in {}", folder.display()));
    Ok(())
}

/// Runs a command in a process group of its own, which ends when this is
/// abandoned or this process ends. Answers what it printed; in the inner error,
/// its last complaints.
async fn run_in_group(mut command: Command, input: &str, mut on_line: impl FnMut(&str)) -> std::io::Result<Result<String, Vec<String>>> {
    command.stderr(Stdio::piped()).process_group(0);
    // SAFETY: one system call that is async-signal-safe, between fork and exec.
    unsafe {
        command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?));
    }
    let mut child = command.spawn()?;
    let mut group = Group(child.id());
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // One that ended early says why itself.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        Ok(())
    };
    let mut printed = Vec::new();
    let print = async {
        match stdout {
            Some(mut stdout) => stdout.read_to_end(&mut printed).await.map(|_| ()),
            None => Ok(()),
        }
    };
    let mut said = VecDeque::new();
    let complain = async {
        if let Some(stderr) = stderr {
            let mut lines = BufReader::new(stderr).split(b'\n');
            while let Some(line) = lines.next_segment().await? {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                on_line(&line);
                if said.len() == SHOWN_LINES {
                    said.pop_front();
                }
                if !line.is_empty() {
                    said.push_back(line);
                }
            }
        }
        Ok(())
    };
    tokio::try_join!(write, print, complain)?;
    let status = child.wait().await?;
    group.0 = None;
    if status.success() {
        return Ok(Ok(String::from_utf8_lossy(&printed).into_owned()));
    }
    if said.is_empty() {
        said.push_back(status.to_string());
    }
    Ok(Err(said.into()))
}

/// Ends a program with all that it started.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            // Fails only when all are gone.
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// A line of kind's without the signs that decorate it.
fn readable(line: &str) -> String {
    let text: String = line.chars().filter(char::is_ascii).collect();
    text.trim().trim_end_matches("...").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_decide_what_kind_is_given() {
        assert_eq!(default_image("v0.33.0"), Some(DEFAULT_IMAGE));
        assert_eq!(default_image("v0.20.0"), None);
        assert!(has_versioned_patches("v0.33.0") && has_versioned_patches("v0.34.0-alpha+1") && has_versioned_patches("1.0.0"));
        assert!(!has_versioned_patches("v0.20.0") && !has_versioned_patches(""));
        assert_eq!(readable(" • Preparing nodes 📦  ..."), "Preparing nodes");
    }

    #[tokio::test]
    async fn a_failed_run_leaves_its_last_words_and_an_abandoned_one_no_process() {
        let mut command = Command::new("sh");
        command.args(["-c", "for i in $(seq 20); do echo line $i >&2; done; exit 3"]).stdout(Stdio::piped()).stdin(Stdio::piped());
        let said = run_in_group(command, "input", |_| {}).await.unwrap().unwrap_err();
        assert_eq!((said.len(), said.last().map(String::as_str)), (SHOWN_LINES, Some("line 20")));

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("sleep 60 & echo $! >{}; wait", file.display())]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let pid = tokio::select! {
            _ = run_in_group(command, "", |_| {}) => panic!("it ended"),
            pid = async {
                loop {
                    let text = std::fs::read_to_string(&file).unwrap_or_default();
                    if let Ok(pid) = text.trim().parse() { break pid; }
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            } => pid,
        };
        let gone = async {
            while devloop_core::node::process_start_time(pid).is_some() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(5), gone).await.expect("the grandchild is killed, too");
    }
}
