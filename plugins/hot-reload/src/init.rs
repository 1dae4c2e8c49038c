//! `kubectl hot-reload init`: what is worked out about a target, as a file.

use crate::request::Request;
use crate::services;
use devloop_core::cluster;
use devloop_core::detect::{Detected, render_yaml};
use devloop_core::{CommandError, Context, ErrorContext, ExitStatus, Result, files, output, project};

/// Where the file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Into the project's folder, if there is none yet.
    New,
    /// The same, in place of one that is there.
    Replace,
    /// To stdout.
    Print,
}

pub(crate) async fn run(context: &Context, request: &Request, destination: Destination) -> Result<ExitStatus> {
    if destination == Destination::New
        && let Some(there) = project::load_if_any(None, &request.start)?
    {
        return Err(CommandError::usage(format!("{} is there already", there.path.display()))
            .with_hint("replace it with --force, or print the new one with --stdout"));
    }
    let cluster = context.shutdown.guard(cluster::connect(&request.cluster)).await?;
    let found = context.shutdown.guard(services::work_out(request, &cluster)).await?;
    let Some(found) = found.into_iter().next() else { return Err(CommandError::usage("no target was named")) };
    let text = render_yaml(&Detected { service: found.service, reasons: found.reasons });
    if destination == Destination::Print {
        output::bytes(text.as_bytes())?;
        return Ok(ExitStatus::Success);
    }
    let path = found.root.join(project::FILE_NAME);
    files::write_atomic(&path, text.as_bytes(), 0o644).with_context(|| format!("could not write {}", path.display()))?;
    context.ui.say(format!("wrote {}", path.display()));
    Ok(ExitStatus::Success)
}

/// Prints the JSON schema of the file.
pub(crate) fn schema() -> Result<ExitStatus> {
    output::bytes(project::SCHEMA.as_bytes())?;
    Ok(ExitStatus::Success)
}
