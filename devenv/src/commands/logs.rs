//! `kubectl devenv logs COMPONENT [-f]`.

use crate::request::LogsRequest;
use devloop_core::environment::Directories;
use devloop_core::error::{CommandError, ErrorContext, ErrorHint, Result};
use devloop_core::logs::LocalLog;
use devloop_core::{Context, ExitStatus, output};
use std::path::Path;
use std::time::Duration;

/// Between two looks at a log that is followed.
const PAUSE: Duration = Duration::from_millis(100);

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
    let failed = || format!("could not read {}", path.display());
    let mut log = LocalLog::open(&path).with_context(failed)?;
    if let Some(count) = request.tail {
        log.last_lines(count).with_context(failed)?.iter().try_for_each(|line| output::line(line))?;
        if !request.follow {
            return Ok(ExitStatus::Success);
        }
    }
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match log.read(&mut buffer).with_context(failed)? {
            0 if !request.follow => return Ok(ExitStatus::Success),
            0 => tokio::select! {
                () = context.shutdown.requested() => return Ok(ExitStatus::Success),
                () = tokio::time::sleep(PAUSE) => {}
            },
            count => output::bytes(&buffer[..count])?,
        }
        if context.shutdown.is_requested() {
            return Ok(ExitStatus::Success);
        }
    }
}

fn components(logs: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(logs).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log").map(str::to_owned)).collect();
    names.sort();
    names
}
