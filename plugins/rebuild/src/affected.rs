//! `kubectl rebuild affected`: which services changes are about.

use crate::args::AffectedForm;
use crate::project;
use crate::request::Request;
use devloop_core::affected::{Affected, Before, Inputs, changed_since};
use devloop_core::project::{Service, parse_text};
use devloop_core::{Context, ErrorContext, ExitStatus, Result, output};

pub(crate) async fn run(context: &Context, request: &Request, since: &str, form: AffectedForm) -> Result<ExitStatus> {
    let affected = context.shutdown.guard(find(context, request, since)).await?;
    match form {
        AffectedForm::Json => output::line(&serde_json::to_string(&affected).context("could not write JSON")?)?,
        AffectedForm::Name if affected.is_empty() => context.ui.say("no service is affected"),
        AffectedForm::Name => {
            output::line(&affected.iter().map(|affected| affected.service.as_str()).collect::<Vec<_>>().join("\n"))?;
        }
    }
    Ok(ExitStatus::Success)
}

async fn find(context: &Context, request: &Request, since: &str) -> Result<Vec<Affected>> {
    let found = project::find(request).await?;
    found.worked_out.iter().for_each(|line| context.ui.say(line));
    let project = &found.project;
    let changes = changed_since(&project.root, since).await?;
    if changes.files.is_empty() {
        return Ok(Vec::new());
    }
    let services: Vec<&Service> = project.services.iter().collect();
    let inputs = Inputs::of(project, &services).await?;
    let mut before = Before::default();
    for lock in inputs.locks() {
        if changes.files.contains(&lock)
            && let Some(text) = changes.before(&lock).await
        {
            before.locks.insert(lock, text);
        }
    }
    if changes.files.contains(&project.path)
        && let Some(text) = changes.before(&project.path).await
    {
        before.services = parse_text(&text).ok();
    }
    Ok(inputs.affected(&changes.files, &before))
}
