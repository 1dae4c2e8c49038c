//! The node's programs: built once from the Go module that this program carries,
//! then found in the cache by the hash of their sources.

use devloop_core::environment::{Directories, find_on_path};
use devloop_core::error::{CommandError, ErrorContext, ErrorHint, Result};
use devloop_core::files::{self, FileLock};
use devloop_core::{Context, ui::Step};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// The module, file by file.
const SOURCES: [(&str, &str); 6] = [
    ("go.mod", include_str!("../../node/go.mod")),
    ("go.sum", include_str!("../../node/go.sum")),
    ("main.go", include_str!("../../node/main.go")),
    ("kubelet.go", include_str!("../../node/kubelet.go")),
    ("coredns.go", include_str!("../../node/coredns.go")),
    ("pause/main.go", include_str!("../../node/pause/main.go")),
];

/// The Go release that the module asks for, at least.
pub(crate) const MIN_GO: &str = "1.25";

/// What can be built from the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Node,
    Pause,
    Kubectl,
}

impl Program {
    fn file_name(self) -> &'static str {
        match self {
            Self::Node => "devloop-node",
            Self::Pause => "pause",
            Self::Kubectl => "kubectl",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Node => ".",
            Self::Pause => "./pause",
            Self::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
        }
    }
}

/// The version of Kubernetes that the module pins, such as `v1.34.4`.
pub(crate) fn kubernetes_version() -> &'static str {
    let line = SOURCES[0].1.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "));
    line.map_or("", str::trim)
}

/// The folder of the node's programs in the cache, whether they are there or not.
pub(crate) fn folder(directories: &Directories) -> PathBuf {
    directories.cache.join("node").join(source_hash())
}

/// Whether the node's programs are in the cache.
pub(crate) fn is_built(directories: &Directories) -> bool {
    let folder = folder(directories);
    [Program::Node, Program::Pause].iter().all(|program| folder.join(program.file_name()).exists())
}

/// Answers the folder with the node's programs; builds those that aren't there.
///
/// # Errors
/// When Go is missing or too old, the build fails, or the user interrupts it;
/// the cache never has half a program.
pub(crate) async fn ensure(context: &Context, directories: &Directories, with_kubectl: bool) -> Result<PathBuf> {
    let folder = folder(directories);
    let mut wanted = vec![Program::Node, Program::Pause];
    if with_kubectl {
        wanted.push(Program::Kubectl);
    }
    let missing =
        |wanted: &[Program]| wanted.iter().copied().filter(|program| !folder.join(program.file_name()).exists()).collect::<Vec<_>>();
    if missing(&wanted).is_empty() {
        return Ok(folder);
    }
    super::preflight::check_space(&directories.cache)?;
    std::fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    // Two builds at once would take twice as long, for the same result.
    let _lock = FileLock::wait(&folder.join("build.lock"), &context.shutdown).await?;
    let module = folder.join("module");
    for (name, text) in SOURCES {
        let path = module.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(&module))
            .and_then(|()| files::write_atomic(&path, text.as_bytes(), 0o644))
            .with_context(|| format!("could not write {}", path.display()))?;
    }
    for program in missing(&wanted) {
        let what = match program {
            Program::Node => format!("Building the node's components, Kubernetes {} (once; 4 to 10 minutes)", kubernetes_version()),
            Program::Pause => "Building the sandbox program".to_owned(),
            Program::Kubectl => "Building kubectl".to_owned(),
        };
        let step = context.ui.step(what);
        context.shutdown.guard(build(&module, &folder, program, &step)).await?;
        step.done(format!("Built {} in {}", program.file_name(), folder.display()));
    }
    Ok(folder)
}

async fn build(module: &Path, folder: &Path, program: Program, step: &Step) -> Result<()> {
    let Some(go) = find_on_path("go") else {
        return Err(CommandError::new("Go is missing; the node's components are built with it"))
            .hint(format!("install Go {MIN_GO} or newer and put `go` on PATH"));
    };
    let unfinished = folder.join(format!(".{}.part", program.file_name()));
    let mut command = Command::new(go);
    command
        .args(["build", "-v", "-trimpath", "-mod=readonly", "-ldflags", &linker_flags(), "-o"])
        .arg(&unfinished)
        .arg(program.package())
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .env_remove("GOFLAGS")
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Go's own children are in the group, too: all end on Ctrl-C.
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().context("could not run go")?;
    let _group = ProcessGroup(child.id());
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let mut lines = BufReader::new(stderr).lines();
        while let Some(line) = lines.next_line().await.context("could not read what go says")? {
            step.detail(&line);
            // With -v most lines are names of packages; an error has a space.
            if line.contains(' ') && !line.starts_with("go: downloading") {
                said.push(line);
            }
        }
    }
    let status = child.wait().await.context("could not wait for go")?;
    if !status.success() {
        let tail = said.split_off(said.len().saturating_sub(15)).join("\n  ");
        return Err(CommandError::new(format!("building {} failed ({status}):\n  {tail}", program.file_name())))
            .hint(format!("Go {MIN_GO} or newer, a Go module proxy and about 4 GiB of disk space are needed"));
    }
    std::fs::rename(&unfinished, folder.join(program.file_name())).context("could not put the program into the cache")
}

/// Ends a build's processes when the build is abandoned.
struct ProcessGroup(Option<u32>);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            // All gone already, when the build has ended.
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Without these, the components take themselves for v0.0.0.
fn linker_flags() -> String {
    let version = kubernetes_version();
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let mut flags = "-s -w".to_owned();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")] {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    flags
}

/// Names the sources and the flags, so that a change of either builds anew.
fn source_hash() -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, text) in SOURCES {
        hasher.update(name.as_bytes()).update(&[0]).update(text.as_bytes()).update(&[0]);
    }
    hasher.update(linker_flags().as_bytes()).update(std::env::consts::ARCH.as_bytes());
    hasher.finalize().to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_version_is_found_in_the_module() {
        assert!(kubernetes_version().starts_with("v1."), "{}", kubernetes_version());
        assert!(linker_flags().contains("gitMinor=34"));
        assert_eq!(source_hash().len(), 16);
    }
}
