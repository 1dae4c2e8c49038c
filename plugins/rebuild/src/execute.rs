//! Build, assemble, deliver, apply, wait.

use crate::destination::Destination;
use crate::gather::Gathered;
use crate::plan::PlannedService;
use crate::render::{self, PhasesMs, Report, ServiceReport};
use crate::request::{Conflicts, Mode, Request};
use devloop_core::build::{self, BuildError, BuiltBinary};
use devloop_core::cluster::Cluster;
use devloop_core::deliver::Progress;
use devloop_core::deploy::{self, Applied, ApplyOptions, Rollout};
use devloop_core::image::{self, Image};
use devloop_core::ui::human_bytes;
use devloop_core::{CommandError, Context, ErrorContext, ExitStatus, Result};
use futures::future::try_join_all;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often an image is begun again because files change under it.
const ATTEMPTS: u32 = 5;

/// How long an apply in progress may go on after Ctrl-C, so that it is not left
/// half done.
const GRACE: Duration = Duration::from_secs(5);

/// A service on its way.
struct Work<'a> {
    planned: &'a PlannedService,
    image: Image,
    phases: PhasesMs,
    sent_bytes: u64,
}

/// Carries out a plan; or, in a dry run, says what would be done.
pub(crate) async fn execute(context: &Context, request: &Request, gathered: &Gathered) -> Result<Report> {
    // Everything is built before anything is sent: a mistake in one service
    // leaves the cluster as it is.
    let mut work = Vec::with_capacity(gathered.plan.services.len());
    let keep = gathered.cache.join("builds");
    std::fs::create_dir_all(&keep).with_context(|| format!("could not make {}", keep.display()))?;
    for planned in &gathered.plan.services {
        let (binary, compile) = timed(compile(context, &gathered.root, &keep, planned)).await?;
        let (image, assemble) = timed(context.shutdown.guard(assemble(gathered, planned, &binary))).await?;
        work.push(Work { planned, image, phases: PhasesMs { compile, assemble, ..PhasesMs::default() }, sent_bytes: 0 });
    }
    let images: Vec<&Image> = work.iter().map(|work| &work.image).collect();
    let (destination, why) = context.shutdown.guard(async { Ok(gathered.destination.clone().choose(&images).await) }).await?;
    work = work.into_iter().map(|work| Work { image: destination.name(work.image), ..work }).collect();
    if let Some(why) = why {
        context.ui.say(why);
    }
    let mut manifests = gathered.plan.manifests.clone();
    for work in &work {
        deploy::replace_image(&mut manifests, &work.planned.image.name, &work.image.reference);
    }
    let options = ApplyOptions { force: request.conflicts == Conflicts::Force, dry_run: request.mode == Mode::DryRun };
    if request.mode == Mode::DryRun {
        return dry_run(context, gathered, &destination, work, &manifests, options).await;
    }
    for work in &mut work {
        deliver(context, &destination, work).await?;
    }
    let (applied, apply) = timed(apply(context, &gathered.cluster, &manifests, options)).await?;
    for work in &mut work {
        work.phases.apply = apply;
    }
    render::applied(&context.ui, &applied);
    let waits = work.into_iter().map(|work| wait(context, request, &gathered.cluster, &applied, work));
    Ok(Report { dry_run: false, services: try_join_all(waits).await? })
}

