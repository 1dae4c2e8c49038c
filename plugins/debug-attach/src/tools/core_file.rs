//! A core file of a process that runs on, written here as it comes: in the end it is
//! there as a whole, or not at all.

use super::{Subject, cut, silent};
use crate::journal;
use crate::report::milliseconds;
use devloop_core::agent::debug::Runtime;
use devloop_core::agent::tools::CoreAnswer;
use devloop_core::output::{self, Format};
use devloop_core::ui::{human_bytes, human_duration};
use devloop_core::{CommandError, ErrorContext, Result};
use nix::sys::statvfs::statvfs;
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;

/// How long nothing may come: copying a large process takes a while.
const PATIENCE: Duration = Duration::from_secs(60);
const FAILED: &str = "could not write a core file";
/// What is left free on the disk.
const SPARE: u64 = 16 << 20;

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    content: u64,
    size: u64,
    threads: u32,
    stopped: Duration,
}

pub(super) async fn run(subject: &Subject<'_>, file: Option<&Path>) -> Result<()> {
    let path = file.map_or_else(|| PathBuf::from(subject.file_name("core")), Path::to_owned);
    if path.exists() {
        return Err(CommandError::new(format!("{} is there already", path.display())).with_hint("name another file: --core=FILE"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Whatever is in the memory of the process: for the user alone.
    let part = tempfile::Builder::new()
        .prefix(".core-")
        .tempfile_in(folder)
        .with_context(|| format!("could not write to {}", folder.display()))?;
    let written = receive(subject, &part, folder).await?;
    part.as_file().set_len(written.size).with_context(|| format!("could not write to {}", folder.display()))?;
    part.persist_noclobber(&path).map_err(|error| error.error).with_context(|| format!("could not make {}", path.display()))?;
    report(subject, &path, written)
}

async fn receive(subject: &Subject<'_>, part: &NamedTempFile, folder: &Path) -> Result<Written> {
    let [pid, start] = subject.words();
    let mut arguments = vec!["core", &pid, &start];
    if subject.place.is_sparing(&subject.found.pod) {
        arguments.push("--sparing");
    }
    let step = subject.context.ui.step(format!("writing a core file of {}", subject.describe()));
    let (mut stdin, mut messages) = subject.place.runner.start(&arguments).await?.split();
    let (mut planned, mut content) = (0, 0);
    loop {
        let answer = tokio::time::timeout(PATIENCE, messages.next::<CoreAnswer>()).await.map_err(|_| silent(FAILED, PATIENCE))??;
        match answer {
            Some(CoreAnswer::Planned { content, is_slow, .. }) => {
                check_space(part.as_file(), folder, content)?;
                if is_slow {
                    step.say("there is not the memory for a copy where the agent runs: the process stands still until all is here");
                }
                planned = content;
                // It may have ended since, which it says itself.
                let _ = stdin.write_all(b".").await;
                let _ = stdin.flush().await;
            }
            Some(CoreAnswer::Piece(piece)) => {
                let offset = piece.offset;
                let bytes = piece.into_bytes().ok_or_else(|| CommandError::new(FAILED).caused_by("what came is damaged"))?;
                part.as_file().write_all_at(&bytes, offset).with_context(|| format!("could not write to {}", folder.display()))?;
                content += bytes.len() as u64;
                step.detail(format!("{} of about {}", human_bytes(content), human_bytes(planned.max(content))));
            }
            Some(CoreAnswer::Done { size, threads, stopped_micros }) => {
                step.clear();
                return Ok(Written { content, size, threads, stopped: Duration::from_micros(stopped_micros) });
            }
            Some(CoreAnswer::Failed(refusal)) => return Err(subject.explain(FAILED, refusal)),
            None => return Err(cut(FAILED, messages.complaint().await)),
        }
    }
}

fn check_space(file: &File, folder: &Path, content: u64) -> Result<()> {
    let free = nix::sys::statvfs::fstatvfs(file).or_else(|_| statvfs(folder));
    // A file system that does not tell is tried.
    let Ok(free) = free else { return Ok(()) };
    let free = free.blocks_available() * free.fragment_size();
    if content + SPARE <= free {
        return Ok(());
    }
    Err(CommandError::new(format!(
        "the core file would take about {}, and {} are free in {}",
        human_bytes(content),
        human_bytes(free),
        folder.display()
    ))
    .with_hint("name a file on another disk: --core=FILE"))
}

fn report(subject: &Subject<'_>, path: &Path, written: Written) -> Result<()> {
    let Written { content, size, threads, stopped } = written;
    let chosen = &subject.found.chosen;
    let event = json!({
        "event": "core",
        "file": path,
        "pod": chosen.pod,
        "container": chosen.container,
        "pid": subject.candidate.container_pid,
        "via": subject.place.way.name(),
        "threads": threads,
        "bytes": content,
        "size": size,
        "stoppedMs": milliseconds(stopped),
    });
    if subject.request.output == Format::Json {
        output::line(&event.to_string())?;
    } else {
        let program = subject.candidate.executable.as_path().file_name().map_or_else(|| "PROGRAM".into(), |name| name.to_string_lossy());
        let reader = match subject.candidate.runtime {
            Runtime::Go(_) => format!("dlv core {program} {}", path.display()),
            _ => format!("gdb {program} {}", path.display()),
        };
        subject.context.ui.say(format!(
            "{}: {} of {}, {threads} threads; it stood still for {} and runs on\nread it with `{reader}`, where {program} is the program of the container",
            path.display(),
            human_bytes(content),
            subject.describe(),
            human_duration(stopped),
        ));
    }
    journal::note(
        json!({"did": "core", "context": subject.found.cluster.context, "namespace": subject.found.cluster.namespace, "what": event}),
    )
}
