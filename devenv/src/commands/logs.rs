//! `kubectl devenv logs COMPONENT [-f]`.

use crate::embedded::log_file::last_lines_before;
use crate::request::LogsRequest;
use devloop_core::environment::Directories;
use devloop_core::error::{CommandError, ErrorContext, ErrorHint, Result};
use devloop_core::{Context, ExitStatus, output};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Prints a component's log, and what is added to it, across its rotations.
pub(super) async fn run(context: &Context, directories: &Directories, request: &LogsRequest) -> Result<ExitStatus> {
    let environment = directories.environment(request.name.as_str());
    if environment.record()?.is_none() {
        return Err(CommandError::new(format!("there is no environment {:?}", request.name.as_str())))
            .hint(format!("bring it up with `kubectl devenv up --name {}`", request.name));
    }
    let path = environment.logs().join(format!("{}.log", request.component));
    // The name becomes part of a path: only one that is there is taken.
    let known = components(&environment.logs());
    if !known.contains(&request.component) {
        return Err(CommandError::new(format!("component {:?} has no log", request.component)))
            .hint(format!("components with a log: {}", known.join(", ")));
    }
    let open = async { File::open(&path).await.with_context(|| format!("could not read {}", path.display())) };
    let mut file = open.await?;
    if let Some(count) = request.tail {
        // What is written meanwhile belongs to what follows, and only to that.
        let length = file.metadata().await.with_context(|| format!("could not read {}", path.display()))?.len();
        last_lines_before(&path, length, count).iter().try_for_each(|line| output::line(line))?;
        if !request.follow {
            return Ok(ExitStatus::Success);
        }
        file.seek(std::io::SeekFrom::Start(length)).await.with_context(|| format!("could not read {}", path.display()))?;
    }
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = file.read(&mut buffer).await.with_context(|| format!("could not read {}", path.display()))?;
        if count > 0 {
            output::bytes(&buffer[..count])?;
            continue;
        }
        if !request.follow || context.shutdown.is_requested() {
            return Ok(ExitStatus::Success);
        }
        if rotated(&file, &path).await {
            file = File::open(&path).await.with_context(|| format!("could not read {}", path.display()))?;
            continue;
        }
        tokio::select! {
            () = context.shutdown.requested() => return Ok(ExitStatus::Success),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
}

fn components(logs: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(logs).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log").map(str::to_owned)).collect();
    names.sort();
    names
}

/// Whether another file has taken the name of the one that is open.
async fn rotated(file: &File, path: &Path) -> bool {
    match (file.metadata().await, tokio::fs::metadata(path).await) {
        (Ok(open), Ok(named)) => open.ino() != named.ino(),
        _ => false,
    }
}
