//! What would be done, said without doing it.

use crate::destination::Destination;
use crate::execute::Work;
use crate::gather::Gathered;
use crate::render::{self, ChangeReport, DiffReport, Outcome, Report, ServiceReport};
use crate::request::Request;
use devloop_core::deploy::{self, Trial};
use devloop_core::ui::human_bytes;
use devloop_core::{Context, ExitStatus, Result};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

pub(crate) async fn dry_run(
    context: &Context,
    gathered: &Gathered,
    destination: &Destination,
    trial: &Trial,
    work: Vec<Work<'_>>,
) -> Result<Report> {
    let mut services = Vec::with_capacity(work.len());
    let applied = trial.outcome();
    for work in work {
        let bytes = context.shutdown.guard(destination.missing_bytes(&work.image)).await?;
        context.ui.say(match bytes {
            Some(bytes) => format!("would deliver {}: {}", work.image.reference, human_bytes(bytes)),
            None => format!("{} is on {} already", work.image.reference, destination.describe()),
        });
        let service = &work.planned.service;
        let rolls_out = applied.find(&service.deploy.target).is_some_and(|object| object.new_generation);
        let report = ServiceReport::new(service, &work.image, bytes.unwrap_or(0), work.phases, Vec::new(), rolls_out);
        services.push(report.with_steps(work.steps));
    }
    render::would_apply(&context.ui, &applied);
    let orphans = if gathered.is_whole { trial.orphans(&gathered.plan.others) } else { Vec::new() };
    orphans.iter().for_each(|orphan| context.ui.say(render::leftover(orphan)));
    let leftovers = orphans.iter().map(|orphan| orphan.id.to_string()).collect();
    Ok(Report { dry_run: true, services, pruned: Vec::new(), leftovers })
}

/// Shows the difference between what the cluster has and what it would have.
pub(crate) fn diff(context: &Context, request: &Request, trial: &Trial) -> Result<Outcome> {
    // Another one in each run: the same value can be told from another, but not
    // be guessed from what is shown.
    let key = RandomState::new();
    let mask = |value: &str| format!("*** ({:08x})", key.hash_one(value) >> 32);
    let objects = trial.outcome().objects;
    let changes = objects.iter().filter_map(|object| Some(ChangeReport::new(object, deploy::diff(object, &mask)?)));
    let report = DiffReport { changes: changes.collect() };
    render::diff(&context.ui, request, &report)?;
    Ok(Outcome::Ended(if report.changes.is_empty() { ExitStatus::Success } else { ExitStatus::Failure }))
}
