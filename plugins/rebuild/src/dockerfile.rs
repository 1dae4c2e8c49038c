//! Services whose images Dockerfiles describe.

use crate::gather::Gathered;
use crate::plan::PlannedService;
use devloop_core::build::Platform;
use devloop_core::dockerfile::{self, Built, Event, Step};
use devloop_core::project::DockerfileBuild;
use devloop_core::ui::human_duration;
use devloop_core::{CommandError, Context, ExitStatus, Result};
use std::time::Duration;

/// Builds the image, unless nothing has changed; says each step once.
pub(crate) async fn build(
    context: &Context,
    gathered: &Gathered,
    planned: &PlannedService,
    build: &DockerfileBuild,
    platform: Option<&Platform>,
) -> Result<Built> {
    let name = &planned.service.name;
    let mut build = build.clone();
    // The engine may be another machine: without a word its own platform counts.
    if let Some(platform) = platform {
        build.platform = Some(format!("linux/{}", platform.architecture()));
    }
    let shown = &platform.map_or_else(|| name.clone(), |platform| format!("{name} for {}", platform.architecture()));
    let build = &build;
    let request = dockerfile::Request {
        root: &gathered.root,
        build,
        name: &planned.image.name,
        cache: &gathered.cache,
        docker_config: gathered.destination.access().docker_config.clone(),
        cluster: Some((gathered.cluster.client.clone(), gathered.cluster.namespace.clone())),
    };
    let step = context.ui.step(format!("building {shown}"));
    let tell = |event: Event| match event {
        Event::Began(what) => step.detail(what),
        Event::Said(what) => step.detail(what),
        Event::Ended(ended) => step.say(line(&ended)),
        Event::Warned(what) => context.ui.warn(format!("{}: {what}", build.file().display())),
    };
    let outcome = context.shutdown.guard(dockerfile::build(&request, &tell)).await;
    let built = outcome.map_err(|error| match error.status() {
        ExitStatus::Interrupted => error.with_hint("the build was ended; nothing was changed in the cluster"),
        _ => CommandError::new(format!("could not build {shown}")).caused_by(error).with_hint("nothing was changed in the cluster"),
    })?;
    step.done(summary(shown, &built));
    Ok(built)
}

/// `  [2/3] RUN make (1.2 s)`
fn line(step: &Step) -> String {
    let took = if step.cached { "cached".to_owned() } else { human_duration(Duration::from_millis(step.ms)) };
    format!("  {} ({took})", step.name)
}

fn summary(name: &str, built: &Built) -> String {
    if built.fresh {
        return format!("{name} is built already");
    }
    let (steps, cached) = (built.steps.len(), built.steps.iter().filter(|step| step.cached).count());
    let plural = if steps == 1 { "" } else { "s" };
    format!("built {name}: {steps} step{plural}, {cached} cached")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_in_a_line() {
        let step = |cached| Step { name: "[2/3] RUN make".into(), cached, ms: 1234 };
        assert_eq!(line(&step(false)), "  [2/3] RUN make (1.2 s)");
        assert_eq!(line(&step(true)), "  [2/3] RUN make (cached)");
    }
}