async fn timed<T>(work: impl Future<Output = Result<T>>) -> Result<(T, u64)> {
    let started = Instant::now();
    let value = work.await?;
    Ok((value, milliseconds(started.elapsed())))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn compile(context: &Context, root: &Path, keep: &Path, planned: &PlannedService) -> Result<BuiltBinary> {
    let name = &planned.service.name;
    let step = context.ui.step(format!("compiling {name}"));
    let Some(build) = &planned.service.build else {
        return Err(CommandError::usage(format!("service {name:?} has no build, which its image's binary is to come from")));
    };
    match build::build(root, build, keep, &context.shutdown).await {
        Ok(None) => Err(CommandError::usage(format!("the build of service {name:?} makes no binary for its image"))
            .with_hint("name it in `build.command.output`")),
        Ok(Some(binary)) => {
            if binary.fresh {
                step.done(format!("{name} is compiled already"));
            } else {
                step.done(format!("compiled {name}"));
                if !binary.warnings.is_empty() {
                    context.ui.say(&binary.warnings);
                }
            }
            Ok(binary)
        }
        Err(BuildError::Compile { rendered, errors }) => {
            let count = if errors == 1 { "a compile error".to_owned() } else { format!("{errors} compile errors") };
            Err(CommandError::new(format!("{name} has {count}\n\n{rendered}\n"))
                .with_hint("nothing was changed in the cluster; correct the sources and run the command again"))
        }
        Err(BuildError::Tool(error)) if error.status() == ExitStatus::Interrupted => {
            Err(error.with_hint("nothing was changed in the cluster"))
        }
        Err(BuildError::Tool(error)) => Err(error).with_context(|| format!("could not build {name}")),
    }
}

async fn assemble(gathered: &Gathered, planned: &PlannedService, binary: &BuiltBinary) -> Result<Image> {
    for attempt in 1.. {
        let (cache, spec, root, path) = (gathered.cache.clone(), planned.image.clone(), gathered.root.clone(), binary.path.clone());
        let assembled =
            tokio::task::spawn_blocking(move || image::assemble(&cache, &spec, &root, &path)).await.context("could not make the image")?;
        match assembled {
            // An editor is at work; it will be done in a moment.
            Err(error) if error.is_transient() && attempt < ATTEMPTS => tokio::time::sleep(Duration::from_millis(20 << attempt)).await,
            outcome => return Ok(outcome?),
        }
    }
    Err(CommandError::new("could not make the image"))
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

fn unchanged(error: CommandError, hint: &str) -> CommandError {
    if error.status() == ExitStatus::Interrupted { error.with_hint(hint) } else { error }
}

/// Applies; once it has begun, Ctrl-C waits for its end.
async fn apply(context: &Context, cluster: &Cluster, manifests: &[deploy::Manifest], options: ApplyOptions) -> Result<Applied> {
    if context.shutdown.is_requested() {
        return Err(CommandError::interrupted().with_hint("no manifest was applied"));
    }
    let step = context.ui.step("applying the manifests");
    let work = deploy::apply_with(cluster, manifests, options);
    tokio::pin!(work);
    let applied = tokio::select! {
        applied = &mut work => applied?,
        () = context.shutdown.requested() => match tokio::time::timeout(GRACE, work).await {
            Ok(applied) => {
                applied?;
                return Err(CommandError::interrupted().with_hint("the manifests were applied, and roll out now"));
            }
            Err(_) => return Err(CommandError::interrupted().with_hint("the API server did not answer; run the command again to apply what is missing")),
        },
    };
    step.clear();
    Ok(applied)
}

async fn wait(context: &Context, request: &Request, cluster: &Cluster, applied: &Applied, work: Work<'_>) -> Result<ServiceReport> {
    let service = &work.planned.service;
    let target = &service.deploy.target;
    let cluster = Cluster { namespace: work.planned.namespace.clone().unwrap_or_else(|| cluster.namespace.clone()), ..cluster.clone() };
    // Not ours to know for a target that the manifests don't have.
    let rolled_out = applied.find(target).is_none_or(|object| object.new_generation);
    let step = context.ui.step(format!("waiting for {target}"));
    let waiting = deploy::wait_ready(&cluster, target, request.timeout, &context.shutdown);
    let (Rollout { pods }, ready) = timed(waiting).await.map_err(|error| {
        unchanged(error, &format!("the rollout goes on; see `kubectl rollout status {target} -n {}`", cluster.namespace))
    })?;
    let phases = PhasesMs { ready, ..work.phases };
    if rolled_out {
        step.done(format!("{target} is ready: {}", pods.join(", ")));
    } else {
        step.done(format!("{target} runs {} already, no rollout", work.image.reference));
    }
    Ok(ServiceReport::new(service, &work.image, work.sent_bytes, phases, pods, rolled_out))
}

async fn dry_run(
    context: &Context,
    gathered: &Gathered,
    destination: &Destination,
    work: Vec<Work<'_>>,
    manifests: &[deploy::Manifest],
    options: ApplyOptions,
) -> Result<Report> {
    let mut services = Vec::with_capacity(work.len());
    let applied = context.shutdown.guard(deploy::apply_with(&gathered.cluster, manifests, options)).await?;
    for work in work {
        let bytes = context.shutdown.guard(destination.missing_bytes(&work.image)).await?;
        context.ui.say(match bytes {
            Some(bytes) => format!("would deliver {}: {}", work.image.reference, human_bytes(bytes)),
            None => format!("{} is on {} already", work.image.reference, destination.describe()),
        });
        let service = &work.planned.service;
        let rolls_out = applied.find(&service.deploy.target).is_some_and(|object| object.new_generation);
        services.push(ServiceReport::new(service, &work.image, bytes.unwrap_or(0), work.phases, Vec::new(), rolls_out));
    }
    render::would_apply(&context.ui, &applied);
    Ok(Report { dry_run: true, services })
}
