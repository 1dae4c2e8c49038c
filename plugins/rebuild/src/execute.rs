//! Have images made, ask the server, deliver; `rollout` does the rest.

use crate::destination::Destination;
use crate::gather::Gathered;
use crate::make;
use crate::plan::PlannedService;
use crate::preview;
use crate::render::{Outcome, PhasesMs};
use crate::request::{Conflicts, Mode, Request};
use crate::rollout::{self, Commit};
use devloop_core::deliver::Progress;
use devloop_core::deploy::{self, Applied, ApplyOptions, Change, Manifest};
use devloop_core::dockerfile::Step;
use devloop_core::image::ImageSet;
use devloop_core::project::ImageField;
use devloop_core::ui::human_bytes;
use devloop_core::{CommandError, Context, ExitStatus, Result};
use std::time::{Duration, Instant};

/// A service on its way.
pub(crate) struct Work<'a> {
    pub(crate) planned: &'a PlannedService,
    pub(crate) image: ImageSet,
    pub(crate) phases: PhasesMs,
    pub(crate) sent_bytes: u64,
    /// Of a Dockerfile's build.
    pub(crate) steps: Vec<Step>,
}

/// Carries out a plan; or, in a dry run, says what would be done. `commit` is told
/// when the cluster begins to change.
pub(crate) async fn execute(context: &Context, request: &Request, gathered: &Gathered, commit: &Commit) -> Result<Outcome> {
    // Everything is built before anything is sent: a mistake in one service
    // leaves the cluster as it is.
    let (destination, mut work) = build_all(context, request, gathered).await?;
    let mut manifests = gathered.plan.manifests.clone();
    for work in &work {
        deploy::replace_image(&mut manifests, &work.planned.image.name, &work.image.reference, &gathered.plan.fields);
    }
    let options = ApplyOptions { force: request.conflicts == Conflicts::Force, set: Some(gathered.set.clone()) };
    // The server has accepted all manifests before an image is sent.
    let step = context.ui.step("asking the cluster what would change");
    let (trial, asked) = timed(context.shutdown.guard(deploy::try_apply(&gathered.cluster, &manifests, options))).await?;
    step.clear();
    trial.warnings().iter().for_each(|warning| context.ui.warn(warning));
    match request.mode {
        Mode::Diff => return preview::diff(context, request, &trial),
        Mode::DryRun => return preview::dry_run(context, gathered, &destination, &trial, work).await.map(Outcome::Report),
        Mode::Change | Mode::Watch => {}
    }
    let outcome = trial.outcome();
    for work in &mut work {
        work.phases.apply = asked;
        if !runs_already(work, &outcome, &manifests, &gathered.plan.fields) {
            deliver(context, &destination, work).await?;
        }
    }
    rollout::roll_out(context, request, gathered, trial, work, commit).await.map(Outcome::Report)
}

/// Whether the pods that are to run the image do, so that nobody needs it sent.
fn runs_already(work: &Work<'_>, outcome: &Applied, manifests: &[Manifest], fields: &[ImageField]) -> bool {
    let Some(object) = outcome.find(&work.planned.service.deploy.target) else { return false };
    let users = manifests.iter().filter(|manifest| deploy::images(manifest, fields).contains(&work.image.reference));
    // A node may have lost it where only another object, that runs at times, needs it.
    let only_user = users.map(Manifest::describe).eq([object.describe()]);
    only_user && object.change == Change::Unchanged && deploy::stands(object)
}

/// Builds all services and makes their images, named for where they are to go.
async fn build_all<'a>(context: &Context, request: &Request, gathered: &'a Gathered) -> Result<(Destination, Vec<Work<'a>>)> {
    let mut work = Vec::with_capacity(gathered.plan.services.len());
    for made in make::all(context, gathered, &request.platforms).await? {
        let phases = PhasesMs { compile: made.compile, assemble: made.assemble, ..PhasesMs::default() };
        work.push(Work { planned: made.planned, image: made.image, phases, sent_bytes: 0, steps: made.steps });
    }
    let images: Vec<&ImageSet> = work.iter().map(|work| &work.image).collect();
    let (destination, why) = context.shutdown.guard(async { Ok(gathered.destination.clone().choose(&images).await) }).await?;
    if let Some(why) = why {
        context.ui.say(why);
    }
    let work = work.into_iter().map(|work| Work { image: destination.name(work.image), ..work }).collect();
    Ok((destination, work))
}

pub(crate) async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<(T, u64)> {
    let started = Instant::now();
    let value = work.await?;
    Ok((value, milliseconds(started.elapsed())))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn deliver(context: &Context, destination: &Destination, work: &mut Work<'_>) -> Result<()> {
    let name = &work.planned.service.name;
    let step = context.ui.step(format!("delivering {name}"));
    let progress = Progress::default();
    let delivered = context.shutdown.guard(destination.deliver(&work.image, &progress)).await;
    let delivered = delivered.map_err(|error| match error.status() {
        ExitStatus::Interrupted => error.with_hint("no manifest was applied"),
        _ => CommandError::new(format!("could not deliver {name}")).caused_by(error),
    })?;
    let place = destination.describe();
    if delivered.already_present {
        step.done(format!("{} is on {place} already", work.image.reference));
    } else {
        let (sent, total, bytes) = (delivered.sent_layers, delivered.total_layers, human_bytes(delivered.sent_bytes));
        let to = if place == "the node" { String::new() } else { format!(" to {place}") };
        step.done(format!("delivered {}{to}: {sent} of {total} layers, {bytes}", work.image.reference));
    }
    work.sent_bytes = delivered.sent_bytes;
    work.phases.deliver = delivered.ms;
    Ok(())
}
