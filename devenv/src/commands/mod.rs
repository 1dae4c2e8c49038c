//! One function a command: calls the provider and shows what it answers.

mod logs;
mod status;

use crate::embedded::EmbeddedProvider;
use crate::provider::{Provider, UpReport};
use crate::request::{EnvironmentName, ProviderChoice, Request, UpRequest, Which};
use devloop_core::environment::Directories;
use devloop_core::error::{CommandError, ErrorContext, Result};
use devloop_core::output::{self, Format};
use devloop_core::ui::human_duration;
use devloop_core::{Context, ExitStatus, deliver};
use std::path::Path;
use std::time::Duration;

/// Carries a request out.
pub(crate) async fn run(context: &Context, request: Request) -> Result<ExitStatus> {
    let directories = Directories::from_env()?;
    let embedded = EmbeddedProvider::new(directories.clone());
    match request {
        Request::Up(request) => up(context, &embedded, &request).await,
        Request::Down { which, keep } => down(context, &embedded, &directories, which, keep).await,
        Request::Status { which, output } => status::run(&embedded, &directories, which, output),
        Request::Logs(request) => logs::run(context, &directories, &request).await,
        Request::Load { name, archive } => load(context, &embedded, &name, &archive).await,
        Request::Kubeconfig { name } => output::line(embedded.kubeconfig(&name)?.trim_end()).map(|()| ExitStatus::Success),
        Request::Build { with_kubectl } => {
            let folder = embedded.build(context, with_kubectl).await?;
            output::line(&folder.display().to_string()).map(|()| ExitStatus::Success)
        }
    }
}

async fn up(context: &Context, embedded: &EmbeddedProvider, request: &UpRequest) -> Result<ExitStatus> {
    let provider: &dyn Provider = match request.provider {
        // One engine is all there is to choose from, so far.
        ProviderChoice::Auto | ProviderChoice::Embedded => embedded,
    };
    let report = provider.up(context, request).await?;
    match request.output {
        Format::Text => context.ui.say(summary(&report)),
        format => output::print(format, &report, String::new)?,
    }
    Ok(ExitStatus::Success)
}

fn summary(report: &UpReport) -> String {
    let took = human_duration(Duration::from_millis(report.total_ms));
    let state = if report.already_up { "was up already" } else { "is up" };
    format!("Environment {:?} {state} ({took}); kubectl's context is {:?}", report.name, report.context)
}

async fn down(context: &Context, embedded: &EmbeddedProvider, directories: &Directories, which: Which, keep: bool) -> Result<ExitStatus> {
    let names = match which {
        Which::One(name) => vec![name],
        Which::All => directories.environment_names()?.iter().map(|name| name.parse::<EnvironmentName>()).collect::<Result<Vec<_>>>()?,
    };
    for name in names {
        embedded.down(context, &name, keep).await?;
    }
    Ok(ExitStatus::Success)
}

async fn load(context: &Context, embedded: &EmbeddedProvider, name: &EnvironmentName, archive: &Path) -> Result<ExitStatus> {
    let node = embedded.node(name)?;
    let step = context.ui.step(format!("Loading {}", archive.display()));
    let images = context
        .shutdown
        .guard(deliver::archive_to_node(&node, archive))
        .await
        .with_context(|| format!("could not load {}", archive.display()))?;
    if images.is_empty() {
        return Err(CommandError::new(format!("{} has no named image", archive.display()))
            .with_hint("name it when you save it, as in `docker save NAME:TAG`"));
    }
    step.done(format!("Loaded {}", images.join(", ")));
    Ok(ExitStatus::Success)
}
