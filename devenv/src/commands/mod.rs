//! One function a command: calls the provider and shows what it answers.

mod logs;
mod status;

use crate::provider::{Provider, Providers, UpReport};
use crate::request::{EnvironmentName, ProviderChoice, Request, UpRequest, Which};
use crate::{choice, doctor, load, prune};
use devloop_core::environment::Directories;
use devloop_core::error::Result;
use devloop_core::output::{self, Format};
use devloop_core::ui::human_duration;
use devloop_core::{Context, ExitStatus};
use std::time::Duration;

/// Carries a request out.
pub(crate) async fn run(context: &Context, request: Request) -> Result<ExitStatus> {
    let directories = Directories::from_env()?;
    let providers = Providers::new(&directories);
    match request {
        Request::Up(request) => up(context, &providers, request).await,
        Request::Down { which, keep } => down(context, &providers, &directories, which, keep).await,
        Request::Status { which, output } => status::run(&providers, &directories, which, output).await,
        Request::Logs(request) => logs::run(context, &directories, &request).await,
        Request::Load(request) => load::run(context, &providers, &request).await,
        Request::Doctor { output } => doctor::run(context, &directories, output).await,
        Request::Prune(request) => prune::run(context, &providers, &directories, &request).await,
        Request::Kubeconfig { name } => {
            let text = providers.of(&name).kubeconfig(&name).await?;
            output::line(text.trim_end()).map(|()| ExitStatus::Success)
        }
        Request::Build { with_kubectl } => {
            let folder = providers.embedded.build(context, with_kubectl).await?;
            output::line(&folder.display().to_string()).map(|()| ExitStatus::Success)
        }
    }
}

async fn up(context: &Context, providers: &Providers, request: UpRequest) -> Result<ExitStatus> {
    let request = choice::settle(context, providers, request).await?;
    let report = match request.provider {
        ProviderChoice::Embedded | ProviderChoice::Auto => providers.embedded.up(context, &request).await?,
        ProviderChoice::Kind => providers.kind.up(context, &request).await?,
        ProviderChoice::Context => providers.context.up(context, &request).await?,
    };
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

async fn down(context: &Context, providers: &Providers, directories: &Directories, which: Which, keep: bool) -> Result<ExitStatus> {
    let names = match which {
        Which::One(name) => vec![name],
        Which::All => directories.environment_names()?.iter().map(|name| name.parse::<EnvironmentName>()).collect::<Result<Vec<_>>>()?,
    };
    // One that can't be taken down doesn't keep the others up.
    let mut failed = None;
    for name in names {
        match providers.of(&name).down(context, &name, keep).await {
            Err(error) if context.shutdown.is_requested() => return Err(error),
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    context.ui.error(&earlier);
                }
            }
            Ok(()) => {}
        }
    }
    failed.map_or(Ok(ExitStatus::Success), Err)
}
