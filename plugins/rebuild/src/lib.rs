//! `kubectl rebuild`: changed sources, built, delivered and rolled out.
//!
//! Code map: `args` (the command line) -> `request` (what it means) -> `project`
//! (of its file, or worked out) -> `gather` (manifests, cluster) -> `plan` (pure:
//! what is applied) -> `make` (build, put images together) -> `execute` (ask the
//! server, deliver by way of `destination`) -> `rollout` (apply, wait, roll back,
//! prune) or `preview` (say what would be done) -> `render` (what is said about
//! it). `watch` does it again for each save; `affected` tells what a change is
//! about, without a cluster; `image` lists and removes what was delivered.
//!
//! Architecture invariant: the cluster is not touched before everything is built
//! and every manifest is read and accepted by the server.

mod affected;
mod args;
mod destination;
mod dockerfile;
mod execute;
mod gather;
mod git;
mod image;
mod make;
mod plan;
mod preview;
mod project;
mod provenance;
mod render;
mod request;
mod rollout;
mod watch;

pub use args::Args;

use args::Command;
use devloop_core::{Context, ExitStatus, Result};
use render::Outcome;
use request::{Mode, Request};
use rollout::Commit;

/// Runs the command to its end.
///
/// # Errors
/// When a service can't be built, delivered or rolled out; the error says what
/// was done by then.
pub async fn run(context: Context, args: Args) -> Result<ExitStatus> {
    let command = args.command.clone();
    if let Some(Command::Image(image)) = &command {
        return image::run(&context, &args.cluster, image).await;
    }
    let request = Request::new(args)?;
    match command {
        Some(Command::Affected { since, output }) => return affected::run(&context, &request, &since, output).await,
        None if request.mode == Mode::Watch => return watch::run(&context, &request).await,
        Some(Command::Image(_)) | None => {}
    }
    match rebuild(&context, &request).await {
        // As with `kubectl diff`: 1 means that there is a difference.
        Err(error) if request.mode == Mode::Diff && error.status() == ExitStatus::Failure => {
            context.ui.error(&error);
            Ok(ExitStatus::Usage)
        }
        outcome => outcome,
    }
}

async fn rebuild(context: &Context, request: &Request) -> Result<ExitStatus> {
    let gathering = async {
        let found = project::find(request).await?;
        found.worked_out.iter().for_each(|line| context.ui.say(line));
        gather::gather(request, &found).await
    };
    let gathered = context.shutdown.guard(gathering).await?;
    match execute::execute(context, request, &gathered, &Commit::default()).await? {
        Outcome::Report(report) => render::finish(&context.ui, request, &report).map(|()| ExitStatus::Success),
        Outcome::Ended(status) => Ok(status),
    }
}
