//! `kubectl rebuild`: changed sources, built, delivered and rolled out.
//!
//! Code map: `args` (the command line) -> `request` (what it means) -> `gather`
//! (project, manifests, cluster) -> `plan` (pure: what is applied) -> `execute`
//! (build, assemble, deliver by way of `destination`, apply, wait) -> `render` (what is said about it).
//! `image` lists and removes what was delivered.
//!
//! Architecture invariant: the cluster is not touched before everything is built
//! and every manifest is read.

mod args;
mod destination;
mod execute;
mod gather;
mod image;
mod plan;
mod render;
mod request;

pub use args::Args;

use devloop_core::{Context, ExitStatus, Result};

/// Runs the command to its end.
///
/// # Errors
/// When a service can't be built, delivered or rolled out; the error says what
/// was done by then.
pub async fn run(context: Context, args: Args) -> Result<ExitStatus> {
    if let Some(args::Command::Image(image)) = &args.command {
        return image::run(&context, &args.cluster, image).await;
    }
    let request = request::Request::new(args)?;
    let gathered = context.shutdown.guard(gather::gather(&request)).await?;
    let report = execute::execute(&context, &request, &gathered).await?;
    render::finish(&context.ui, &request, &report)?;
    Ok(ExitStatus::Success)
}
